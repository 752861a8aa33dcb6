"""What an earlier call was refused for, which did not wait, is told by a later one: once, to nobody's cost. In direct
mode every publish hears for itself, so there these tests only see that nothing else goes wrong.
"""

import contextlib
from collections.abc import Callable

import pytest

import shmq
from support.deadline import wait_until
from support.messages import QueueMaker, ready_bodies, wait_for

Connecting = Callable[[], shmq.Connection]


@pytest.fixture
def full(new_queue: QueueMaker) -> str:
    """Give a queue that refuses what is published to it."""
    return new_queue(max_length=0, overflow="reject-publish")


def refused_later(conn: shmq.Connection, full: str) -> bool:
    """Publish what is refused, without waiting. False: it was told at once."""
    try:
        conn.publish(b"refused", routing_key=full, confirm="sent")
    except shmq.PublishRejected:
        return False
    return True


def told(conn: shmq.Connection) -> int:
    """How many refusals are told now."""
    for count in range(10):
        try:
            conn.wait_for_confirms()
        except shmq.PublishRejected:
            continue
        return count
    raise AssertionError("it never ends")


def known(conn: shmq.Connection) -> None:
    """Return when the client has heard that it was refused, and has told nobody."""
    link = getattr(conn, "_inner", conn)._link
    wait_until(lambda: bool(conn.blocked) or bool(link.failures), "the refusal has come")


@pytest.mark.rule("ERROR-5", "CONSUME-14")
def test_a_refusal_is_told_though_a_batch_was_handed_out(conn: shmq.Connection, queue: str, full: str) -> None:
    conn.publish(b"x", routing_key=queue, confirm="memory")
    later = refused_later(conn, full)
    try:
        got = len(conn.get_batch(queue, max_messages=2, max_wait=0.2))
    except shmq.PublishRejected:  # heard of it before
        got, later = len(conn.get_batch(queue, max_messages=2, max_wait=0.2)), False

    assert (got, told(conn)) == (1, later)


@pytest.mark.rule("ERROR-5")
def test_a_refusal_is_told_though_several_frames_were_handed_out(conn: shmq.Connection, queue: str, full: str) -> None:
    conn.publish_many([b"x"] * 300, routing_key=queue, confirm="memory")
    later = refused_later(conn, full)
    try:
        got = len(conn.get_batch(queue, max_messages=300))
    except shmq.PublishRejected:
        got, later = len(conn.get_batch(queue, max_messages=300)), False

    assert (got, told(conn)) == (300, later)


@pytest.mark.rule("ERROR-5", "CONSUME-3")
@pytest.mark.parametrize("how", ["get", "get_batch"])
def test_what_needs_no_ack_is_handed_out_whatever_was_refused_before(
    conn: shmq.Connection, queue: str, full: str, how: str
) -> None:
    conn.publish(b"x", routing_key=queue, confirm="memory")
    later = refused_later(conn, full)

    def bodies() -> list[bytes]:
        if how == "get":
            return [message.body for message in (conn.get(queue, timeout=1, no_ack=True),) if message is not None]
        return [message.body for message in conn.get_batch(queue, max_messages=2, max_wait=0.2, no_ack=True)]

    try:
        taken = bodies()
    except shmq.PublishRejected:
        taken, later = bodies(), False

    assert (taken, told(conn)) == ([b"x"], later)


@pytest.mark.rule("CONSUME-3", "CONSUME-14")
def test_what_needs_no_ack_is_handed_out_though_some_of_it_went_back_meanwhile(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    queue = new_queue(ack_timeout=0.1)
    conn.publish_many([b"1", b"2"], routing_key=queue, confirm="memory")

    gathered = conn.get_batch(queue, max_messages=4, max_wait=20, no_ack=True)  # each came again while it waited

    assert {message.body for message in gathered} == {b"1", b"2"}
    with contextlib.suppress(shmq.StaleDelivery):  # over the socket the broker tells of the first two
        conn.wait_for_confirms()
    info = conn.queue_info(queue)
    assert (info.messages, info.unacked) == (0, 0)


@pytest.mark.rule("CONSUME-4", "ERROR-5")
def test_a_consumer_is_cancelled_whatever_was_refused_before(conn: shmq.Connection, queue: str, full: str) -> None:
    consumer = conn.consume(queue)
    later = refused_later(conn, full)
    if later:
        known(conn)

    consumer.cancel()

    assert told(conn) == later
    assert conn.queue_info(queue).consumers == 0


@pytest.mark.rule("CHANNEL-6", "ERROR-5")
def test_a_channel_is_closed_whatever_was_refused_before(conn: shmq.Connection, queue: str, full: str) -> None:
    conn.publish(b"x", routing_key=queue, confirm="memory")
    channel = conn.channel()
    assert next(iter(channel.consume(queue))).body == b"x"
    later = refused_later(conn, full)
    if later:
        known(conn)

    channel.close()

    assert told(conn) == later
    assert (conn.queue_info(queue).consumers, ready_bodies(conn, queue)) == (0, [b"x"])


@pytest.mark.rule("CONSUME-12", "ERROR-5")
def test_an_exchange_that_is_missing_ends_no_queue_of_a_consumer(
    conn: shmq.Connection, new_queue: QueueMaker, queue: str
) -> None:
    other = new_queue()
    consumer = conn.consume([queue, other])
    with contextlib.suppress(shmq.NotFound):
        conn.publish(b"x", exchange="missing", confirm="sent")
        known(conn)
        with pytest.raises(shmq.NotFound, match="missing"):
            next(iter(consumer))

    for name in (queue, other):
        conn.publish(name.encode(), routing_key=name, confirm="memory")
    assert {next(iter(consumer)).body for _ in range(2)} == {queue.encode(), other.encode()}
    consumer.cancel()


@pytest.mark.rule("CONSUME-3", "CHANNEL-4")
def test_recovering_takes_nothing_that_needs_no_ack(conn: shmq.Connection, new_queue: QueueMaker, queue: str) -> None:
    channel, other = conn.channel(), new_queue()
    consumer = channel.consume(queue, no_ack=True)
    conn.publish_many([b"1", b"2", b"3"], routing_key=queue, confirm="memory")
    conn.publish(b"unacked", routing_key=other, confirm="memory")
    assert next(iter(consumer)).body == b"1"
    assert wait_for(channel, other).body == b"unacked"

    channel.recover()

    assert [next(iter(consumer)).body for _ in range(2)] == [b"2", b"3"]


@pytest.mark.rule("ERROR-5")
def test_closing_tells_what_nobody_was_told(connect: Connecting, full: str) -> None:
    conn = connect()
    if refused_later(conn, full):
        with pytest.raises(shmq.PublishRejected):
            conn.close()
    conn.close()

    assert not conn.is_open


@pytest.mark.rule("ERROR-5")
def test_an_error_is_not_hidden_by_closing(connect: Connecting, full: str) -> None:
    def publish_and_fail() -> None:
        with connect() as conn:
            refused_later(conn, full)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish_and_fail()
