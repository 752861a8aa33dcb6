"""Messages: views of large bodies, what an ack keeps and what it gives back, every way to settle."""

import threading
from collections.abc import Callable

import pytest

from shmq import core
from shmq.errors import AlreadySettled, BodyReleased, StaleDelivery, ViewsInUse
from support.segments import Segment

LARGE = b"large" * 100_000


def take(queue: core.Queue) -> core.Message:
    message = queue.take()
    assert message is not None
    return message


def is_current(message: core.Message) -> bool:
    return message.is_current


@pytest.fixture
def large(queue: core.Queue) -> core.Message:
    queue.publish(LARGE)
    return take(queue)


def states(queue: core.Queue) -> list[int]:
    return [state for state, number in queue.count_states().items() if number and state != core.FREE]


def test_a_view_is_read_only_and_copies_nothing(large: core.Message) -> None:
    with large.view() as view, memoryview(large) as other:
        assert (view.readonly, view.nbytes, view.format) == (True, len(LARGE), "B")
        assert view == other == LARGE


def test_memory_of_an_acked_message_lives_as_long_as_its_views(queue: core.Queue, large: core.Message) -> None:
    first, second = large.view(), large.view()

    large.ack()

    assert (large.state, states(queue)) == ("acked", [core.ACKED])
    first.release()
    assert bytes(second[:5]) == b"large"
    assert is_current(large)
    second.release()
    assert states(queue) == []
    assert not is_current(large)
    with pytest.raises(BodyReleased):
        _ = large.body
    with pytest.raises(BodyReleased):
        large.view()


def test_a_view_outlives_its_message(queue: core.Queue, large: core.Message) -> None:
    view = large.view()
    large.ack()
    del large

    assert bytes(view[-5:]) == b"large"
    view.release()
    assert queue.stats()["unacked"] == 0
    assert queue.check() == []


def test_an_acked_message_that_nobody_looked_at_can_still_be_read(queue: core.Queue, large: core.Message) -> None:
    large.ack()

    assert states(queue) == [core.ACKED]
    assert large.body == LARGE
    assert states(queue) == []
    assert large.view() == LARGE


def test_an_acked_message_that_nobody_looked_at_can_still_be_viewed_once(
    queue: core.Queue, large: core.Message
) -> None:
    large.ack()

    with large.view() as view:
        assert view == LARGE
    assert states(queue) == []


def test_an_acked_message_that_nobody_looks_at_is_given_back_with_its_end(queue: core.Queue) -> None:
    queue.publish(LARGE)
    take(queue).ack()

    assert states(queue) == []


def test_a_viewed_body_is_given_back_at_ack(queue: core.Queue, large: core.Message) -> None:
    large.view().release()

    large.ack()

    assert states(queue) == []
    with pytest.raises(BodyReleased):
        _ = large.body


def test_a_read_body_is_kept_as_bytes(queue: core.Queue, large: core.Message) -> None:
    body = large.body
    view = large.view()

    large.ack()

    assert states(queue) == []
    assert large.body is body
    assert view == LARGE


def test_a_copy_frees_an_acked_message_only_with_its_last_view(queue: core.Queue, large: core.Message) -> None:
    view = large.view()
    large.ack()
    assert large.body == LARGE
    assert states(queue) == [core.ACKED]

    view.release()

    assert states(queue) == []


@pytest.mark.parametrize("body", [b"small", LARGE])
@pytest.mark.parametrize("settle", [core.Message.nack, core.Message.reject])
def test_nothing_is_given_back_under_a_view(
    queue: core.Queue, body: bytes, settle: Callable[[core.Message], None]
) -> None:
    queue.publish(body)
    message = take(queue)
    with message.view(), pytest.raises(ViewsInUse):
        settle(message)

    settle(message)

    assert message.state in {"nacked", "rejected"}


def test_nack_puts_it_back_in_its_place(queue: core.Queue) -> None:
    queue.publish_many([b"1", b"2", b"3"])
    first, second = queue.take_many(2)

    second.nack()
    first.nack()

    assert [m.body for m in queue.take_many(9)] == [b"1", b"2", b"3"]
    assert (first.state, first.body) == ("nacked", b"1")


def test_reject_with_requeue_counts_a_failure_and_the_limit_buries_it(queue: core.Queue) -> None:
    queue.set_limits(delivery_limit=2)
    queue.publish(b"poison")

    counts = []
    while message := queue.take():
        counts.append((message.delivery_count, message.failure_count, message.redelivered))
        message.reject(requeue=True)

    assert counts == [(1, 0, False), (2, 1, True), (3, 2, True)]
    assert [ctl >> 20 & 0xFFFF for _, ctl in queue.scan(core.DEAD)] == [core.DELIVERY_LIMIT]


