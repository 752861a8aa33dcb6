"""Memory of large bodies that nobody needs any more, given back to the system a piece at a time.

Owns: when a queue has been quiet for long enough, whose turn it is. Does not own: what is given back (the core's free
end of each tier, at most 16 MiB in one step).
Invariants: memory that the traffic of the moment would soon commit anew is left alone: it is given back only after a
second in which little of it could have been used; a step is bounded, and between two there is time for deaths.
"""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from shmq_daemon.log import Logger
from shmq_daemon.watched import Quarantine, Watched

QUIET_NS: Final = 1_000_000_000
STEP_APART_NS: Final = 25_000_000  # a step takes some milliseconds
IDLE_BYTES_MIN: Final = 1 << 20  # less is not worth a step
IDLE_SHARE_MIN: Final = 2  # at least one part in so many is idle


class Quiet(NamedTuple):
    """Since when a queue has had much more than it uses, and what had been published into it by then."""

    since_ns: int
    bytes_in: int


class Arenas:
    """Of all watched queues. `due_ns`: when the next step is, None when nothing is to be given back."""

    def __init__(self, watched: dict[int, Watched], quarantine: Quarantine, log: Logger) -> None:
        self._watched = watched
        self._quarantine = quarantine
        self._log = log
        self._quiet: dict[int, Quiet] = {}
        self._giving: deque[int] = deque()
        self._given: Counter[int] = Counter()
        self.due_ns: int | None = None
        self.counts: Counter[str] = Counter()

    def look(self, watched: Watched, figures: Mapping[str, int], now_ns: int) -> None:
        """Decide by a queue's statistics whether it has had more than it needs for long enough."""
        queue_id = watched.queue.queue_id
        committed = figures["arena_committed_bytes"]
        idle = committed - figures["arena_used_bytes"]
        if idle < max(IDLE_BYTES_MIN, committed // IDLE_SHARE_MIN):
            self._quiet.pop(queue_id, None)
            return
        quiet = self._quiet.get(queue_id)
        if quiet is None or figures["bytes_in"] - quiet.bytes_in > idle // 2:
            self._quiet[queue_id] = Quiet(now_ns, figures["bytes_in"])
        elif now_ns - quiet.since_ns >= QUIET_NS and queue_id not in self._giving:
            self._giving.append(queue_id)
            self.due_ns = self.due_ns or now_ns

    def forget(self, watched: Watched) -> None:
        self._quiet.pop(watched.queue.queue_id, None)  # the line drops what is gone by itself

    def tick(self, now_ns: int) -> None:
        """One step of the first in line."""
        if self.due_ns is None or now_ns < self.due_ns:
            return
        queue_id = self._giving.popleft()
        watched = self._watched.get(queue_id)
        given = self._quarantine.run(watched, lambda w: w.core.shrink(), 0) if watched is not None else 0
        self._given[queue_id] += given
        if given:
            self._giving.append(queue_id)
        else:
            self._done(queue_id, watched)
        self.due_ns = now_ns + STEP_APART_NS if self._giving else None

    def _done(self, queue_id: int, watched: Watched | None) -> None:
        """What is still idle lies before a body that lives; it is tried again after another quiet second."""
        self._quiet.pop(queue_id, None)
        given = self._given.pop(queue_id)
        self.counts["bytes_given_back"] += given
        if given and watched is not None:
            self._log.info("memory given back", queue=watched.name, mib=given >> 20)
