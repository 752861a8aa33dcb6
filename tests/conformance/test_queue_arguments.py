"""Declaring queues: what counts as equal, who may use an exclusive one, when one goes by itself, names, types."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shmq
from support.deadline import wait_until
from support.messages import WAIT, QueueMaker, unique, wait_for

Connect = Callable[[], shmq.Connection]


def is_there(conn: shmq.Connection, queue: str) -> bool:
    try:
        conn.declare_queue(queue, passive=True)
    except shmq.NotFound:
        return False
    except shmq.ResourceLocked:
        return True
    return True


# -- equal ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("QUEUE-5")
@pytest.mark.parametrize(
    ("argument", "there", "asked"),
    [
        ("x-max-priority", 3, 4),
        ("x-max-length", 10, 11),
        ("x-max-length-bytes", 10, None),
        ("x-overflow", "reject-publish", "drop-head"),
        ("x-overflow-victim", "highest", None),
        ("x-message-ttl", 60_000, 50_000),
        ("x-expires", 60_000, None),
        ("x-dead-letter-exchange", "a", "b"),
        ("x-delivery-limit", 5, -1),
        ("x-delayed-retry-min", 60_000, None),
        ("x-consumer-timeout", 60_000, 50_000),
        ("x-single-active-consumer", True, None),
        ("x-priority-ageing", 60_000, None),
        ("x-queue-type", "quorum", None),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_difference_is_told_with_both_values(
    conn: shmq.Connection, new_queue: QueueMaker, argument: str, there: object, asked: object, *, swapped: bool
) -> None:
    if swapped:
        there, asked = asked, there
    queue = new_queue(arguments={} if there is None else {argument: there})

    with pytest.raises(shmq.PreconditionFailed) as failure:
        conn.declare_queue(queue, arguments={} if asked is None else {argument: asked})
    error = failure.value
    assert (error.code, error.argument, error.declared, error.asked) == (406, argument, there, asked)
    assert argument in str(error)
    assert is_there(conn, queue)


@pytest.mark.rule("QUEUE-5")
@pytest.mark.parametrize("flag", ["durable", "auto_delete", "exclusive"])
def test_a_different_flag_is_told(conn: shmq.Connection, new_queue: QueueMaker, flag: Any) -> None:
    queue = new_queue(**{flag: True})

    with pytest.raises(shmq.PreconditionFailed) as failure:
        conn.declare_queue(queue, **{flag: False})  # type: ignore[arg-type] # a flag
    assert (failure.value.argument, failure.value.declared, failure.value.asked) == (flag, True, False)


@pytest.mark.rule("QUEUE-1")
def test_keywords_and_arguments_say_the_same(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(message_ttl=1.5, expires=60, delivery_limit=3, delayed_retry_type="all", delayed_retry_min=2)
    arguments = {
        "x-message-ttl": 1500,
        "x-expires": 60_000,
        "x-delivery-limit": 3,
        "x-delayed-retry-type": "all",
        "x-delayed-retry-min": 2000,
    }

    assert conn.declare_queue(queue, arguments=arguments).name == queue


@pytest.mark.rule("QUEUE-3")
@pytest.mark.parametrize(
    "arguments",
    [{"x-queue-mode": "lazy"}, {"x-queue-version": 2}, {"x-dead-letter-strategy": "at-least-once"}, {"x-team": "a"}],
)
def test_what_has_no_effect_is_accepted_and_not_compared(
    conn: shmq.Connection, new_queue: QueueMaker, arguments: dict[str, object]
) -> None:
    queue = new_queue(arguments=arguments)

    assert conn.declare_queue(queue).name == queue
    assert conn.queue_info(queue).definition.other == arguments


@pytest.mark.rule("QUEUE-4", "ERROR-3")
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("x-max-length", -1),
        ("x-max-length", "10"),
        ("x-max-length-bytes", -1),
        ("x-overflow", "drop-tail"),
        ("x-overflow-victim", "middle"),
        ("x-message-ttl", -1),
        ("x-expires", 0),
        ("x-max-priority", 0),
        ("x-max-priority", 256),
        ("x-delivery-limit", -2),
        ("x-delayed-retry-type", "some"),
        ("x-delayed-retry-type", "all"),
        ("x-delayed-retry-max", 0),
        ("x-consumer-timeout", 0),
        ("x-single-active-consumer", 1),
        ("x-priority-ageing", 0),
        ("x-dead-letter-exchange", 5),
        ("x-dead-letter-routing-key", "k"),
        ("x-queue-type", "ring"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(conn: shmq.Connection, argument: str, value: object) -> None:
    with pytest.raises(shmq.InvalidArgument, match="x-"):
        conn.declare_queue(unique("wrong"), arguments={argument: value})


@pytest.mark.rule("QUEUE-4")
def test_a_queue_that_is_full_at_its_length_can_drop_no_head(conn: shmq.Connection) -> None:
    with pytest.raises(shmq.InvalidArgument, match="x-capacity-messages"):
        conn.declare_queue(unique("wrong"), max_length=10, capacity_messages=10)


# -- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("QUEUE-2")
def test_a_quorum_queue_is_durable(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(durable=False, queue_type="quorum")

    assert conn.queue_info(queue).definition.durable


@pytest.mark.rule("QUEUE-2")
def test_classic_needs_no_saying(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(queue_type="classic")

    assert conn.declare_queue(queue).name == queue


@pytest.mark.rule("QUEUE-2")
def test_streams_are_refused(conn: shmq.Connection) -> None:
    with pytest.raises(shmq.NotSupported, match="stream"):
        conn.declare_queue(unique("stream"), queue_type="stream")


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("QUEUE-8")
def test_the_broker_gives_names_that_nobody_guesses(conn: shmq.Connection) -> None:
    names = [conn.declare_queue(exclusive=True).name for _ in range(3)]

    assert all(re.fullmatch(r"amq\.gen-[\w-]{22}", name) for name in names)
    assert len(set(names)) == 3
    assert conn.declare_queue(names[0], exclusive=True).name == names[0]
    for name in names:
        conn.delete_queue(name)


# -- exclusive ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("QUEUE-9")
def test_an_exclusive_queue_refuses_others_and_goes_with_its_connection(
    conn: shmq.Connection, connect: Connect
) -> None:
    owner, queue = connect(), unique("mine")
    owner.declare_queue(queue, exclusive=True)
    for use in (
        lambda: conn.declare_queue(queue, exclusive=True),
        lambda: conn.declare_queue(queue, passive=True),
        lambda: conn.get(queue),
        lambda: conn.consume(queue),
        lambda: conn.purge_queue(queue),
        lambda: conn.bind_queue(queue, "amq.direct", "key"),
        lambda: conn.delete_queue(queue),
    ):
        with pytest.raises(shmq.ResourceLocked):
            use()

    owner.close()
    assert not is_there(conn, queue)


# -- auto-delete ----------------------------------------------------------------------------------------------------


@pytest.fixture
def by_broker(broker: str, mode: str) -> Iterator[shmq.Connection]:
    """Give a connection that may go through the broker, where direct ones can't."""
    with shmq.connect(broker, mode="socket" if mode == "socket" else "auto") as connection:
        yield connection


