"""Delayed messages: a heap of when they are due.

Owns: the heap. Does not own: whether a message is still delayed (its control word says so when it fires), the clock.
Invariant: an entry is a hint: firing compares the very word that was seen, so an entry too many does nothing.
"""

import heapq
from collections.abc import Iterable
from typing import Final

from shmq_daemon.watched import SlotWord, Watched

FIRED: Final = 1
NOT_DUE: Final = 0
BATCH: Final = 1024  # of one queue in one step


class Delays:
    """What is due when, over all queues."""

    def __init__(self, watched: dict[int, Watched]) -> None:
        self._watched = watched
        self._heap: list[tuple[int, int, SlotWord]] = []

    def step(self, watched: Watched) -> bool:
        """Take up what one queue's ring of delayed messages holds. True: there may be more."""
        for _ in range(BATCH):
            found = watched.core.delayed_pop()
            if found is None:
                return False
            slot, ctl, due_ns = found
            heapq.heappush(self._heap, (due_ns, watched.queue.queue_id, (slot, ctl)))
        return True

    def adopt(self, watched: Watched, found: Iterable[SlotWord]) -> None:
        """Delayed messages that a full look found, beside those that are known already."""
        queue_id = watched.queue.queue_id
        known = {at for _, of, at in self._heap if of == queue_id}
        for at in found:
            if at not in known:
                heapq.heappush(self._heap, (watched.core.due_ns(*at), queue_id, at))

    def next_due(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> list[tuple[Watched, SlotWord]]:
        """Take out what is due now, of queues that are still there."""
        found: list[tuple[Watched, SlotWord]] = []
        while self._heap and self._heap[0][0] <= now_ns and len(found) < BATCH:
            _, queue_id, at = heapq.heappop(self._heap)
            if queue_id in self._watched:
                found.append((self._watched[queue_id], at))
        return found

    def fire(self, watched: Watched, at: SlotWord, now_ns: int) -> int:
        """Make one ready; one whose time was moved goes back into the heap. Returns how many became ready."""
        result = watched.core.fire_delayed(*at, now_ns)
        if result == NOT_DUE:
            due_ns = max(watched.core.due_ns(*at), now_ns + 1)
            heapq.heappush(self._heap, (due_ns, watched.queue.queue_id, at))
        return int(result == FIRED)
