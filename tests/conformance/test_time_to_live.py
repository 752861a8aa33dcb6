"""Messages that expire, and queues that do: x-message-ttl, expiration, x-expires."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import QueueMaker, deaths, ready_bodies, wait_for, wait_until_gone

Connect = Callable[[], shmq.Connection]


@pytest.mark.rule("TTL-1")
def test_what_expired_is_never_delivered(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"late", routing_key=queue, expiration=30, confirm="memory")
    conn.publish(b"kept", routing_key=queue, confirm="memory")
    wait_until(lambda: conn.queue_info(queue).messages == 1, "it expires")

    assert ready_bodies(conn, queue) == [b"kept"]


@pytest.mark.rule("TTL-1")
@pytest.mark.parametrize(("queue_ttl", "expiration"), [(0.05, 60_000), (60.0, 50), (0.05, None)])
def test_the_lower_time_of_queue_and_message_counts(
    conn: shmq.Connection, new_queue: QueueMaker, queue_ttl: float, expiration: int | None
) -> None:
    dead = new_queue()
    queue = new_queue(message_ttl=queue_ttl, dead_letter_exchange="", dead_letter_routing_key=dead)
    start = time.monotonic()
    conn.publish(b"x", routing_key=queue, expiration=expiration, confirm="memory")

    assert deaths(wait_for(conn, dead)) == [(queue, "expired", 1)]
    assert 0.04 < time.monotonic() - start < scaled(2)


@pytest.mark.rule("TTL-2")
def test_expiry_is_anywhere_in_a_queue(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(max_priority=9, dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"head", routing_key=queue, priority=9, confirm="memory")
    conn.publish(b"middle", routing_key=queue, priority=5, expiration=30, confirm="memory")
    conn.publish(b"behind", routing_key=queue, priority=5, confirm="memory")

    assert wait_for(conn, dead).body == b"middle"
    assert ready_bodies(conn, queue) == [b"head", b"behind"]


@pytest.mark.rule("TTL-2")
def test_expiry_is_prompt(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    late = []
    for _ in range(20):
        due = time.monotonic() + 0.02
        conn.publish(b"x", routing_key=queue, expiration=20, confirm="memory")
        wait_for(conn, dead).ack()
        late.append(time.monotonic() - due)

    assert sorted(late)[10] < scaled(0.03)


@pytest.mark.rule("TTL-2")
def test_a_shorter_time_behind_a_longer_one_is_seen(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    for expiration in (60_000, 200, 50):
        conn.publish(b"%d" % expiration, routing_key=queue, expiration=expiration, confirm="memory")

    assert [wait_for(conn, dead).body for _ in range(2)] == [b"50", b"200"]
    assert ready_bodies(conn, queue) == [b"60000"]


@pytest.mark.rule("TTL-3")
def test_a_time_of_zero_is_never_for_who_does_not_wait(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(message_ttl=0, dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"never", routing_key=queue, confirm="memory")

    assert wait_for(conn, dead).body == b"never"
    assert conn.get(queue) is None


@pytest.mark.rule("TTL-3")
def test_a_time_of_zero_is_now_for_who_waits(conn: shmq.Connection, connect: Connect, new_queue: QueueMaker) -> None:
    queue = new_queue(message_ttl=0)
    got: list[shmq.Message | None] = []
    waiter = connect()
    thread = threading.Thread(target=lambda: got.append(waiter.get(queue, timeout=scaled(10), no_ack=True)))
    thread.start()
    for number in itertools.count():
        conn.publish(b"%d" % number, routing_key=queue, confirm="memory")
        thread.join(0.05)
        if not thread.is_alive():
            break

    assert got[0] is not None


@pytest.mark.rule("TTL-4")
def test_a_requeued_message_keeps_its_end(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(message_ttl=0.3, dead_letter_exchange="", dead_letter_routing_key=dead)
    start = time.monotonic()
    conn.publish(b"x", routing_key=queue, confirm="memory")
    message = wait_for(conn, queue)
    wait_until(lambda: time.monotonic() > start + 0.15, "half of its time is over")
    message.nack()

    wait_for(conn, dead)
    assert 0.29 < time.monotonic() - start < 0.3 + scaled(0.25)


@pytest.mark.rule("TTL-4")
def test_what_is_held_expires_when_it_comes_back(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(message_ttl=0.05, dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    message = wait_for(conn, queue)
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 0.1, "its time is over")
    assert conn.get(dead) is None

    message.nack()
    assert wait_for(conn, dead).body == b"x"
    assert conn.get(queue) is None


@pytest.mark.rule("DELAY-4")
def test_what_is_delayed_begins_to_live_when_it_is_due(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    start = time.monotonic()
    for body in (b"taken", b"late"):
        conn.publish(body, routing_key=queue, delay=0.4, expiration=300, confirm="memory")

    assert wait_for(conn, queue).body == b"taken"
    assert wait_for(conn, dead).body == b"late"
    assert time.monotonic() - start >= 0.69


@pytest.mark.rule("TTL-2")
def test_many_expire_in_their_order(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(message_ttl=0.1, dead_letter_exchange="", dead_letter_routing_key=dead)
    bodies = [b"%d" % number for number in range(2000)]
    conn.publish_many(bodies, routing_key=queue, confirm="memory")
    wait_until(lambda: conn.queue_info(dead).messages == 2000, "all are dead-lettered", 10)

    assert sorted(map(int, ready_bodies(conn, dead) + ready_bodies(conn, dead))) == list(range(2000))
    wait_until_gone(conn, queue)


# -- queues ---------------------------------------------------------------------------------------------------------


def is_there(conn: shmq.Connection, queue: str) -> bool:
    try:
        conn.queue_info(queue)
    except shmq.NotFound:
        return False
    return True


@pytest.mark.rule("QUEUE-11")
def test_a_queue_that_nobody_uses_goes_with_its_messages(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(expires=0.3, dead_letter_exchange="", dead_letter_routing_key=dead)
    start = time.monotonic()
    conn.publish(b"x", routing_key=queue, confirm="memory")
    wait_until(lambda: not is_there(conn, queue), "it is gone")

    assert time.monotonic() - start >= 0.29
    assert conn.get(dead, timeout=0.1) is None


@pytest.mark.rule("QUEUE-11")
def test_asking_for_messages_and_declaring_are_use(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(expires=0.5)
    for turn in range(6):
        wait_from = time.monotonic()
        wait_until(lambda wait_from=wait_from: time.monotonic() > wait_from + 0.2, "two fifths of the time")  # type: ignore[misc] # binds this turn's value
        assert conn.get(queue) is None if turn % 2 else conn.declare_queue(queue, expires=0.5)

    wait_until(lambda: not is_there(conn, queue), "it is gone")


@pytest.mark.rule("QUEUE-11")
def test_a_consumer_keeps_a_queue(conn: shmq.Connection, connect: Connect, new_queue: QueueMaker) -> None:
    other = connect()
    queue = new_queue(expires=0.5)
    consumer = other.consume(queue)
    wait_until(lambda: conn.queue_info(queue).consumers == 1, "it consumes")
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 1, "more than the time")
    assert is_there(conn, queue)

    consumer.cancel()
    wait_until(lambda: not is_there(conn, queue), "it is gone")
