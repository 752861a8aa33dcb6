"""Messages that expire: which queue is to be looked at, and when.

Owns: the times. Does not own: which message is expired (the core), what becomes of it (dead_letters.py).
Invariants: a step is bounded; a queue is looked at when the first of its messages expires, and not before; a large one,
where a look costs, at most one part in REST of the time. Who publishes an earlier time rings the supervisor's bell.
"""

import time
from typing import Final

from shmq_daemon.watched import Quarantine, Watched

REST: Final = 20  # times what a look has cost


class Expiry:
    """Over all queues."""

    def __init__(self, watched: dict[int, Watched], quarantine: Quarantine) -> None:
        self._watched = watched
        self._quarantine = quarantine
        self._due_ns: dict[int, int] = {}
        self._rested_ns: dict[int, int] = {}  # of large queues: not before
        self._walks: dict[int, int] = {}  # queues that are being looked at, and the slot that is next

    def note(self, watched: Watched) -> None:
        """Read when the first message of a queue expires."""
        queue_id, due_ns = watched.queue.queue_id, watched.core.next_expiry_ns()
        if queue_id in self._walks:
            return
        if due_ns:
            self._due_ns[queue_id] = max(due_ns, self._rested_ns.get(queue_id, 0))
        else:
            self._due_ns.pop(queue_id, None)

    def forget(self, queue_id: int) -> None:
        for known in (self._due_ns, self._rested_ns, self._walks):
            known.pop(queue_id, None)

    def next_due(self) -> int | None:
        return 0 if self._walks else min(self._due_ns.values(), default=None)

    def tick(self, now_ns: int) -> int:
        """Let expire what is due, in steps. Returns how many messages did."""
        for queue_id in [queue_id for queue_id, due_ns in self._due_ns.items() if due_ns <= now_ns]:
            del self._due_ns[queue_id]
            self._walks.setdefault(queue_id, 0)
        expired = 0
        for queue_id in list(self._walks):
            watched = self._watched.get(queue_id)
            if watched is None or watched.quarantined:
                self.forget(queue_id)
            else:
                expired += self._quarantine.run(watched, self._step, 0)
        return expired

    def look(self, watched: Watched) -> None:
        """At every message of a queue, whatever is known of it."""
        self._walks[watched.queue.queue_id] = 0

    def _step(self, watched: Watched) -> int:
        queue_id = watched.queue.queue_id
        first = self._walks.pop(queue_id)
        before_ns = time.monotonic_ns()
        expired, behind = watched.core.expire_from(before_ns, first)
        after_ns = time.monotonic_ns()
        rested_ns = max(after_ns, self._rested_ns.get(queue_id, 0)) if first else after_ns
        self._rested_ns[queue_id] = rested_ns + (after_ns - before_ns) * REST
        if behind:
            self._walks[queue_id] = behind
        else:
            self.note(watched)
        return expired
