"""Consuming and settling: acks, requeues, rejects, prefetch, cancel, in each mode."""

import gc
import itertools
import random
import threading
import time
from collections.abc import Callable

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.dying import Dying
from support.messages import WAIT, wait_for, wait_until_gone


@pytest.mark.rule("CONSUME-1")
def test_consume_waits_for_what_comes(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], queue: str
) -> None:
    other = connect()
    timer = threading.Timer(0.2, lambda: other.publish(b"x", routing_key=queue))
    timer.start()

    message = next(iter(conn.consume(queue)))

    assert message.body == b"x"
    message.ack()
    timer.join()


@pytest.mark.rule("SETTLE-1")
def test_an_acked_message_is_gone(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"x", routing_key=queue)
    message = conn.get(queue, timeout=1)
    assert message is not None

    message.ack()
    conn.wait_for_confirms()

    info = conn.queue_info(queue)
    assert (info.messages, info.unacked) == (0, 0)


@pytest.mark.rule("SETTLE-4", "SETTLE-5", "SETTLE-6")
def test_an_unacked_message_comes_back_when_its_connection_closes(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], queue: str
) -> None:
    conn.publish(b"x", routing_key=queue, confirm="memory")
    other = connect()
    assert other.get(queue, timeout=1) is not None

    other.close()

    message = conn.get(queue, timeout=2)
    assert message is not None
    assert message.redelivered
    assert message.delivery_count == 2
    assert message.headers == {}
    message.ack()


@pytest.mark.rule("SETTLE-1")
def test_a_message_is_settled_once(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"x", routing_key=queue)
    message = conn.get(queue, timeout=1)
    assert message is not None
    message.ack()

    with pytest.raises(shmq.AlreadySettled):
        message.ack()
    with pytest.raises(shmq.AlreadySettled):
        message.nack()


@pytest.mark.rule("SETTLE-2", "SETTLE-5")
@pytest.mark.parametrize("shuffled", [False, True])
def test_nacked_messages_come_back_in_publish_order(conn: shmq.Connection, queue: str, *, shuffled: bool) -> None:
    conn.publish_many([b"%d" % number for number in range(100)], routing_key=queue, confirm="memory")
    messages = list(conn.get_batch(queue, max_messages=100, max_wait=1))
    assert len(messages) == 100
    if shuffled:
        random.Random(7).shuffle(messages)
    for message in reversed(messages):
        message.nack()

    again = list(conn.get_batch(queue, max_messages=100, max_wait=1))

    assert [message.body for message in again] == [b"%d" % number for number in range(100)]
    assert all(message.redelivered and message.headers == {} for message in again)
    conn.ack_many(again)


@pytest.mark.rule("SETTLE-2")
def test_a_nack_may_delay(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"x", routing_key=queue)
    message = conn.get(queue, timeout=1)
    assert message is not None
    start = time.monotonic()

    message.nack(delay=0.3)

    assert conn.get(queue) is None
    again = conn.get(queue, timeout=scaled(5))
    assert again is not None
    assert time.monotonic() - start > 0.25
    again.ack()


@pytest.mark.rule("SETTLE-6")
def test_reject_with_requeue_counts_a_failure(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"x", routing_key=queue)
    for failures in range(3):
        message = conn.get(queue, timeout=1)
        assert message is not None
        assert message.headers.get("x-delivery-count", 0) == failures
        message.reject(requeue=True)


@pytest.mark.rule("SETTLE-3", "DEATH-1")
def test_a_rejected_message_is_dead_lettered(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"x", routing_key=queue, headers={"mine": 1})
    message = conn.get(queue, timeout=1)
    assert message is not None

    message.reject()

    letter = conn.get(dead, timeout=scaled(5))
    assert letter is not None
    assert letter.body == b"x"
    assert letter.headers["mine"] == 1
    assert letter.headers["x-death"][0]["reason"] == "rejected"
    assert letter.headers["x-death"][0]["queue"] == queue
    letter.ack()


