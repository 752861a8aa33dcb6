"""Looking at queues where somebody waits, though nobody has rung."""

import pytest

from shmq.core import _core
from shmq_daemon.looking import LOOK_NS, REST, Looking
from shmq_daemon.loop import Timers


class Waited:
    """As much of an OpenQueue as is looked at."""

    def __init__(self) -> None:
        self.waits = True

    def waits_for(self, side: int) -> bool:
        return self.waits and side == _core.CONSUMERS


class World:
    """Queues that are waited at, a clock, and what was looked at when."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.cost_ns = 0
        self.looked: list[int] = []
        self.queues = {1: Waited()}
        self.timers = Timers(lambda: self.now_ns)
        self.looking = Looking(self.queues, self.timers, _core.CONSUMERS, self._look)  # type: ignore[arg-type] # all that it asks for

    def _look(self, _queue: object) -> None:
        self.looked.append(self.now_ns)
        self.now_ns += self.cost_ns

    def run_until(self, end_ns: int) -> None:
        while (due_ns := self.timers.due_ns) is not None and due_ns <= end_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.timers.tick(self.now_ns)


@pytest.fixture
def world() -> World:
    return World()


def test_it_looks_four_times_a_second_while_somebody_waits(world: World) -> None:
    world.looking.begin()
    world.looking.begin()
    world.run_until(1_000_000_000)

    assert world.looked == [LOOK_NS, 2 * LOOK_NS, 3 * LOOK_NS, 4 * LOOK_NS]


def test_without_anybody_who_waits_it_sets_no_time_until_somebody_does(world: World) -> None:
    world.looking.begin()
    world.queues[1].waits = False
    world.run_until(1_000_000_000)

    assert (world.looked, world.timers.due_ns) == ([], None)
    world.queues[1].waits = True
    world.looking.begin()
    assert world.timers.due_ns is not None


def test_it_rests_from_looks_that_cost_much(world: World) -> None:
    world.cost_ns = 10_000_000
    world.looking.begin()
    world.run_until(LOOK_NS)

    assert world.timers.due_ns == LOOK_NS + world.cost_ns + REST * world.cost_ns
