"""The supervisor's methods: reap, heal, what is due, scans and copies without taking."""

import os

import pytest

from shmq import core
from shmq.errors import StaleDelivery
from support.segments import SMALL, Segment, segment

LARGE = b"x" * 100_000


def test_reap_gives_back_what_the_dead_had(small: Segment, queue: core.Queue) -> None:
    supervisor = small.attach(16)
    queue.publish_many([LARGE, b"1", b"2"])
    viewed = queue.take()
    assert viewed is not None
    with viewed.view():
        viewed.ack()
        held = queue.take()
        loan = queue.loan(5)

        assert supervisor.reap(33, count_failure=True) == (0, 0, 0)
        assert supervisor.reap(32, count_failure=True) == (1, 0, 2)
        assert supervisor.reap(32, count_failure=True) == (0, 0, 0)

    assert held is not None
    assert isinstance(loan, core.Loan)
    assert [(m.body, m.failure_count) for m in supervisor.take_many(9)] == [(b"1", 1), (b"2", 0)]


def test_a_lost_session_keeps_what_only_its_process_can_finish(small: Segment, queue: core.Queue) -> None:
    queue.publish(b"")
    held, loan = queue.take(), queue.loan(5)
    assert held is not None
    assert isinstance(loan, core.Loan)

    assert small.attach(16).reap(32, count_failure=True, lost_session=True) == (1, 0, 0)

    assert loan.commit() == core.OK


def test_reap_except_spares_the_living(small: Segment) -> None:
    live = bytearray(8192)
    queues = [small.attach(owner) for owner in (32, 33, 40)]
    queues[0].publish_many([b"", b"", b""])
    held = [queue.take() for queue in queues]
    live[32 // 8] |= 1 << 32 % 8
    live[40 // 8] |= 1 << 40 % 8

    assert small.attach(16).reap_except(bytes(live), count_failure=True) == (1, 0, 0)

    assert [m.is_current for m in held if m] == [True, False, True]


def test_the_delivery_limit_holds_for_deaths(small: Segment, queue: core.Queue) -> None:
    supervisor = small.attach(16)
    supervisor.set_limits(delivery_limit=0)
    queue.publish(b"poison")
    held = queue.take()
    assert held is not None

    assert supervisor.reap(32, count_failure=True) == (0, 1, 0)

    popped = supervisor.dead_pop()
    assert popped is not None
    assert supervisor.dead_pop() is None
    snapshot = supervisor.peek(*popped)
    assert snapshot is not None
    assert (snapshot.reason, snapshot.failure_count) == (core.DELIVERY_LIMIT, 1)


def test_a_sound_queue_needs_no_healing(queue: core.Queue) -> None:
    queue.publish_many([b""] * 64)

    assert queue.heal(full=True) == {"bits": 0, "references": 0, "rescan": 0}
    assert queue.heal() == {"bits": 0, "references": 0, "rescan": 0}
    assert queue.check() == []


def test_memory_of_large_bodies_is_given_back(queue: core.Queue) -> None:
    queue.publish_many([LARGE] * 20)
    for message in queue.take_many(20):
        message.ack()
    del message
    committed = queue.stats()["arena_committed_bytes"]

    given = sum(iter(queue.shrink, 0))

    assert 0 < given <= committed
    assert queue.stats()["arena_committed_bytes"] == committed - given
    assert queue.publish(LARGE) == core.OK


def test_memory_given_back_is_not_touched_for_a_stale_message(small: Segment, queue: core.Queue) -> None:
    """On a full file system that would be a SIGBUS, otherwise pages that nobody accounts for."""
    supervisor = small.attach(16)
    queue.publish_many([LARGE] * 20)
    overdue = queue.take()
    assert overdue is not None
    supervisor.reap(32, count_failure=False, lost_session=True)
    for message in supervisor.take_many(20):
        message.ack()
    del message
    assert sum(iter(supervisor.shrink, 0))
    blocks = os.fstat(small.fd).st_blocks

    with pytest.raises(StaleDelivery):
        _ = overdue.body
    with pytest.raises(StaleDelivery):
        overdue.view()

    assert os.fstat(small.fd).st_blocks == blocks


def test_what_is_over_its_time_is_dead_anywhere_in_the_queue(queue: core.Queue) -> None:
    queue.publish(b"stays")
    queue.publish(b"goes", ttl_ns=0)
    now = core.monotonic_ns()

    assert queue.expire_due(now - 10**9) == 0
    assert queue.expire_due(now + 10**9) == 1

    assert [queue.peek(*at).reason for at in queue.scan(core.DEAD)] == [core.EXPIRED]  # type: ignore[union-attr] # each is there
    assert [m.body for m in queue.take_many(9)] == [b"stays"]


def test_an_expired_head_is_not_delivered(queue: core.Queue) -> None:
    queue.publish(b"goes", ttl_ns=0)
    queue.publish(b"stays")

    assert [m.body for m in queue.take_many(9)] == [b"stays"]
    assert queue.stats()["expired"] == 1


def test_a_delayed_publish_is_fired_when_due(queue: core.Queue) -> None:
    queue.publish(b"later", delay_ns=10**9)

    assert queue.take() is None
    popped = queue.delayed_pop()
    assert popped is not None
    slot, ctl, due = popped
    assert due > core.monotonic_ns()
    assert queue.fire_delayed(slot, ctl, due + 1) == 1
    assert [m.body for m in queue.take_many(9)] == [b"later"]
    assert queue.delayed_pop() is None


def test_purge_takes_what_was_there(queue: core.Queue) -> None:
    queue.publish_many([b"", LARGE])
    before = core.monotonic_ns()
    queue.publish(b"later")

    assert (queue.purge(before), queue.purge(), queue.purge(None)) == (2, 1, 0)
    assert queue.stats()["purged"] == 3


def test_a_peek_is_a_copy_of_that_very_message(queue: core.Queue) -> None:
    queue.publish(LARGE, envelope=b"e")
    (slot, ctl) = queue.scan(core.READY)[0]
    snapshot = queue.peek(slot, ctl)
    assert snapshot is not None

    message = queue.take()

    assert message is not None
    assert (snapshot.body, snapshot.envelope, snapshot.sequence) == (LARGE, b"e", message.sequence)
    assert (snapshot.state, snapshot.reason, snapshot.level, snapshot.ctl) == (core.READY, 0, 0, ctl)
    assert queue.peek(slot, ctl) is None
    assert queue.peek(63, 0) is None
    assert queue.fire_delayed(63, 0, 0) == -1
    assert not queue.settle_dead(63, 0)


def test_gauges_follow_a_message(queue: core.Queue) -> None:
    def gauges() -> tuple[int, ...]:
        stats = queue.stats()
        return tuple(stats[name] for name in ("ready", "unacked", "delayed", "dead_pending", "acked"))

    queue.publish_many([b"", b"", b""])
    assert gauges() == (3, 0, 0, 0, 0)
    first, second, third = queue.take_many(3)
    assert gauges() == (0, 3, 0, 0, 0)
    first.ack()
    second.nack(delay=60)
    third.reject()
    assert gauges() == (0, 0, 1, 1, 1)


def test_statistics_know_what_the_queue_can_hold() -> None:
    with segment() as made:
        stats = made.attach(32).stats()

        assert (stats["capacity"], stats["capacity_bytes"], stats["published"]) == (SMALL[1], SMALL[4], 0)
        assert set(made.attach(33).count_states()) == set(range(7))
