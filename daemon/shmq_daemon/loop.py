"""The event loop of each daemon process: one epoll, and timers that a tick runs.

Owns: which callback a descriptor's readiness goes to, and the order of deadlines. Does not own: descriptors (who adds
one removes it before closing it), the clock (it comes in).
Invariants: an event goes to who had the descriptor when it happened: one that was closed and opened anew within a batch
has its number, so it is asked for again (epoll is level-triggered). Nothing here blocks but `poll`.
"""

import heapq
import itertools
import select
from collections.abc import Callable
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
HUNG_UP: Final = select.EPOLLHUP | select.EPOLLERR

Callback = Callable[[int], None]

EVENTS_MAX: Final = 256  # of one batch, so that timers and the master's questions are never starved
CANCELLED_MIN: Final = 64
WAIT_NS_MAX: Final = 3_600_000_000_000  # epoll counts milliseconds in 31 bits


class Timer:
    """A deadline that can be taken back. Cancelling leaves its entry to be dropped later."""

    __slots__ = ("_timers", "action", "due_ns")

    def __init__(self, due_ns: int, action: Callable[[int], None], timers: "Timers") -> None:
        self.due_ns = due_ns
        self.action: Callable[[int], None] | None = action
        self._timers = timers

    def cancel(self) -> None:
        if self.action is not None:
            self.action = None
            self._timers.note_cancelled()


class Timers:
    """A heap of deadlines."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.now_ns = clock
        self._heap: list[tuple[int, int, Timer]] = []
        self._tie = itertools.count()
        self._cancelled = 0

    def at(self, due_ns: int, action: Callable[[int], None]) -> Timer:
        timer = Timer(due_ns, action, self)
        heapq.heappush(self._heap, (due_ns, next(self._tie), timer))
        return timer

    def after(self, delay_ns: int, action: Callable[[int], None]) -> Timer:
        return self.at(self.now_ns() + delay_ns, action)

    def tick(self, now_ns: int) -> int | None:
        """Run what is due and return the next deadline, None when there is none."""
        while self._heap and (self._heap[0][0] <= now_ns or self._heap[0][2].action is None):
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is None:
                self._cancelled -= 1
            else:
                action(now_ns)
        return self.due_ns

    @property
    def due_ns(self) -> int | None:
        """The next deadline, None when there is none."""
        return self._heap[0][0] if self._heap else None

    def note_cancelled(self) -> None:
        """Drop cancelled entries when they are the larger part: few waits last until their deadline."""
        self._cancelled += 1
        if self._cancelled > CANCELLED_MIN and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)


class Loop:
    """Descriptors and their callbacks; a callback gets the epoll events."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._new: set[int] = set()  # added since this batch of events was collected

    def add(self, fd: int, callback: Callback, events: int = READ) -> None:
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback
        self._new.add(fd)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget a descriptor; one that is not there is fine."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def poll(self, wait_ns: int | None) -> None:
        """Wait for readiness, at most `wait_ns` (None: for ever), and call back."""
        timeout = -1.0 if wait_ns is None else min(max(wait_ns, 0), WAIT_NS_MAX) / 1e9
        batch = self._epoll.poll(timeout, EVENTS_MAX)
        self._new.clear()
        for fd, events in batch:
            callback = self._callbacks.get(fd)
            if callback is not None and fd not in self._new:
                callback(events)

    def close(self) -> None:
        self._callbacks.clear()
        self._epoll.close()
