"""How long a queue may be, and what happens beyond: x-max-length, x-max-length-bytes, x-overflow, x-overflow-victim."""

import threading
from collections.abc import Callable

import pytest

import shmq
from shmq_clients.window import STEP_MESSAGES
from support.deadline import wait_until
from support.messages import QueueMaker, deaths, ready_bodies, unique, wait_for

Connect = Callable[[], shmq.Connection]


def numbers(*values: int) -> list[bytes]:
    return [b"%d" % value for value in values]


def publish(conn: shmq.Connection, queue: str, *values: int, priority: int = 0) -> None:
    for body in numbers(*values):
        conn.publish(body, routing_key=queue, priority=priority, confirm="memory")


@pytest.mark.rule("LENGTH-1", "LENGTH-2")
def test_beyond_its_length_a_queue_drops_its_head(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=3)
    publish(conn, queue, *range(10))

    assert conn.queue_info(queue).messages == 3
    assert ready_bodies(conn, queue) == numbers(7, 8, 9)


@pytest.mark.rule("LENGTH-1", "LENGTH-2")
def test_beyond_its_bytes_a_queue_drops_as_many_heads_as_it_takes(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length_bytes=1000)
    for size in (300, 300, 300, 700):
        conn.publish(bytes(size), routing_key=queue, confirm="memory")

    assert [len(body) for body in ready_bodies(conn, queue)] == [300, 700]


@pytest.mark.rule("LENGTH-2")
def test_what_can_never_fit_is_dropped_with_all_before_it(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length_bytes=1000)
    for size in (300, 2000):
        conn.publish(bytes(size), routing_key=queue, confirm="memory")

    assert ready_bodies(conn, queue) == []


@pytest.mark.rule("LENGTH-1")
def test_only_ready_messages_count(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=2)
    publish(conn, queue, 1, 2)
    held = [wait_for(conn, queue), wait_for(conn, queue)]
    publish(conn, queue, 3, 4)

    assert conn.queue_info(queue).messages == 2
    for message in held:
        message.ack()
    assert ready_bodies(conn, queue) == numbers(3, 4)


@pytest.mark.rule("LENGTH-5")
def test_who_comes_back_is_the_head(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=2)
    publish(conn, queue, 1)
    held = wait_for(conn, queue)
    publish(conn, queue, 2, 3)
    held.nack()
    conn.wait_for_confirms()

    assert ready_bodies(conn, queue) == numbers(2, 3)


@pytest.mark.rule("LENGTH-4")
def test_the_least_urgent_are_dropped_first(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=3, max_priority=9)
    publish(conn, queue, 1, 2, priority=5)
    publish(conn, queue, 3, 4, priority=1)
    publish(conn, queue, 5, priority=9)

    assert ready_bodies(conn, queue) == numbers(5, 1, 2)


@pytest.mark.rule("LENGTH-4")
def test_an_urgent_victim_as_in_rabbitmq(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=3, max_priority=9, overflow_victim="highest")
    publish(conn, queue, 1, 2, priority=5)
    publish(conn, queue, 3, 4, priority=1)

    assert ready_bodies(conn, queue) == numbers(2, 3, 4)


