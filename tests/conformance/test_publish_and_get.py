"""Publishing and getting: what goes in comes out, in order, by priority, in each mode."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import wait_for

CLOCKS_APART = timedelta(milliseconds=100)  # the stamp is monotonic, read against the wall clock


def bodies(messages: list[shmq.Message]) -> list[bytes]:
    for message in messages:
        message.ack()
    return [message.body for message in messages]


@pytest.mark.rule("PUBLISH-4")
def test_a_message_comes_out_as_it_went_in(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"body", routing_key=queue)

    message = conn.get(queue, timeout=1)

    assert message is not None
    assert (message.body, message.body_bytes, bytes(message.view())) == (b"body", 4, b"body")
    assert (message.exchange, message.routing_key, message.headers) == ("", queue, {})
    assert (message.priority, message.persistent, message.redelivered, message.delivery_count) == (0, False, False, 1)
    message.ack()


@pytest.mark.rule("PUBLISH-4")
def test_headers_and_properties_travel(conn: shmq.Connection, queue: str) -> None:
    stamp = datetime(2024, 2, 29, tzinfo=UTC)
    conn.publish(
        b"",
        routing_key=queue,
        headers={"a": 1, "b": ["x", None, True]},
        priority=4,
        persistent=True,
        expiration=60_000,
        content_type="text/plain",
        message_id="m1",
        correlation_id="c1",
        reply_to="r",
        timestamp=stamp,
        type="t",
        app_id="app",
    )

    message = conn.get(queue, timeout=1)

    assert message is not None
    message.ack()
    assert message.headers == {"a": 1, "b": ["x", None, True]}
    assert (message.priority, message.persistent, message.expiration) == (4, True, 60_000)
    assert (message.content_type, message.message_id, message.correlation_id) == ("text/plain", "m1", "c1")
    assert (message.reply_to, message.timestamp, message.type, message.app_id) == ("r", stamp, "t", "app")


@pytest.mark.rule("PUBLISH-4")
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 5_000, 70_000, 1_048_577, 20_000_000])
def test_bodies_of_any_size_are_intact(conn: shmq.Connection, queue: str, size: int) -> None:
    body = bytes(range(251)) * (size // 251 + 1)
    body = body[:size]
    conn.publish(body, routing_key=queue)

    message = conn.get(queue, timeout=5)

    assert message is not None
    assert message.body == body
    message.ack()


@pytest.mark.rule("PUBLISH-4")
@pytest.mark.parametrize("body", [bytearray(b"xyz"), memoryview(b"xyz"), memoryview(b"-xyz-")[1:4]])
def test_any_buffer_is_a_body(conn: shmq.Connection, queue: str, body: object) -> None:
    conn.publish(body, routing_key=queue)

    assert bodies(list(conn.get_batch(queue, max_messages=1, max_wait=1))) == [b"xyz"]


@pytest.mark.rule("PUBLISH-4")
def test_text_is_no_body(conn: shmq.Connection, queue: str) -> None:
    with pytest.raises(TypeError):
        conn.publish("text", routing_key=queue)
    with pytest.raises(TypeError):
        conn.publish("text", routing_key="no.such.queue")
    with pytest.raises(TypeError):
        conn.publish_many([b"x", "text"], routing_key="no.such.queue")


@pytest.mark.rule("PRIORITY-2")
def test_messages_of_one_level_come_in_order(conn: shmq.Connection, queue: str) -> None:
    for number in range(100):
        conn.publish(str(number).encode(), routing_key=queue)

    assert bodies([m for _ in range(100) if (m := conn.get(queue, timeout=1))]) == [b"%d" % n for n in range(100)]


@pytest.mark.rule("PRIORITY-2")
def test_higher_levels_come_first(conn: shmq.Connection, queue: str) -> None:
    for priority in (0, 9, 4, 255, 9, 0):
        conn.publish(str(priority).encode(), routing_key=queue, priority=priority)
    conn.publish(b"last", routing_key=queue, confirm="memory")

    assert bodies(list(conn.get_batch(queue, max_messages=7, max_wait=1))) == [
        b"9",
        b"255",
        b"9",
        b"4",
        b"0",
        b"0",
        b"last",
    ]


@pytest.mark.rule("PUBLISH-5")
def test_a_batch_is_published_in_order(conn: shmq.Connection, queue: str) -> None:
    batch = [str(number).encode() for number in range(1000)]
    conn.publish_many(batch, routing_key=queue, confirm="memory")

    got: list[bytes] = []
    while some := bodies(list(conn.get_batch(queue, max_messages=300, max_wait=0.1))):
        got += some
    assert got == batch


@pytest.mark.rule("PUBLISH-6")
def test_a_loan_is_published_at_the_end_of_its_block(conn: shmq.Connection, queue: str) -> None:
    with conn.loan(1000, routing_key=queue) as body:
        body[:] = b"z" * 1000

    assert bodies(list(conn.get_batch(queue, max_messages=1, max_wait=1))) == [b"z" * 1000]


@pytest.mark.rule("PUBLISH-6")
def test_a_loan_that_fails_publishes_nothing(conn: shmq.Connection, queue: str) -> None:
    with pytest.raises(ZeroDivisionError), conn.loan(1000, routing_key=queue):
        raise ZeroDivisionError

    assert conn.get(queue) is None


@pytest.mark.rule("PUBLISH-6")
@pytest.mark.parametrize("queues", [0, 1, 2])
def test_a_loan_is_entered_once(conn: shmq.Connection, new_queue: Callable[..., str], queues: int) -> None:
    for _ in range(queues):
        conn.bind_queue(new_queue(), "amq.fanout")
    loan = conn.loan(3, exchange="amq.fanout")
    with loan as body:
        body[:] = b"abc"
        with pytest.raises(shmq.AlreadySettled, match="entered before"):
            loan.__enter__()

    with pytest.raises(shmq.AlreadySettled):
        loan.__enter__()


@pytest.mark.rule("PUBLISH-9")
def test_a_user_id_is_the_uid_of_who_publishes(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"mine", routing_key=queue, user_id=str(os.getuid()), confirm="memory")

    message = wait_for(conn, queue)
    assert message.user_id == str(os.getuid())


@pytest.mark.rule("PUBLISH-9")
@pytest.mark.parametrize("user_id", [str(os.getuid() + 1), "root", "", f"0{os.getuid()}"])
def test_a_forged_user_id_is_refused_and_nothing_is_published(conn: shmq.Connection, queue: str, user_id: str) -> None:
    calls: list[tuple[Callable[..., object], Any]] = [(conn.publish, b""), (conn.publish_many, [b""]), (conn.loan, 1)]
    for publish, what in calls:
        with pytest.raises(shmq.PreconditionFailed) as caught:
            publish(what, routing_key=queue, user_id=user_id)
        assert (caught.value.code, caught.value.argument, caught.value.asked) == (406, "user_id", user_id)
        assert f"uid {os.getuid()}. Leave it out" in str(caught.value)

    assert conn.get(queue) is None


@pytest.mark.rule("CONSUME-10")
def test_get_without_a_timeout_does_not_wait(conn: shmq.Connection, queue: str) -> None:
    start = time.monotonic()

    assert conn.get(queue) is None
    assert conn.get_batch(queue) == []
    assert time.monotonic() - start < 0.5


@pytest.mark.rule("CONSUME-10")
def test_get_waits_no_longer_than_its_timeout(conn: shmq.Connection, queue: str) -> None:
    start = time.monotonic()

    assert conn.get(queue, timeout=0.2) is None
    assert 0.19 < time.monotonic() - start < 1


@pytest.mark.rule("CONSUME-14")
@pytest.mark.parametrize("no_ack", [False, True])
def test_a_batch_comes_when_it_is_whole(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], queue: str, *, no_ack: bool
) -> None:
    conn.publish_many([b"0", b"1"], routing_key=queue, confirm="memory")
    other = connect()
    later = threading.Timer(0.3, lambda: other.publish_many([b"2", b"3"], routing_key=queue, confirm="memory"))
    start = time.monotonic()
    later.start()

    batch = conn.get_batch(queue, max_messages=3, max_wait=10, no_ack=no_ack)
    took = time.monotonic() - start
    later.join()

    assert [message.body for message in batch] == [b"0", b"1", b"2"]
    assert 0.3 <= took < scaled(2)
    for message in batch:
        message.ack()  # nothing to do without acks
    assert bodies(list(conn.get_batch(queue, max_messages=1, max_wait=1))) == [b"3"]


@pytest.mark.rule("CONSUME-14")
def test_a_batch_that_is_not_whole_comes_when_time_is_up(conn: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"0", b"1"], routing_key=queue, confirm="memory")
    start = time.monotonic()

    assert bodies(list(conn.get_batch(queue, max_messages=3, max_wait=0.3))) == [b"0", b"1"]
    assert 0.3 <= time.monotonic() - start < scaled(2)
    assert conn.get_batch(queue, max_messages=1, max_wait=0) == []


@pytest.mark.rule("TTL-1")
def test_an_expired_message_is_not_delivered(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"never", routing_key=queue, expiration=0, confirm="memory")
    conn.publish(b"now", routing_key=queue, expiration=60_000, confirm="memory")

    assert bodies(list(conn.get_batch(queue, max_wait=0.1))) == [b"now"]


@pytest.mark.rule("DELAY-2")
def test_a_delayed_message_comes_later(conn: shmq.Connection, queue: str) -> None:
    start = time.monotonic()
    conn.publish(b"later", routing_key=queue, delay=0.3, confirm="memory")

    assert conn.get(queue) is None
    assert bodies(list(conn.get_batch(queue, max_messages=1, max_wait=5))) == [b"later"]
    assert 0.3 <= time.monotonic() - start < 2


def test_two_connections_share_a_queue(connect: Callable[[], shmq.Connection], queue: str) -> None:
    one, other = connect(), connect()
    one.publish(b"a", routing_key=queue, confirm="memory")
    one.publish(b"b", routing_key=queue, confirm="memory")

    first, second = other.get(queue, timeout=1), one.get(queue, timeout=1)

    assert first is not None
    assert second is not None
    assert (first.body, second.body) == (b"a", b"b")
    first.ack()
    second.ack()


@pytest.mark.rule("PUBLISH-7")
@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)], ids=["first", "last"])
def test_a_publish_to_two_full_queues_goes_on_when_the_one_has_room_and_then_the_other(
    conn: shmq.Connection,
    connect: Callable[[], shmq.Connection],
    new_queue: Callable[..., str],
    order: Callable[[list[str]], list[str]],
) -> None:
    queues = order([new_queue(capacity_messages=1) for _ in range(2)])  # first or last: of those that are gone through
    for queue in queues:
        conn.bind_queue(queue, "amq.direct", queues[0])
        conn.publish(b"old", routing_key=queue, confirm="memory")
    other = connect()
    keywords = {"exchange": "amq.direct", "routing_key": queues[0], "confirm": "memory", "timeout": scaled(5)}
    publisher = threading.Thread(target=other.publish, args=(b"new",), kwargs=keywords)
    publisher.start()

    for queue in queues:
        old = conn.get(queue, timeout=1)
        assert old is not None
        time.sleep(0.1)  # so that it waits
        old.ack()
        if queue == queues[0]:
            wait_until(lambda: conn.queue_info(queues[0]).messages == 1, "the first has it")
    started = time.monotonic()
    publisher.join()

    assert time.monotonic() - started < scaled(1)
    assert [bodies(list(conn.get_batch(queue, max_wait=0.1))) for queue in queues] == [[b"new"], [b"new"]]


@pytest.mark.rule("PRIORITY-1")
def test_a_priority_above_the_highest_is_served_as_it_and_told_as_published(
    conn: shmq.Connection, new_queue: Callable[..., str]
) -> None:
    levels, flat = new_queue(max_priority=5), new_queue()
    for queue in (levels, flat):
        for priority in (5, 9, 255, 3):
            conn.publish(b"x", routing_key=queue, priority=priority, confirm="memory")
        conn.publish(b"x", routing_key=queue, confirm="memory")

    assert [message.priority for message in conn.get_batch(levels, no_ack=True)] == [5, 9, 255, 3, 0]
    assert [message.priority for message in conn.get_batch(flat, no_ack=True)] == [5, 9, 255, 3, 0]


@pytest.mark.rule("PUBLISH-8")
def test_a_message_says_when_it_was_published(conn: shmq.Connection, queue: str) -> None:
    before = datetime.now(UTC)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    after = datetime.now(UTC)

    message = conn.get(queue, timeout=1, no_ack=True)
    assert message is not None
    assert before - CLOCKS_APART <= message.published_at <= after + CLOCKS_APART
