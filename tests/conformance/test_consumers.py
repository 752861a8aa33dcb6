"""Who is served: one active consumer, consumers by priority, an exclusive one; what urgency and waiting count for."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import WAIT, QueueMaker, ready_bodies, wait_for

Connect = Callable[[], shmq.Connection]


class Listener:
    """A consumer in a thread of its own: what it got, acked."""

    def __init__(self, connection: shmq.Connection, queue: str, **how: object) -> None:
        self.bodies: list[bytes] = []
        self.consumer = connection.consume(queue, **how)  # type: ignore[arg-type] # any of them
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        for message in self.consumer:
            self.bodies.append(message.body)
            message.ack()

    def cancel(self) -> None:
        self.consumer.cancel()
        self._thread.join()


def publish(conn: shmq.Connection, queue: str, *numbers: int) -> list[bytes]:
    bodies = [b"%d" % number for number in numbers]
    for body in bodies:
        conn.publish(body, routing_key=queue, confirm="memory")
    return bodies


# -- one active -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("CONSUME-8")
def test_only_one_consumer_is_active_and_the_next_takes_over(
    conn: shmq.Connection, by_broker: Connect, new_queue: QueueMaker
) -> None:
    queue = new_queue(single_active_consumer=True)
    first, second = Listener(by_broker(), queue), Listener(by_broker(), queue)
    published = publish(conn, queue, *range(20))
    wait_until(lambda: first.bodies == published, "the first has all")
    assert second.bodies == []

    first.cancel()
    more = publish(conn, queue, *range(20, 30))
    wait_until(lambda: second.bodies == more, "the second has the rest")
    second.cancel()


@pytest.mark.rule("CONSUME-8")
def test_what_the_active_one_held_is_delivered_by_the_next(
    conn: shmq.Connection, by_broker: Connect, new_queue: QueueMaker
) -> None:
    queue = new_queue(single_active_consumer=True)
    one = by_broker()
    held = one.consume(queue, prefetch=1)
    publish(conn, queue, 1, 2)
    assert next(held).body == b"1"
    second = Listener(by_broker(), queue)
    one.close()

    wait_until(lambda: second.bodies == [b"1", b"2"], "in order")
    second.cancel()


def test_consuming_from_one_active_needs_the_broker_and_publishing_does_not(
    conn: shmq.Connection, mode: str, new_queue: QueueMaker
) -> None:
    queue = new_queue(single_active_consumer=True)
    publish(conn, queue, 1)

    info = conn.queue_info(queue)
    assert (info.messages, info.mode) == (1, "socket")
    if mode == "direct":
        with pytest.raises(shmq.DirectRefused):
            conn.consume(queue)
        with pytest.raises(shmq.DirectRefused):
            conn.get(queue)


# -- priority -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CONSUME-9")
def test_who_has_a_higher_priority_is_served_while_it_has_room(
    conn: shmq.Connection, by_broker: Connect, queue: str
) -> None:
    low, high = by_broker(), by_broker()
    low_consumer, high_consumer = (
        low.consume(queue, priority=1, prefetch=10),
        high.consume(queue, priority=5, prefetch=2),
    )
    published = publish(conn, queue, 1, 2, 3, 4)

    mine = list(itertools.islice(high_consumer, 2))
    others = list(itertools.islice(low_consumer, 2))
    assert [message.body for message in mine + others] == published
    for message in mine:
        message.ack()
    high.wait_for_confirms()
    publish(conn, queue, 5)
    assert next(high_consumer).body == b"5"


@pytest.mark.rule("CONSUME-9")
def test_priority_may_be_an_argument(conn: shmq.Connection, by_broker: Connect, queue: str) -> None:
    low, high = by_broker().consume(queue), by_broker().consume(queue, arguments={"x-priority": 5, "x-team": "a"})
    published = publish(conn, queue, 1)

    assert [next(high).body] == published
    low.cancel()
    for arguments in ({"x-priority": "5"}, {"x-consumer-timeout": 0}):
        with pytest.raises(shmq.InvalidArgument, match="x-"):
            by_broker().consume(queue, arguments=arguments)
    with pytest.raises(shmq.InvalidArgument, match="as the keyword says"):
        by_broker().consume(queue, priority=3, arguments={"x-priority": 4})


@pytest.mark.rule("CONSUME-8")
def test_where_one_is_active_none_is_exclusive(by_broker: Connect, new_queue: QueueMaker) -> None:
    queue = new_queue(single_active_consumer=True)

    with pytest.raises(shmq.AccessRefused):
        by_broker().consume(queue, exclusive=True)


@pytest.mark.rule("CONSUME-9")
def test_equals_take_turns(conn: shmq.Connection, by_broker: Connect, queue: str) -> None:
    listeners = [Listener(by_broker(), queue, priority=3, prefetch=1) for _ in range(2)]
    for number in range(20):
        publish(conn, queue, number)
        wait_until(lambda: sum(len(one.bodies) for one in listeners) == number + 1, "it is delivered")  # noqa: B023 - called in this turn of the loop
        wait_until(lambda: conn.queue_info(queue).unacked == 0, "both have room")
    for one in listeners:
        one.cancel()

    assert [len(one.bodies) for one in listeners] == [10, 10]


@pytest.mark.rule("CONSUME-9")
def test_a_consumer_without_priority_stands_back_when_one_with_it_comes(
    conn: shmq.Connection, by_broker: Connect, queue: str
) -> None:
    plain = Listener(by_broker(), queue)
    wait_until(lambda: conn.queue_info(queue).consumers == 1, "it consumes")
    before = publish(conn, queue, *range(5))
    wait_until(lambda: plain.bodies == before, "it gets what there is")

    high = Listener(by_broker(), queue, priority=1)
    wait_until(lambda: conn.queue_info(queue).consumers == 2, "both consume")
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 0.3, "both know")
    during = publish(conn, queue, *range(5, 50))
    wait_until(lambda: high.bodies == during, "the other gets all")

    high.cancel()
    after = publish(conn, queue, *range(50, 60))
    wait_until(lambda: plain.bodies == before + after, "it gets all again", WAIT)
    plain.cancel()


def stood_back(conn: shmq.Connection, by_broker: Connect, queue: str, **how: object) -> Iterator[shmq.Message]:
    """Start one that was served by the broker while another of higher priority was full, until that one went: it was
    pushed messages 2, 3 and 4, and has handed out the first of them.
    """
    plain = by_broker().consume(queue, **how)  # type: ignore[arg-type] # any of them
    high = by_broker().consume(queue, priority=1, prefetch=1)
    publish(conn, queue, 1)
    assert next(high).body == b"1"
    publish(conn, queue, 2, 3, 4)
    assert next(plain).body == b"2"
    wait_until(lambda: conn.queue_info(queue).messages == 0, "all are pushed")
    high.cancel()
    return plain


@pytest.mark.rule("CONSUME-9")
def test_who_stood_back_goes_on_in_order(conn: shmq.Connection, by_broker: Connect, queue: str) -> None:
    plain = stood_back(conn, by_broker, queue, prefetch=3)
    publish(conn, queue, 5)
    bodies = []
    for message in itertools.islice(plain, 3):
        bodies.append(message.body)
        message.ack()

    assert bodies == [b"3", b"4", b"5"]


@pytest.mark.rule("CONSUME-9")
def test_who_stood_back_loses_nothing_without_acks(conn: shmq.Connection, by_broker: Connect, queue: str) -> None:
    plain = stood_back(conn, by_broker, queue, no_ack=True)
    publish(conn, queue, 5)

    assert [next(plain).body for _ in range(3)] == [b"3", b"4", b"5"]


@pytest.mark.rule("CONSUME-9")
def test_who_stands_back_may_be_cancelled(conn: shmq.Connection, by_broker: Connect, queue: str) -> None:
    plain, high = Listener(by_broker(), queue), by_broker().consume(queue, priority=1, prefetch=1)
    publish(conn, queue, 1)
    assert next(high).body == b"1"
    published = publish(conn, queue, 2, 3)
    wait_until(lambda: plain.bodies == published, "it is served by the broker")
    plain.cancel()

    wait_until(lambda: conn.queue_info(queue).consumers == 1, "it is gone")
    publish(conn, queue, 4)
    assert conn.queue_info(queue).messages == 1


def test_a_consumer_without_acks_leaves_nothing_behind(connect: Connect, conn: shmq.Connection, queue: str) -> None:
    consuming = connect()
    for _ in range(5):
        consumer = consuming.consume(queue, no_ack=True)
        conn.publish_many([b"x" * 1000] * 300, routing_key=queue)
        assert next(consumer).body == b"x" * 1000
        consumer.cancel()

        assert consuming.queue_info(queue).unacked == 0


# -- exclusive ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CONSUME-6")
def test_an_exclusive_consumer_is_alone(conn: shmq.Connection, by_broker: Connect, queue: str) -> None:
    consumer = by_broker().consume(queue, exclusive=True)
    with pytest.raises(shmq.AccessRefused):
        by_broker().consume(queue, exclusive=True)
    with pytest.raises(shmq.AccessRefused):
        by_broker().consume(queue)
    with pytest.raises(shmq.AccessRefused):
        by_broker().consume(queue, priority=3)

    consumer.cancel()
    wait_until(lambda: conn.queue_info(queue).consumers == 0, "it is gone")
    listener = Listener(by_broker(), queue)
    published = publish(conn, queue, 1)
    wait_until(lambda: listener.bodies == published, "another consumes")
    listener.cancel()


@pytest.mark.rule("CONSUME-6")
def test_where_others_consume_nobody_is_alone(
    conn: shmq.Connection, connect: Connect, by_broker: Connect, queue: str
) -> None:
    listener = Listener(connect(), queue)
    wait_until(lambda: conn.queue_info(queue).consumers == 1, "it consumes")

    with pytest.raises(shmq.AccessRefused):
        by_broker().consume(queue, exclusive=True)
    listener.cancel()


# -- urgency and waiting --------------------------------------------------------------------------------------------


@pytest.mark.rule("PRIORITY-2")
def test_urgency_is_strict_without_ageing(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"old", routing_key=queue, priority=0, confirm="memory")
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 0.1, "it is old")
    conn.publish(b"urgent", routing_key=queue, priority=9, confirm="memory")

    assert ready_bodies(conn, queue) == [b"urgent", b"old"]


@pytest.mark.rule("PRIORITY-3")
def test_with_ageing_who_waits_rises(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_priority=9, priority_ageing=0.05)
    conn.publish(b"waits", routing_key=queue, priority=0, confirm="memory")
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 0.3, "it is six levels higher")
    for priority in (4, 9):
        conn.publish(b"%d" % priority, routing_key=queue, priority=priority, confirm="memory")

    assert ready_bodies(conn, queue) == [b"9", b"waits", b"4"]


@pytest.mark.rule("PRIORITY-3")
def test_with_ageing_no_level_starves(conn: shmq.Connection, connect: Connect, new_queue: QueueMaker) -> None:
    queue = new_queue(max_priority=9, priority_ageing=0.02)
    conn.publish(b"low", routing_key=queue, priority=0, confirm="memory")
    feeding, stop = connect(), threading.Event()

    def feed() -> None:
        while not stop.is_set():
            if feeding.queue_info(queue).messages < 100:
                feeding.publish_many([b"high"] * 100, routing_key=queue, priority=9, confirm="memory")

    thread = threading.Thread(target=feed)
    thread.start()
    start, found = time.monotonic(), False
    while not found and time.monotonic() < start + scaled(WAIT):
        message = wait_for(conn, queue)
        found = message.body == b"low"
        message.ack()
    stop.set()
    thread.join()

    assert found