@pytest.mark.rule("DEATH-1", "LENGTH-2")
def test_the_dropped_are_dead_letters_of_reason_maxlen(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(max_length=1, dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(conn, queue, 1, 2)

    message = wait_for(conn, dead)
    assert message.body == b"1"
    assert deaths(message) == [(queue, "maxlen", 1)]
    assert ready_bodies(conn, queue) == numbers(2)


@pytest.mark.rule("LENGTH-2")
def test_many_at_once_leave_the_last_ones(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=100)
    conn.publish_many(numbers(*range(5000)), routing_key=queue, confirm="memory")

    assert ready_bodies(conn, queue) == numbers(*range(4900, 5000))


def test_without_dead_letters_a_queue_drops_faster_than_its_capacity_fills(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    queue = new_queue(max_length=5, capacity_messages=10)
    conn.publish_many(numbers(*range(10_000)), routing_key=queue, confirm="memory", timeout=1)

    assert ready_bodies(conn, queue) == numbers(*range(9995, 10_000))


@pytest.mark.rule("LENGTH-3")
@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_queue_may_refuse_instead(conn: shmq.Connection, new_queue: QueueMaker, overflow: str) -> None:
    queue = new_queue(max_length=2, overflow=overflow)
    publish(conn, queue, 1, 2)

    with pytest.raises(shmq.PublishRejected) as refusal:
        publish(conn, queue, 3)
    assert list(refusal.value.queues) == [queue]
    assert ready_bodies(conn, queue) == numbers(1, 2)
    publish(conn, queue, 4)
    assert ready_bodies(conn, queue) == numbers(4)


@pytest.mark.rule("LENGTH-3")
def test_a_queue_may_refuse_for_its_bytes(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length_bytes=1000, overflow="reject-publish")
    conn.publish(bytes(600), routing_key=queue, confirm="memory")

    with pytest.raises(shmq.PublishRejected):
        conn.publish(bytes(600), routing_key=queue, confirm="memory")
    conn.publish(bytes(400), routing_key=queue, confirm="memory")


@pytest.mark.rule("LENGTH-3", "PUBLISH-2")
def test_a_refusal_is_told_to_who_does_not_wait_for_it(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=0, overflow="reject-publish")

    def publish_and_ask() -> None:
        conn.publish(b"x", routing_key=queue)
        conn.wait_for_confirms()

    with pytest.raises(shmq.PublishRejected):
        publish_and_ask()


@pytest.mark.rule("LENGTH-3", "PUBLISH-2")
@pytest.mark.parametrize("before", [STEP_MESSAGES - 2, STEP_MESSAGES - 1, STEP_MESSAGES])
def test_a_refusal_behind_many_that_were_sent_is_told(
    conn: shmq.Connection, new_queue: QueueMaker, before: int
) -> None:
    queue, full = new_queue(), new_queue(max_length=0, overflow="reject-publish")

    def publish_and_ask() -> None:
        for _ in range(before):
            conn.publish(b"x", routing_key=queue)
        conn.publish(b"x", routing_key=full)
        conn.wait_for_confirms()

    with pytest.raises(shmq.PublishRejected):
        publish_and_ask()
    assert conn.queue_info(queue).messages == before


@pytest.mark.rule("LENGTH-3")
def test_what_is_refused_may_be_a_dead_letter_all_the_same(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(
        max_length=1, overflow="reject-publish-dlx", dead_letter_exchange="", dead_letter_routing_key=dead
    )
    publish(conn, queue, 1)
    with pytest.raises(shmq.PublishRejected):
        publish(conn, queue, 2)

    message = wait_for(conn, dead)
    assert message.body == b"2"
    assert deaths(message) == [(queue, "maxlen", 1)]
    assert conn.get(dead, timeout=0.2) is None
    assert ready_bodies(conn, queue) == numbers(1)


@pytest.mark.rule("LENGTH-3", "PUBLISH-5")
def test_of_many_the_first_are_published_and_the_refused_one_dies_once(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    dead = new_queue()
    queue = new_queue(
        max_length=3, overflow="reject-publish-dlx", dead_letter_exchange="", dead_letter_routing_key=dead
    )
    with pytest.raises(shmq.PublishRejected) as refusal:
        conn.publish_many(numbers(1, 2, 3, 4, 5), routing_key=queue, confirm="memory")

    assert refusal.value.published == 3
    assert "3 of 5" in str(refusal.value)
    assert wait_for(conn, dead).body == b"4"
    assert conn.get(dead, timeout=0.2) is None
    assert ready_bodies(conn, queue) == numbers(1, 2, 3)


@pytest.mark.rule("PUBLISH-1")
def test_the_other_queues_of_a_refused_publish_have_it(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    key = unique("key")
    short, long = new_queue(max_length=1, overflow="reject-publish"), new_queue()
    last = new_queue(max_length=1, overflow="reject-publish")
    for queue in (short, long, last):
        conn.bind_queue(queue, "amq.direct", key)
    publish(conn, short, 1)
    publish(conn, last, 1)

    with pytest.raises(shmq.PublishRejected) as refusal:
        conn.publish(b"2", exchange="amq.direct", routing_key=key, confirm="memory")
    assert sorted(refusal.value.queues) == sorted([short, last])
    assert ready_bodies(conn, long) == numbers(2)
    assert ready_bodies(conn, short) == numbers(1)


@pytest.mark.rule("LENGTH-3")
def test_a_loan_is_refused_like_a_publish(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=1, overflow="reject-publish")
    publish(conn, queue, 1)

    with pytest.raises(shmq.PublishRejected), conn.loan(100, routing_key=queue, confirm="memory") as buffer:
        buffer[:] = bytes(100)
    assert ready_bodies(conn, queue) == numbers(1)


@pytest.mark.rule("LENGTH-3")
def test_who_publishes_at_the_same_time_never_makes_it_too_long(
    conn: shmq.Connection, connect: Connect, new_queue: QueueMaker
) -> None:
    queue = new_queue(max_length=50, overflow="reject-publish")
    refused = [0] * 4

    def work(place: int, mine: shmq.Connection) -> None:
        for _ in range(100):
            try:
                mine.publish(b"x", routing_key=queue, confirm="memory")
            except shmq.PublishRejected:
                refused[place] += 1

    threads = [threading.Thread(target=work, args=(place, connect())) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert conn.queue_info(queue).messages == 50
    assert sum(refused) == 350


@pytest.mark.rule("DELAY-4")
def test_what_is_delayed_counts_when_it_is_due(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=2)
    for body in numbers(1, 2, 3):
        conn.publish(body, routing_key=queue, delay=0.1, confirm="memory")
    wait_until(lambda: not conn.queue_info(queue).totals["delayed"], "all are due")

    assert ready_bodies(conn, queue) == numbers(2, 3)


@pytest.mark.rule("PUBLISH-7")
def test_without_a_length_the_capacity_blocks(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(capacity_messages=2, overflow="drop-head")
    publish(conn, queue, 1, 2)

    with pytest.raises(shmq.QueueFull):
        conn.publish(b"3", routing_key=queue, confirm="memory", timeout=0.1)
    assert ready_bodies(conn, queue) == numbers(1, 2)
