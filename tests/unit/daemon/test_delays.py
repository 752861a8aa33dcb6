"""shmq_daemon.delays: every delayed message is known once, and no step takes long, however many there are."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from shmq.core._core import DELAYED
from shmq_daemon.delays import BATCH, Delays
from support.segments import segment

DELAY_NS = 10**12
LATER_NS = 1 << 62


@pytest.fixture
def watched() -> Iterator[Any]:
    with segment(1, 4 * BATCH, 64, 4, 0) as made:
        yield SimpleNamespace(core=made.attach(16), queue=SimpleNamespace(queue_id=1), client=made.attach(32))


def known(delays: Delays) -> list[Any]:
    return [at for _, _, at in delays._heap]


def test_what_a_full_look_finds_is_taken_up_in_bounded_steps(watched: Any) -> None:
    watched.client.publish_many([b"x"] * 3 * BATCH, delay_ns=DELAY_NS)
    delays = Delays({1: watched})
    found = watched.core.scan(DELAYED)
    while watched.core.delayed_pop() is not None:
        pass  # by a supervisor that died
    delays.adopt(watched, found)
    grown = []
    while delays.step(watched):
        grown.append(len(known(delays)))

    assert grown[:3] == [BATCH, 2 * BATCH, 3 * BATCH]
    assert sorted(known(delays)) == sorted(found)


def test_what_the_ring_had_is_not_taken_up_again(watched: Any) -> None:
    watched.client.publish_many([b"x"] * 5, delay_ns=DELAY_NS)
    delays = Delays({1: watched})
    delays.step(watched)
    for _ in range(2):
        delays.adopt(watched, watched.core.scan(DELAYED))
        while delays.step(watched):
            pass

    assert len(known(delays)) == 5


def test_one_that_was_taken_out_and_is_not_due_is_known_again(watched: Any) -> None:
    watched.client.publish(b"x", delay_ns=DELAY_NS)
    delays = Delays({1: watched})
    delays.step(watched)
    ((_, at),) = delays.due(LATER_NS)
    assert delays.fire(watched, at, 1) == 0
    delays.adopt(watched, [at])
    while delays.step(watched):
        pass

    assert known(delays) == [at]


def test_entries_of_a_queue_that_is_gone_fire_nothing(watched: Any) -> None:
    watched.client.publish(b"x", delay_ns=DELAY_NS)
    queues = {1: watched}
    delays = Delays(queues)
    delays.step(watched)
    del queues[1]
    delays.forget(watched)

    assert delays.due(LATER_NS) == []
    assert delays.next_due() is None
