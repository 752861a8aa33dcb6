"""What a worker process has done so far, in a page of memory that it shares with its parent.

Owns: the words of that page. Does not own: who reads them when. Invariants: each word has one writer, so nobody locks
and nobody waits: a worker is never stopped, not even for a moment, by being looked at.
"""

import mmap
from typing import Final

from shmq_clients.perf.histogram import BUCKETS, Histogram

MESSAGES: Final = 0  # published or consumed
STOP: Final = 1  # written by the parent: end soon
ENDED: Final = 2  # CLOCK_MONOTONIC ns at which the work ended, 0 before
HEAD_WORDS: Final = 8
WORD_BYTES: Final = 8


class Tally:
    """Of one worker. Made before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, (HEAD_WORDS + BUCKETS) * WORD_BYTES)
        words = memoryview(self._memory).cast("Q")
        self.words = words[:HEAD_WORDS]
        self.latencies = Histogram(words[HEAD_WORDS:])

    @property
    def messages(self) -> int:
        return self.words[MESSAGES]

    @property
    def ended_ns(self) -> int:
        """When the worker came to its end, 0 while it works."""
        return self.words[ENDED]

    @property
    def stopped(self) -> bool:
        """Whether the worker was asked to end."""
        return bool(self.words[STOP])

    def stop(self) -> None:
        """Ask the worker to end."""
        self.words[STOP] = 1
