"""Looks at queues where the broker waits, though nobody has rung: wake-ups are hints.

Owns: when. Does not own: bells (opened.py), what is done in a queue (publishing.py, consuming.py).
Invariants: while we wait anywhere there is a next look; looking costs at most one part in REST of the time, however
many queues there are; without anybody who waits there is no timer.
"""

from collections.abc import Callable, Mapping
from typing import Final

from shmq_daemon.loop import Timers
from shmq_daemon.opened import OpenQueue

LOOK_NS: Final = 250_000_000  # between two looks, as the clients'
REST: Final = 200  # times what a look has cost


class Looking:
    """At one side of all queues. `look`: has a queue tried once more, where that is worth it."""

    def __init__(
        self, queues: Mapping[int, OpenQueue], timers: Timers, side: int, look: Callable[[OpenQueue], object]
    ) -> None:
        self._queues = queues
        self._timers = timers
        self._side = side
        self._look = look
        self._begun = False

    def begin(self) -> None:
        """We wait somewhere."""
        if not self._begun:
            self._begun = True
            self._timers.after(LOOK_NS, self._look_around)

    def _look_around(self, now_ns: int) -> None:
        waiting = [opened for opened in self._queues.values() if opened.waits_for(self._side)]
        for opened in waiting:
            self._look(opened)
        self._begun = bool(waiting)
        if waiting:
            spent_ns = self._timers.now_ns() - now_ns
            self._timers.after(max(LOOK_NS, spent_ns * REST), self._look_around)
