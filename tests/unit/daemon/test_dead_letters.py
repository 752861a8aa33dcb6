"""Which dead messages wait for a target: as many as are kept in mind, each once."""

from types import SimpleNamespace
from typing import Any

import pytest

from shmq.definitions import QueueDefinition
from shmq_daemon.dead_letters import STUCK_MAX, DeadLetters
from shmq_daemon.topology import Topology
from shmq_daemon.watched import Quarantine


@pytest.fixture
def watched() -> Any:
    queue = SimpleNamespace(definition=QueueDefinition())
    core = SimpleNamespace(dead_pop=lambda: None, peek=lambda *_at: pytest.fail("taken up again"))
    return SimpleNamespace(core=core, stuck={}, has_more_dead=False, retry_ns=0, name="jobs", queue=queue)


@pytest.fixture
def letters() -> DeadLetters:
    alarms: Any = SimpleNamespace()
    log: Any = SimpleNamespace()
    return DeadLetters(Topology(), {}, Quarantine(lambda _watched, _error: None), alarms, log, lambda: 0)


def test_no_more_are_adopted_than_are_kept_and_the_rest_is_looked_for_when_there_is_room(
    letters: DeadLetters, watched: Any
) -> None:
    letters.adopt(watched, [(slot, 1) for slot in range(STUCK_MAX + 1)])
    assert len(watched.stuck) == STUCK_MAX
    assert not letters.wants_scan(watched)

    for at in list(watched.stuck)[: STUCK_MAX // 2]:
        del watched.stuck[at]
    assert letters.wants_scan(watched)
    assert not letters.wants_scan(watched)


def test_what_is_adopted_again_keeps_what_it_has_done(letters: DeadLetters, watched: Any) -> None:
    letters.adopt(watched, [(3, 1)])
    watched.stuck[3, 1].add(7)
    letters.adopt(watched, [(3, 1), (4, 1)])

    assert watched.stuck == {(3, 1): {7}, (4, 1): set()}
    assert not watched.has_more_dead


def test_what_was_adopted_is_not_taken_up_again_when_its_ring_has_it_too(letters: DeadLetters, watched: Any) -> None:
    rings = [(3, 1)]
    watched.core.dead_pop = lambda: rings.pop() if rings else None
    letters.adopt(watched, [(3, 1)])
    watched.retry_ns = 10

    letters.step(watched, letters.take(watched), now_ns=0)

    assert not rings
    assert list(watched.stuck) == [(3, 1)]
