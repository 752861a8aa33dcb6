"""Direct reply-to: answers to requests without a queue that anybody declares, or sees."""

import threading
import time
from collections.abc import Callable

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import WAIT, wait_for

Connect = Callable[[], shmq.Connection]
REPLY_TO = "amq.rabbitmq.reply-to"
pytestmark = pytest.mark.rule("CONSUME-13")


class Service:
    """Answers requests of one queue, in a thread of its own."""

    def __init__(self, conn: shmq.Connection, queue: str) -> None:
        self._conn, self._queue = conn, queue
        self.names: list[str | None] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            request = self._conn.get(self._queue, timeout=0.1)
            if request is not None:
                self.names.append(request.reply_to)
                self._conn.publish(
                    request.body.upper(), routing_key=request.reply_to or "", correlation_id=request.correlation_id
                )
                request.ack()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("on_channel", [False, True])
def test_requests_are_answered(conn: shmq.Connection, connect: Connect, queue: str, *, on_channel: bool) -> None:
    service = Service(connect(), queue)
    asking = conn.channel() if on_channel else conn
    replies = asking.consume(REPLY_TO, no_ack=True)
    try:
        for number in range(20):
            asking.publish(b"request %d" % number, routing_key=queue, reply_to=REPLY_TO, correlation_id=str(number))
            reply = next(replies)
            assert (reply.body, reply.correlation_id) == (b"REQUEST %d" % number, str(number))
            assert reply.routing_key == reply.queue_name == service.names[-1]
    finally:
        service.stop()

    (name,) = set(service.names)
    assert name is not None
    assert name.startswith(f"{REPLY_TO}.")
    assert len(name) > 40


def test_whoever_does_not_consume_replies_may_not_ask_for_them(conn: shmq.Connection, queue: str) -> None:
    channel, other = conn.channel(), conn.channel()
    replies = other.consume(REPLY_TO, no_ack=True)

    for asking in (conn, channel):
        with pytest.raises(shmq.PreconditionFailed, match="nobody waits"):
            asking.publish(b"request", routing_key=queue, reply_to=REPLY_TO)
    assert conn.get(queue) is None
    other.cancel(replies.consumer_tag)
    with pytest.raises(shmq.PreconditionFailed, match="nobody waits"):
        other.publish(b"request", routing_key=queue, reply_to=REPLY_TO)


def test_replies_need_no_ack_and_one_consumer_on_each_channel(conn: shmq.Connection, queue: str) -> None:
    channel, other = conn.channel(), conn.channel()
    with pytest.raises(shmq.PreconditionFailed, match="no_ack"):
        channel.consume(REPLY_TO)
    with pytest.raises(shmq.InvalidArgument):
        channel.consume([REPLY_TO, queue], no_ack=True)
    replies = channel.consume(REPLY_TO, no_ack=True)
    with pytest.raises(shmq.PreconditionFailed, match="already"):
        channel.consume(REPLY_TO, no_ack=True)

    also = other.consume(REPLY_TO, no_ack=True)
    other.publish(b"x", routing_key=queue, reply_to=REPLY_TO, confirm="memory")
    conn.publish(b"y", routing_key=wait_for(conn, queue).reply_to or "")
    assert next(also).body == b"y"
    replies.cancel()
    assert channel.consume(REPLY_TO, no_ack=True).consumer_tag


def test_another_reply_to_is_as_it_is(conn: shmq.Connection, queue: str) -> None:
    conn.channel().publish(b"x", routing_key=queue, reply_to="mine", confirm="memory")

    assert wait_for(conn, queue).reply_to == "mine"


@pytest.mark.parametrize("end", ["cancel", "channel", "connection"])
def test_replies_to_one_that_has_gone_are_dropped(
    conn: shmq.Connection, connect: Connect, queue: str, end: str
) -> None:
    asking = connect()
    channel = asking.channel()
    replies = channel.consume(REPLY_TO, no_ack=True)
    channel.publish(b"x", routing_key=queue, reply_to=REPLY_TO, confirm="memory")
    name = wait_for(conn, queue).reply_to or ""
    conn.publish(b"early", routing_key=name, confirm="memory")
    assert next(replies).body == b"early"

    {"cancel": replies.cancel, "channel": channel.close, "connection": asking.close}[end]()

    def is_gone() -> bool:
        try:
            conn.publish(b"late", routing_key=name, mandatory=True)
        except shmq.Unroutable:
            return True
        return False

    wait_until(is_gone, "it is gone", WAIT)
    conn.publish(b"late", routing_key=name)
    conn.wait_for_confirms()


def test_its_queue_is_nobody_elses_and_in_no_listing(conn: shmq.Connection, connect: Connect, queue: str) -> None:
    other = connect()
    replies = conn.consume(REPLY_TO, no_ack=True)
    conn.publish(b"x", routing_key=queue, reply_to=REPLY_TO, confirm="memory")
    name = wait_for(conn, queue).reply_to or ""

    assert [info.definition.name for info in conn.queues() if info.definition.name.startswith(REPLY_TO)] == []
    for call in (
        lambda: other.declare_queue(name, passive=True),
        lambda: other.purge_queue(name),
        lambda: other.delete_queue(name),
    ):
        with pytest.raises(shmq.ResourceLocked):
            call()
    other.publish(b"y", routing_key=name, confirm="memory")
    assert next(replies).body == b"y"


def test_who_answers_many_keeps_none_of_them(conn: shmq.Connection, connect: Connect, queue: str) -> None:
    asking = connect()
    for number in range(100):
        channel = asking.channel()
        replies = channel.consume(REPLY_TO, no_ack=True)
        channel.publish(b"x", routing_key=queue, reply_to=REPLY_TO, confirm="memory")
        request = wait_for(conn, queue)
        conn.publish(b"%d" % number, routing_key=request.reply_to or "", confirm="memory")
        request.ack()
        assert next(replies).body == b"%d" % number
        channel.close()

    assert conn.status().totals["queues"] < 50


def test_a_reply_comes_at_once(conn: shmq.Connection, connect: Connect, queue: str) -> None:
    service = Service(connect(), queue)
    replies = conn.consume(REPLY_TO, no_ack=True)
    times = []
    try:
        for _ in range(30):
            start = time.monotonic()
            conn.publish(b"x", routing_key=queue, reply_to=REPLY_TO)
            next(replies)
            times.append(time.monotonic() - start)
    finally:
        service.stop()

    assert sorted(times)[15] < scaled(0.1)
