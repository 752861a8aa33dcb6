"""Looking through all slots of a queue for what is dead or delayed and in no ring.

Owns: which queues are looked through, and how far that has come. Does not own: what becomes of what is found
(dead_letters.py, delays.py).
Invariants: a step is bounded; a queue that is asked for while it is looked through is looked through anew, as what is
asked for may lie behind; one that is gone or set apart is let go; those who die together cost one scan.
"""

import functools
from collections.abc import Callable
from typing import Final

from shmq_daemon.watched import Quarantine, Watched

SCANNED_MAX: Final = 8192  # slots in one step
ORPHANS_NS: Final = 500_000_000  # after a death: what it left may be in no ring


class Scans:
    """Over all queues. `take`: gets a queue, the first slot of a step, and how many."""

    def __init__(
        self, watched: dict[int, Watched], quarantine: Quarantine, take: Callable[[Watched, int, int], None]
    ) -> None:
        self._watched = watched
        self._quarantine = quarantine
        self._take = take
        self._next: dict[int, int] = {}  # queues that are looked through, and the slot that is next
        self._orphans_due_ns: dict[int, int] = {}  # queues where somebody died

    def begin(self, watched: Watched) -> None:
        """Now, from the first slot on."""
        self._next[watched.queue.queue_id] = 0

    def begin_after_death(self, watched: Watched, now_ns: int) -> None:
        """What became dead or delayed in a client's last instructions is found by a scan only."""
        self._orphans_due_ns.setdefault(watched.queue.queue_id, now_ns + ORPHANS_NS)

    def forget(self, queue_id: int) -> None:
        self._next.pop(queue_id, None)
        self._orphans_due_ns.pop(queue_id, None)

    def next_due(self) -> int | None:
        return 0 if self._next else min(self._orphans_due_ns.values(), default=None)

    def tick(self, now_ns: int) -> None:
        """One step of every queue that is looked through."""
        for queue_id in [queue_id for queue_id, due in self._orphans_due_ns.items() if due <= now_ns]:
            del self._orphans_due_ns[queue_id]
            self._next[queue_id] = 0
        for queue_id, first in list(self._next.items()):
            del self._next[queue_id]
            watched = self._watched.get(queue_id)
            step = functools.partial(self._step, first=first)
            if watched is not None and self._quarantine.run(watched, step, otherwise=False):
                self._next.setdefault(queue_id, first + SCANNED_MAX)

    def _step(self, watched: Watched, *, first: int) -> bool:
        """True: there are slots behind these."""
        self._take(watched, first, SCANNED_MAX)
        return first + SCANNED_MAX < watched.core.stats()["slots_used_high"]
