"""Channels over a broker's death, in a forked child, and with many threads."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from support.adapted import LoopThread, connect_adapted
from support.deadline import scaled, wait_until
from support.messages import WAIT, wait_for
from support.shmqd import Shmqd, instance
from support.taking import publish, stays, take

FORK = multiprocessing.get_context("fork")
REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def conn(daemon: Shmqd, client: str, mode: Any) -> Iterator[shmq.Connection]:
    if client == "blocking":
        with shmq.connect(daemon.url, mode=mode) as connection:
            yield connection
        return
    loop = LoopThread()
    connection = connect_adapted(loop, daemon.url, mode=mode)
    yield connection
    connection.close()
    loop.close()


def test_over_a_brokers_death_the_window_holds_and_old_tags_are_stale_or_as_they_were(
    daemon: Shmqd, conn: shmq.Connection, mode: str
) -> None:
    queue = conn.declare_queue("q").name
    channel = conn.channel()
    channel.prefetch = 3
    taker = take(channel.consume(queue))
    publish(conn, queue, *range(10))
    wait_until(lambda: len(taker.messages) == 3, "the window is full")
    daemon.kill("broker")
    wait_until(lambda: conn.queue_info(queue).consumers == 1, "it consumes again", WAIT)

    if mode == "socket":
        wait_until(lambda: len(taker.messages) == 6, "delivered again", WAIT)
        assert stays(lambda: len(taker.messages) == 6)
        assert [message.body for message in taker.messages[3:]] == [b"0", b"1", b"2"]
        for tag in (1, 2, 3):
            with pytest.raises(shmq.StaleDelivery):
                channel.ack(tag)
        with pytest.raises(shmq.AlreadySettled):
            channel.ack(1)
        assert channel.unacked == 3
        channel.ack(6, multiple=True)
        wait_until(lambda: len(taker.messages) == 9, "three more", WAIT)
    else:
        assert stays(lambda: len(taker.messages) == 3)
        channel.ack(2, multiple=True)
        wait_until(lambda: len(taker.messages) == 5, "two more", WAIT)
    assert stays(lambda: channel.unacked == 3)
    taker.stop()


def test_replies_come_over_a_brokers_death(daemon: Shmqd, conn: shmq.Connection) -> None:
    queue = conn.declare_queue("q").name
    channel = conn.channel()
    taker = take(channel.consume(REPLY_TO, no_ack=True))
    channel.publish(b"x", routing_key=queue, reply_to=REPLY_TO, confirm="memory")
    name = wait_for(conn, queue).reply_to or ""
    daemon.kill("broker")
    wait_until(lambda: conn.status().uptime_ns > 0, "it is back", WAIT)

    with daemon.connect() as other:
        wait_until(lambda: other.status().totals["queues"] == 2, "its queue is there", WAIT)
        other.publish(b"reply", routing_key=name, confirm="memory", mandatory=True)
    wait_until(lambda: [message.body for message in taker.messages] == [b"reply"], "it comes", WAIT)
    channel.publish(b"y", routing_key=queue, reply_to=REPLY_TO, confirm="memory")
    again = wait_for(conn, queue)
    while again.body != b"y":
        again = wait_for(conn, queue)
    assert again.reply_to == name
    taker.stop()


@pytest.mark.parametrize("kind", ["direct", "socket"])
def test_in_a_forked_child_a_channel_is_dead_and_the_parents_goes_on(daemon: Shmqd, kind: Any) -> None:
    with shmq.connect(daemon.url, mode=kind) as conn:
        queue = conn.declare_queue("q").name
        channel = conn.channel()
        channel.prefetch = 2
        consumer = channel.consume(queue)
        publish(conn, queue, *range(4))
        assert next(consumer).delivery_tag == 1

        def child() -> None:
            calls: list[Callable[[], object]] = [lambda: channel.ack(1), lambda: channel.get(queue)]
            calls += [channel.recover, channel.close]
            refused = 0
            for call in calls:
                try:
                    call()
                except shmq.ForkedHandle:
                    refused += 1
            os._exit(0 if refused == len(calls) else 1)

        process = FORK.Process(target=child)
        process.start()
        process.join(scaled(WAIT))

        assert process.exitcode == 0
        assert next(consumer).delivery_tag == 2
        channel.ack(2, multiple=True)
        assert [next(consumer).body for _ in range(2)] == [b"2", b"3"]


@pytest.mark.parametrize("kind", ["direct", "socket"])
def test_many_threads_take_and_settle_and_the_window_holds(daemon: Shmqd, kind: Any) -> None:
    with shmq.connect(daemon.url, mode=kind) as conn:
        queues = [conn.declare_queue(f"q{number}").name for number in range(4)]
        channel = conn.channel()
        channel.prefetch = 7
        bodies: list[bytes] = []
        most: list[int] = []
        lock = threading.Lock()

        def consume(consumer: Any) -> None:
            for message in consumer:
                with lock:
                    most.append(channel.unacked)
                    bodies.append(message.queue_name.encode() + message.body)
                channel.ack(message.delivery_tag)

        consumers = [channel.consume(queue) for queue in queues]
        threads = [threading.Thread(target=consume, args=(consumer,)) for consumer in consumers]
        for thread in threads:
            thread.start()
        for queue in queues:
            publish(conn, queue, *range(500))
        wait_until(lambda: len(bodies) == 2000, "all came", 60.0)
        for consumer in consumers:
            consumer.cancel()
        for thread in threads:
            thread.join(scaled(WAIT))

        assert len(set(bodies)) == 2000
        assert max(most) <= 7
        conn.wait_for_confirms()
        assert channel.unacked == 0
        assert [conn.queue_info(queue).unacked for queue in queues] == [0, 0, 0, 0]