@pytest.mark.parametrize("settle", [lambda m: m.reject(), lambda m: m.nack(requeue=False), lambda m: m.nack(False)])
def test_refused_messages_are_dead(queue: core.Queue, settle: Callable[[core.Message], None]) -> None:
    queue.publish(b"refused", envelope=b"e")
    settle(take(queue))

    popped = queue.dead_pop()
    assert popped is not None
    snapshot = queue.peek(*popped)
    assert snapshot is not None
    assert (snapshot.state, snapshot.reason, snapshot.body) == (core.DEAD, core.REJECTED, b"refused")
    assert (snapshot.envelope, snapshot.delivery_count, snapshot.slot) == (b"e", 1, popped[0])
    assert queue.settle_dead(*popped)
    assert not queue.settle_dead(*popped)
    assert queue.peek(*popped) is None


def test_nack_with_delay_waits_until_it_is_fired(queue: core.Queue) -> None:
    queue.publish(b"later")
    before = core.monotonic_ns()
    take(queue).nack(delay=0.5)

    popped = queue.delayed_pop()
    assert popped is not None
    slot, ctl, due = popped
    assert before + 500_000_000 <= due < core.monotonic_ns() + 501_000_000
    assert queue.due_ns(slot, ctl) == due
    assert (queue.fire_delayed(slot, ctl, due - 10_000), queue.take()) == (0, None)
    assert queue.fire_delayed(slot, ctl, due) == 1
    assert queue.fire_delayed(slot, ctl, due) == -1
    assert take(queue).delivery_count == 2


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), 1e30])
def test_a_delay_that_is_no_time_is_refused(queue: core.Queue, delay: float) -> None:
    queue.publish(b"")
    message = take(queue)

    with pytest.raises(ValueError, match="delay"):
        message.nack(delay=delay)
    with pytest.raises(ValueError, match="requeue"):
        message.nack(requeue=False, delay=1.0)

    assert message.state == "unacked"


@pytest.mark.parametrize("again", [core.Message.ack, core.Message.nack, core.Message.reject, lambda m: m.touch(1)])
def test_a_message_is_settled_once(queue: core.Queue, again: Callable[[core.Message], None]) -> None:
    queue.publish(b"")
    message = take(queue)
    message.ack()

    with pytest.raises(AlreadySettled):
        again(message)


@pytest.mark.parametrize("settle", [core.Message.ack, core.Message.nack, core.Message.reject, lambda m: m.touch(1)])
def test_a_delivery_that_went_back_is_stale(
    small: Segment, queue: core.Queue, settle: Callable[[core.Message], None]
) -> None:
    queue.publish(LARGE)
    message, broker = take(queue), small.attach(1)
    assert is_current(message)
    broker.reap(32, count_failure=True)
    assert not is_current(message)

    for _ in range(2):
        with pytest.raises(StaleDelivery):
            settle(message)
    with pytest.raises(StaleDelivery):
        _ = message.body

    assert message.state == "stale"
    assert take(small.attach(33)).failure_count == 1


def test_a_body_that_went_back_unread_is_not_read_any_more(small: Segment, large: core.Message) -> None:
    small.attach(1).reap(32, count_failure=False)

    with pytest.raises(StaleDelivery):
        _ = large.body
    with pytest.raises(StaleDelivery):
        large.view()


def test_a_message_that_is_dropped_stays_unacked(queue: core.Queue) -> None:
    queue.publish(b"")
    take(queue)

    assert states(queue) == [core.UNACKED]


def test_touch_moves_the_ack_timeout(queue: core.Queue) -> None:
    queue.publish_many([b"late", b"touched"])
    _, touched = queue.take_many(2)
    touched.touch(3600)
    now = core.monotonic_ns()

    assert queue.overdue(10, now) == 0
    assert queue.overdue(10, now + 11) == 1

    assert touched.is_current
    assert take(queue).body == b"late"


def test_many_threads_may_read_and_ack_one_large_message(queue: core.Queue) -> None:
    for _ in range(20):
        queue.publish(LARGE)
        message = take(queue)
        start = threading.Barrier(4)
        bodies: list[bytes] = []

        def read(
            message: core.Message = message, start: threading.Barrier = start, bodies: list[bytes] = bodies
        ) -> None:
            start.wait()
            bodies.append(message.body)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait()
        message.ack()
        for thread in threads:
            thread.join()

        assert bodies == [LARGE] * 3
    assert states(queue) == []