@pytest.mark.rule("SETTLE-7")
def test_over_the_delivery_limit_a_message_is_dead_lettered(
    conn: shmq.Connection, new_queue: Callable[..., str]
) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead, delivery_limit=2)
    conn.publish(b"x", routing_key=queue)
    for _ in range(3):
        message = conn.get(queue, timeout=1)
        assert message is not None
        message.reject(requeue=True)

    letter = conn.get(dead, timeout=scaled(5))

    assert letter is not None
    assert letter.headers["x-death"][0]["reason"] == "delivery_limit"
    letter.ack()


@pytest.mark.rule("CONSUME-3")
def test_no_ack_settles_at_delivery(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"x", routing_key=queue)
    message = conn.get(queue, timeout=1, no_ack=True)
    assert message is not None

    message.ack()
    with pytest.raises(shmq.AlreadySettled):
        message.reject()
    assert conn.queue_info(queue).unacked == 0


@pytest.mark.rule("CONSUME-2")
def test_prefetch_bounds_what_is_unacked_and_acks_of_another_thread_go_on(conn: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"x"] * 20, routing_key=queue, confirm="memory")
    got: list[shmq.Message] = []
    done = threading.Event()

    def consume() -> None:
        for message in conn.consume(queue, prefetch=5, consumer_tag="c"):
            got.append(message)
            if len(got) == 20:
                done.set()

    thread = threading.Thread(target=consume)
    thread.start()
    wait_until(lambda: len(got) == 5, "five deliveries")
    assert conn.queue_info(queue).unacked == 5
    acked = 0
    while not done.is_set():
        for message in got[acked:]:
            message.ack()
            acked += 1
    conn.ack_many(got[acked:])
    conn.cancel("c")
    thread.join(scaled(5))

    assert not thread.is_alive()
    assert len(got) == 20


@pytest.mark.rule("CONSUME-4")
def test_cancel_ends_a_consumer_that_waits_in_another_thread(conn: shmq.Connection, queue: str) -> None:
    consumer = conn.consume(queue)
    thread = threading.Thread(target=lambda: list(consumer))
    thread.start()
    time.sleep(0.1)  # until it waits

    start = time.monotonic()
    conn.cancel(consumer.consumer_tag)
    thread.join(scaled(5))

    assert not thread.is_alive()
    assert time.monotonic() - start < scaled(1)


@pytest.mark.rule("CONSUME-4")
def test_cancel_leaves_what_was_handed_out(conn: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"a", b"b"], routing_key=queue, confirm="memory")
    consumer = conn.consume(queue, prefetch=1)
    message = next(consumer)

    consumer.cancel()
    message.ack()

    rest = conn.get(queue, timeout=1)
    assert rest is not None
    assert (message.body, rest.body) == (b"a", b"b")
    rest.ack()


@pytest.mark.rule("CONSUME-5")
def test_a_consumer_hears_that_its_queue_is_deleted(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], queue: str
) -> None:
    other = connect()
    timer = threading.Timer(0.2, lambda: other.delete_queue(queue))
    timer.start()

    with pytest.raises(shmq.NotFound):
        next(iter(conn.consume(queue)))
    timer.join()


@pytest.mark.rule("SETTLE-1")
def test_many_messages_are_acked_at_once(conn: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"x"] * 500, routing_key=queue, confirm="memory")
    messages = conn.get_batch(queue, max_messages=500, max_wait=1)
    messages[3].ack()

    with pytest.raises(shmq.AlreadySettled):
        conn.ack_many(messages)

    conn.wait_for_confirms()
    assert conn.queue_info(queue).unacked == 0


def test_views_survive_the_ack(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"v" * 100_000, routing_key=queue, confirm="memory")
    message = conn.get(queue, timeout=1)
    assert message is not None
    view = message.view()

    message.ack()

    assert bytes(view) == b"v" * 100_000


@pytest.mark.rule("CONSUME-4")
def test_a_consumer_that_is_dropped_keeps_nothing_back(conn: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"a", b"b", b"c"], routing_key=queue, confirm="memory")
    for message in conn.consume(queue, prefetch=3):
        message.ack()
        break

    assert [message.body for message in (conn.get(queue, timeout=2), conn.get(queue, timeout=2)) if message] == [
        b"b",
        b"c",
    ]


