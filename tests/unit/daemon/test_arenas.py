"""shmq_daemon.arenas: what is idle for a second is given back in steps, what the traffic needs is not."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from shmq_daemon.arenas import IDLE_BYTES_MIN, QUIET_NS, STEP_APART_NS, Arenas
from shmq_daemon.watched import Quarantine, Watched

MIB = 1 << 20
SECOND = 10**9


class Queue:
    """A queue whose core gives back `steps`, one after the other."""

    def __init__(self, *steps: int) -> None:
        self.left = list(steps)
        core = SimpleNamespace(shrink=lambda: self.left.pop(0) if self.left else 0)
        queue = SimpleNamespace(queue_id=id(self))
        self.watched = cast("Watched", SimpleNamespace(queue=queue, core=core, name="q", quarantined=False))


def figures(used: int, committed: int, bytes_in: int = 0) -> dict[str, int]:
    return {"arena_used_bytes": used, "arena_committed_bytes": committed, "bytes_in": bytes_in}


@pytest.fixture
def world() -> dict[int, Any]:
    return {}


@pytest.fixture
def arenas(world: dict[int, Any]) -> Arenas:
    return Arenas(world, Quarantine(lambda _watched, _error: None), structlog.get_logger())


@pytest.fixture
def add(world: dict[int, Any]) -> Callable[..., Queue]:
    def added(*steps: int) -> Queue:
        queue = Queue(*steps)
        world[id(queue)] = queue.watched
        return queue

    return added


def test_what_is_idle_for_a_second_is_given_back_step_by_step(arenas: Arenas, add: Callable[..., Queue]) -> None:
    queue = add(16 * MIB, 8 * MIB)
    arenas.look(queue.watched, figures(0, 24 * MIB), 0)
    assert arenas.due_ns is None
    arenas.look(queue.watched, figures(0, 24 * MIB), QUIET_NS)
    for step in range(3):
        assert arenas.due_ns == QUIET_NS + step * STEP_APART_NS
        arenas.tick(arenas.due_ns)

    assert queue.left == []
    assert arenas.due_ns is None
    assert arenas.counts["bytes_given_back"] == 24 * MIB


@pytest.mark.parametrize("used", [13 * MIB, 24 * MIB])
def test_what_is_used_for_the_larger_part_stays(arenas: Arenas, add: Callable[..., Queue], used: int) -> None:
    queue = add(MIB)
    for now in range(0, 10 * SECOND, SECOND // 4):
        arenas.look(queue.watched, figures(used, 24 * MIB), now)

    assert arenas.due_ns is None


def test_a_little_is_not_worth_it(arenas: Arenas, add: Callable[..., Queue]) -> None:
    queue = add(MIB)
    for now in (0, 2 * SECOND):
        arenas.look(queue.watched, figures(0, IDLE_BYTES_MIN - 1), now)

    assert arenas.due_ns is None


def test_traffic_that_would_soon_want_it_back_keeps_it(arenas: Arenas, add: Callable[..., Queue]) -> None:
    queue = add(MIB)
    for step in range(40):
        arenas.look(queue.watched, figures(MIB, 24 * MIB, bytes_in=step * 16 * MIB), step * SECOND // 4)

    assert arenas.due_ns is None


def test_a_trickle_does_not_keep_it(arenas: Arenas, add: Callable[..., Queue]) -> None:
    queue = add(MIB)
    for step in range(5):
        arenas.look(queue.watched, figures(0, 24 * MIB, bytes_in=step * 1000), step * SECOND // 4)

    assert arenas.due_ns == SECOND


def test_queues_take_turns_and_one_that_is_gone_is_passed_over(
    arenas: Arenas, world: dict[int, Any], add: Callable[..., Queue]
) -> None:
    gone, first, second = add(MIB), add(MIB, MIB), add(MIB)
    for now in (0, QUIET_NS):
        for queue in (gone, first, second):
            arenas.look(queue.watched, figures(0, 24 * MIB), now)
    del world[id(gone)]
    arenas.forget(gone.watched)
    for _ in range(3):
        assert arenas.due_ns is not None
        arenas.tick(arenas.due_ns)

    assert (gone.left, first.left, second.left) == ([MIB], [MIB], [])