@pytest.mark.rule("QUEUE-10")
def test_a_queue_deletes_itself_when_its_last_consumer_leaves(
    conn: shmq.Connection, by_broker: shmq.Connection, new_queue: QueueMaker
) -> None:
    queue = new_queue(auto_delete=True)
    first, second = by_broker.consume(queue), by_broker.consume(queue)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    first.cancel()
    assert is_there(conn, queue)

    second.cancel()
    wait_until(lambda: not is_there(conn, queue), "it is gone", WAIT)


@pytest.mark.rule("QUEUE-10")
def test_a_queue_that_never_had_a_consumer_stays(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(auto_delete=True)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 0.3, "a while")

    assert conn.queue_info(queue).messages == 1


@pytest.mark.rule("QUEUE-10")
def test_a_queue_deletes_itself_when_its_consumers_connection_closes(
    conn: shmq.Connection, broker: str, new_queue: QueueMaker
) -> None:
    queue = new_queue(auto_delete=True)
    with shmq.connect(broker) as other:
        consumer = other.consume(queue)
        conn.publish(b"x", routing_key=queue, confirm="memory")
        assert next(consumer).body == b"x"

    wait_until(lambda: not is_there(conn, queue), "it is gone", WAIT)


def test_consumers_of_both_kinds_count(
    conn: shmq.Connection, by_broker: shmq.Connection, new_queue: QueueMaker
) -> None:
    """Those who take from the segment themselves too."""
    queue = new_queue(auto_delete=True)
    first, second = conn.consume(queue), by_broker.consume(queue)
    wait_until(lambda: conn.queue_info(queue).consumers == 2, "both are counted", WAIT)
    second.cancel()
    assert is_there(conn, queue)

    conn.cancel(first.consumer_tag)
    wait_until(lambda: not is_there(conn, queue), "it is gone", WAIT)


def test_a_consumer_that_is_served_otherwise_for_a_while_was_never_gone(
    by_broker: shmq.Connection, broker: str, new_queue: QueueMaker
) -> None:
    """While another one has a priority only the broker hands out; then it leaves."""
    queue = new_queue(auto_delete=True)
    consumer = by_broker.consume(queue)
    with shmq.connect(broker) as other:
        urgent = other.consume(queue, priority=5, prefetch=1)
        other.publish_many([b"1", b"2", b"3"], routing_key=queue, confirm="memory")
        message = next(urgent)
        assert sorted([message.body, next(consumer).body, next(consumer).body]) == [b"1", b"2", b"3"]
        message.ack()
        urgent.cancel()
        for _ in range(3):
            other.publish(b"4", routing_key=queue, confirm="memory")
            assert next(consumer).body == b"4"

    assert is_there(by_broker, queue)
    by_broker.cancel(consumer.consumer_tag)
    wait_until(lambda: not is_there(by_broker, queue), "it is gone", WAIT)


def test_publishing_into_one_that_deletes_itself_needs_no_broker(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(auto_delete=True)
    conn.publish(b"x", routing_key=queue, confirm="memory")

    message = wait_for(conn, queue)
    assert message.body == b"x"
    message.ack()


@pytest.mark.rule("QUEUE-11")
def test_a_queue_that_somebody_waits_at_does_not_expire(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(expires=0.3)

    assert conn.get(queue, timeout=1) is None
    assert conn.get_batch(queue, max_messages=5, max_wait=1) == []
    assert conn.queue_info(queue).consumers == 0