@pytest.mark.rule("CONSUME-11", "QUEUE-7")
def test_consumers_are_counted_while_they_are_there(conn: shmq.Connection, queue: str) -> None:
    assert conn.declare_queue(queue, max_priority=9).consumers == 0
    one, two = conn.consume(queue), conn.consume(queue)
    assert conn.queue_info(queue).consumers == 2
    with pytest.raises(shmq.PreconditionFailed):
        conn.delete_queue(queue, if_unused=True)
    one.cancel()
    assert conn.declare_queue(queue, passive=True).consumers == 1
    del two
    gc.collect()

    assert conn.queue_info(queue).consumers == 0


@pytest.mark.rule("CONSUME-11")
def test_a_consumer_is_not_counted_when_its_connection_is_closed(
    connect: Callable[[], shmq.Connection], conn: shmq.Connection, queue: str
) -> None:
    other = connect()
    kept = other.consume(queue)
    assert conn.queue_info(queue).consumers == 1
    other.close()

    assert conn.queue_info(queue).consumers == 0
    assert kept.queue_name == queue


def test_a_consumer_tag_of_another_queue_before_leaves_the_prefetch_whole(
    conn: shmq.Connection, new_queue: Callable[..., str]
) -> None:
    first, second = new_queue(), new_queue()
    for queue in (first, second):
        conn.publish(b"x", routing_key=queue, confirm="memory")
    before = conn.consume(first, consumer_tag="tag", prefetch=1)
    unacked = next(iter(before))
    conn.cancel("tag")
    consumer = conn.consume(second, consumer_tag="tag", prefetch=1)
    late = threading.Timer(scaled(2), conn.cancel, ["tag"])
    late.start()

    message = next(iter(consumer), None)

    late.cancel()
    assert message is not None
    message.ack()
    unacked.ack()


@pytest.mark.rule("CONSUME-2")
def test_a_prefetch_is_none_for_a_get_nor_is_nought_one(conn: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"%d" % number for number in range(300)], routing_key=queue, confirm="memory")
    one = conn.consume(queue, prefetch=1)
    held = next(iter(one))
    taken = [conn.get(queue, timeout=1) for _ in range(2)]
    one.cancel()
    every = list(itertools.islice(conn.consume(queue, prefetch=0), 297))

    assert [message.body for message in (*taken, *every) if message is not None] == [b"%d" % n for n in range(1, 300)]
    held.ack()


@pytest.mark.rule("SETTLE-3")
@pytest.mark.parametrize("how", ["reject", "nack"])
def test_what_is_not_to_be_requeued_is_dead_or_gone(
    conn: shmq.Connection, new_queue: Callable[..., str], how: str
) -> None:
    dead = new_queue()
    for queue in (new_queue(dead_letter_exchange="", dead_letter_routing_key=dead), new_queue()):
        conn.publish(b"x", routing_key=queue, confirm="memory")
        message = conn.get(queue, timeout=1)
        assert message is not None
        getattr(message, how)(requeue=False)
        wait_until_gone(conn, queue)

    letters = conn.get_batch(dead, no_ack=True)
    assert [letter.headers["x-death"][0]["reason"] for letter in letters] == ["rejected"]


@pytest.mark.rule("SETTLE-4", "SETTLE-5", "SETTLE-6")
def test_a_death_is_a_failure_of_what_the_dead_one_held_and_of_nothing_else(
    broker: str, conn: shmq.Connection, client: str, mode: str, queue: str
) -> None:
    conn.publish_many([b"held", b"left"], routing_key=queue, confirm="memory")
    with Dying(broker, client, mode, queue) as process:
        assert process.held == "held"
        process.kill()
    wait_until(lambda: conn.queue_info(queue).messages == 2, "both are ready", WAIT)

    first, second = (wait_for(conn, queue) for _ in range(2))
    assert (first.body, first.redelivered, first.headers) == (b"held", True, {"x-delivery-count": 1})
    assert (second.body, second.redelivered, second.headers) == (b"left", False, {})
