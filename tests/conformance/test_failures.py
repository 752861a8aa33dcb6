"""Messages that fail: the delivery limit, retries after a while, ack timeouts."""

import itertools
import time
from collections.abc import Callable

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import QueueMaker, deaths, ready_bodies, wait_for, wait_until_gone

Connect = Callable[[], shmq.Connection]


def fail(conn: shmq.Connection, queue: str, times: int) -> None:
    for _ in range(times):
        wait_for(conn, queue).reject(requeue=True)


# -- the delivery limit ---------------------------------------------------------------------------------------------


@pytest.mark.rule("SETTLE-7", "DEATH-1")
def test_over_the_limit_a_message_is_a_dead_letter(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"poison", routing_key=queue, confirm="memory")
    fail(conn, queue, 3)

    message = wait_for(conn, dead)
    assert deaths(message) == [(queue, "delivery_limit", 1)]
    assert "x-delivery-count" not in message.headers
    assert conn.get(queue) is None


@pytest.mark.rule("SETTLE-6")
def test_failures_are_told(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(delivery_limit=5)
    conn.publish(b"poison", routing_key=queue, confirm="memory")
    counts = []
    for _ in range(3):
        message = wait_for(conn, queue)
        counts.append(message.headers.get("x-delivery-count"))
        message.reject(requeue=True)

    assert counts == [None, 1, 2]


@pytest.mark.rule("SETTLE-6")
def test_what_an_application_gives_back_is_no_failure(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(delivery_limit=1)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    for _ in range(5):
        wait_for(conn, queue).nack()

    message = wait_for(conn, queue)
    assert message.redelivered
    assert message.headers == {}


@pytest.mark.rule("SETTLE-7")
def test_with_a_dead_letter_exchange_the_limit_is_20(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"poison", routing_key=queue, confirm="memory")
    fail(conn, queue, 20)
    assert conn.get(dead) is None
    fail(conn, queue, 1)

    assert deaths(wait_for(conn, dead)) == [(queue, "delivery_limit", 1)]


@pytest.mark.rule("SETTLE-7")
@pytest.mark.parametrize("arguments", [{}, {"delivery_limit": -1}, {"delivery_limit": -1, "dead_letter_exchange": ""}])
def test_without_a_limit_nothing_ends_its_rounds(
    conn: shmq.Connection, new_queue: QueueMaker, arguments: dict[str, object]
) -> None:
    queue = new_queue(**arguments)
    conn.publish(b"poison", routing_key=queue, confirm="memory")
    fail(conn, queue, 30)

    assert wait_for(conn, queue).headers == {"x-delivery-count": 30}


@pytest.mark.rule("SETTLE-7")
def test_over_a_limit_without_an_exchange_it_is_dropped(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(delivery_limit=0)
    conn.publish(b"poison", routing_key=queue, confirm="memory")
    fail(conn, queue, 1)

    wait_until_gone(conn, queue)
    assert conn.get(queue) is None


# -- retries after a while ------------------------------------------------------------------------------------------


def time_to_come_back(conn: shmq.Connection, queue: str) -> float:
    start = time.monotonic()
    wait_for(conn, queue).reject(requeue=True)
    message = wait_for(conn, queue)
    took = time.monotonic() - start
    message.nack(delay=0.001)
    return took


@pytest.mark.rule("SETTLE-8")
def test_failed_messages_come_back_later_each_time(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(delayed_retry_type="failed", delayed_retry_min=0.1, delayed_retry_max=0.25)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    waits = [time_to_come_back(conn, queue) for _ in range(4)]

    for wait, least in zip(waits, (0.1, 0.2, 0.25, 0.25), strict=True):
        assert least - 0.005 <= wait < least + scaled(1)


@pytest.mark.rule("SETTLE-8")
@pytest.mark.parametrize(
    ("kind", "nack_waits", "reject_waits"),
    [("all", True, True), ("failed", False, True), ("returned", True, False), ("disabled", False, False)],
)
def test_which_of_them_wait_is_the_queues_to_say(
    conn: shmq.Connection, new_queue: QueueMaker, kind: str, *, nack_waits: bool, reject_waits: bool
) -> None:
    queue = new_queue(delayed_retry_type=kind, delayed_retry_min=30)
    for waits, settle in ((nack_waits, "nack"), (reject_waits, "reject")):
        conn.publish(settle.encode(), routing_key=queue, confirm="memory")
        message = wait_for(conn, queue)
        message.nack() if settle == "nack" else message.reject(requeue=True)
        conn.wait_for_confirms()
        assert ready_bodies(conn, queue) == ([] if waits else [settle.encode()])

    assert conn.queue_info(queue).totals["delayed"] == nack_waits + reject_waits


@pytest.mark.rule("SETTLE-8")
def test_a_delay_that_is_asked_for_wins(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(delayed_retry_type="all", delayed_retry_min=30)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    wait_for(conn, queue).nack(delay=0.05)

    assert wait_for(conn, queue).body == b"x"


@pytest.mark.rule("SETTLE-8")
def test_over_the_limit_nothing_waits(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(
        delayed_retry_type="all",
        delayed_retry_min=30,
        delivery_limit=0,
        dead_letter_exchange="",
        dead_letter_routing_key=dead,
    )
    conn.publish(b"x", routing_key=queue, confirm="memory")
    fail(conn, queue, 1)

    assert deaths(wait_for(conn, dead)) == [(queue, "delivery_limit", 1)]


# -- ack timeouts ---------------------------------------------------------------------------------------------------


@pytest.mark.rule("SETTLE-9", "SETTLE-6")
def test_an_overdue_delivery_goes_back_alone_and_its_late_ack_is_stale(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    queue = new_queue(ack_timeout=0.3)
    conn.publish(b"slow", routing_key=queue, confirm="memory")
    slow = wait_for(conn, queue)
    conn.publish(b"quick", routing_key=queue, confirm="memory")
    wait_for(conn, queue).ack()

    again = wait_for(conn, queue)
    assert (again.body, again.redelivered, again.headers) == (b"slow", True, {"x-delivery-count": 1})

    def ack_late() -> None:
        slow.ack()
        conn.wait_for_confirms()

    with pytest.raises(shmq.StaleDelivery):
        ack_late()
    again.ack()


@pytest.mark.rule("SETTLE-9")
def test_a_touch_puts_it_off(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(ack_timeout=0.2)
    conn.publish(b"slow", routing_key=queue, confirm="memory")
    message = wait_for(conn, queue)
    message.touch(30)

    assert conn.get(queue, timeout=1.5) is None
    message.ack()
    conn.wait_for_confirms()


@pytest.fixture
def served(by_broker: Connect) -> shmq.Connection:
    """Give a connection whose consumers the broker serves."""
    return by_broker()


@pytest.mark.rule("SETTLE-9")
def test_a_consumer_may_have_a_timeout_of_its_own(conn: shmq.Connection, served: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"1", b"2"], routing_key=queue, confirm="memory")
    consumer = served.consume(queue, prefetch=2, ack_timeout=0.3)
    slow, quick = itertools.islice(consumer, 2)
    consumer.cancel()
    quick.ack()

    again = wait_for(conn, queue)
    assert (again.body, again.headers) == (slow.body, {"x-delivery-count": 1})

    def ack_late() -> None:
        slow.ack()
        served.wait_for_confirms()

    with pytest.raises(shmq.StaleDelivery):
        ack_late()
    again.ack()


@pytest.mark.rule("SETTLE-9")
def test_a_touch_puts_the_consumers_timeout_off(served: shmq.Connection, queue: str) -> None:
    served.publish(b"slow", routing_key=queue, confirm="memory")
    message = next(iter(served.consume(queue, prefetch=1, ack_timeout=0.2)))
    message.touch(30)
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 1, "longer than the timeout")

    message.ack()
    served.wait_for_confirms()
    assert served.queue_info(queue).unacked == 0


@pytest.mark.rule("SETTLE-9")
def test_the_consumers_timeout_beats_the_queues(served: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(ack_timeout=0.2)
    served.publish(b"slow", routing_key=queue, confirm="memory")
    message = next(iter(served.consume(queue, prefetch=1, ack_timeout=30)))
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 1.5, "longer than the queue's timeout")

    message.ack()
    served.wait_for_confirms()
