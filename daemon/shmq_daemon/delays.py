"""Delayed messages: a heap of when they are due.

Owns: the heap. Does not own: whether a message is still delayed (its control word says so when it fires), the clock.
Invariants: an entry is a hint: firing compares the very word that was seen, so an entry too many does nothing. A step
does not depend on how many messages are delayed: deaths are seen between steps.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import filterfalse, islice
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
        self._known: dict[int, set[SlotWord]] = {}  # of each queue, what is in the heap
        self._found: dict[int, Iterator[SlotWord]] = {}  # of each queue, what a full look found and is not yet known

    def step(self, watched: Watched) -> bool:
        """Take up what one queue's ring of delayed messages holds. True: there may be more."""
        for _ in range(BATCH):
            found = watched.core.delayed_pop()
            if found is None:
                return self._step_of_found(watched)
            slot, ctl, due_ns = found
            self._push(due_ns, watched, (slot, ctl))
        return True

    def adopt(self, watched: Watched, found: Iterable[SlotWord]) -> None:
        """Delayed messages that a full look found, beside those that are known already: the next steps take them up."""
        self._found[watched.queue.queue_id] = iter(found)

    def _step_of_found(self, watched: Watched) -> bool:
        queue_id = watched.queue.queue_id
        found = self._found.get(queue_id)
        if found is None:
            return False
        some = list(islice(found, BATCH))
        if not some:
            del self._found[queue_id]
        for at in filterfalse(self._known.get(queue_id, frozenset()).__contains__, some):
            self._push(watched.core.due_ns(*at), watched, at)
        return bool(some)

    def _push(self, due_ns: int, watched: Watched, at: SlotWord) -> None:
        queue_id = watched.queue.queue_id
        heapq.heappush(self._heap, (due_ns, queue_id, at))
        self._known.setdefault(queue_id, set()).add(at)

    def forget(self, watched: Watched) -> None:
        """That queue is gone; its entries go when they are due."""
        self._known.pop(watched.queue.queue_id, None)
        self._found.pop(watched.queue.queue_id, None)

    def next_due(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> list[tuple[Watched, SlotWord]]:
        """Take out what is due now, of queues that are still there."""
        found: list[tuple[Watched, SlotWord]] = []
        while self._heap and self._heap[0][0] <= now_ns and len(found) < BATCH:
            _, queue_id, at = heapq.heappop(self._heap)
            if queue_id in self._watched:
                self._known[queue_id].discard(at)
                found.append((self._watched[queue_id], at))
        return found

    def fire(self, watched: Watched, at: SlotWord, now_ns: int) -> int:
        """Make one ready; one whose time was moved goes back into the heap. Returns how many became ready."""
        result = watched.core.fire_delayed(*at, now_ns)
        if result == NOT_DUE:
            due_ns = max(watched.core.due_ns(*at), now_ns + 1)
            self._push(due_ns, watched, at)
        return int(result == FIRED)
