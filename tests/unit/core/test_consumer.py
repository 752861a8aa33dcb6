"""Consumer: takes in turn, bounds what is unacked, asks `on_empty`."""

from collections.abc import Callable

import pytest

from shmq import core
from shmq.errors import StaleDelivery
from support.segments import Segment, segment


def stop() -> bool:
    return False


def consume(queues: list[core.Queue], prefetch: int = 0, on_empty: Callable[[], bool] = stop) -> core.Consumer:
    return core.Consumer(queues, prefetch, no_ack=False, on_empty=on_empty)


def test_it_ends_when_on_empty_says_so(queue: core.Queue) -> None:
    queue.publish_many([b"1", b"2"])

    assert [m.body for m in consume([queue])] == [b"1", b"2"]


def test_it_looks_again_when_on_empty_says_so(queue: core.Queue) -> None:
    answers = [True, True, False]

    def on_empty() -> bool:
        queue.publish(b"%d" % len(answers))
        return answers.pop(0)

    assert [m.body for m in consume([queue], on_empty=on_empty)] == [b"3", b"2"]


def test_stale_bells_are_told_before_each_take(queue: core.Queue) -> None:
    told = []

    def on_empty() -> bool:
        told.append(queue.bells_stale)
        return queue.bells_stale

    queue.publish_many([b"1", b"2", b"3"])
    consumer = consume([queue], on_empty=on_empty)
    queue.set_epoch(2)
    bodies = [next(consumer).body, next(consumer).body]
    queue.set_bells((-1, -1, -1), 2)

    assert bodies + [message.body for message in consumer] == [b"1", b"2", b"3"]
    assert told == [True, True, False]


def test_an_error_of_on_empty_is_the_callers(queue: core.Queue) -> None:
    def on_empty() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        next(consume([queue], on_empty=on_empty))


def test_queues_take_turns() -> None:
    with segment() as one, segment() as two:
        queues = [one.attach(32), two.attach(32)]
        queues[0].publish_many([b"a", b"b", b"c"])
        queues[1].publish(b"1")

        assert [m.body for m in consume(queues)] == [b"a", b"1", b"b", b"c"]


def test_prefetch_bounds_what_is_unacked(queue: core.Queue) -> None:
    queue.publish_many([b"1", b"2", b"3"])
    consumer = consume([queue], prefetch=2)

    held = list(consumer)

    assert ([m.body for m in held], consumer.unacked) == ([b"1", b"2"], 2)
    held[0].ack()
    assert consumer.unacked == 1
    assert next(consumer).body == b"3"
    consumer.prefetch = 0
    held[1].nack()
    assert (consumer.unacked, consumer.prefetch) == (1, 0)


@pytest.mark.parametrize("settle", [core.Message.ack, core.Message.nack, core.Message.reject])
def test_every_settling_makes_room(queue: core.Queue, settle: Callable[[core.Message], None]) -> None:
    queue.publish(b"")
    consumer = consume([queue], prefetch=1)

    settle(next(consumer))

    assert consumer.unacked == 0


def test_a_stale_delivery_makes_room_when_it_is_found_out(small: Segment, queue: core.Queue) -> None:
    queue.publish(b"")
    consumer = consume([queue], prefetch=1)
    message = next(consumer)
    small.attach(1).reap(32, count_failure=False)

    with pytest.raises(StaleDelivery):
        message.ack()

    assert consumer.unacked == 0


def test_a_message_that_is_dropped_still_counts(queue: core.Queue) -> None:
    queue.publish_many([b"1", b"2"])
    consumer = consume([queue], prefetch=1)
    next(consumer)

    assert (list(consumer), consumer.unacked) == ([], 1)


def test_no_ack_knows_no_prefetch(queue: core.Queue) -> None:
    queue.publish_many([b"1", b"2", b"3"])
    consumer = core.Consumer([queue], 1, no_ack=True, on_empty=stop)

    assert [m.state for m in consumer] == ["auto"] * 3
    assert consumer.unacked == 0


def test_queues_can_be_replaced_on_the_way(queue: core.Queue) -> None:
    with segment() as other:
        replacement = other.attach(32)
        replacement.publish(b"new")
        consumer = consume([queue])
        queue.publish(b"old")
        messages = [next(consumer)]

        consumer.queues = (replacement,)

        messages += consumer
        assert [m.body for m in messages] == [b"old", b"new"]
        assert consumer.queues == (replacement,)


def test_only_queues_and_sensible_numbers_are_taken(queue: core.Queue) -> None:
    consumer = consume([queue])

    with pytest.raises(TypeError):
        consumer.queues = ("queue",)  # type: ignore[assignment] # what is refused
    with pytest.raises(ValueError, match="prefetch"):
        consumer.prefetch = -1
    with pytest.raises(TypeError):
        core.Consumer([None], 0, no_ack=False, on_empty=stop)  # type: ignore[list-item] # what is refused
