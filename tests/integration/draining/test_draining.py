"""Waiting for all consumers of a connection at one descriptor, as event loops that are not asyncio's do."""

import multiprocessing
import os
import select
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.draining import events, is_idle, new_queue, publish, readable
from support.messages import WAIT
from support.shmqd import instance

if TYPE_CHECKING:
    from shmq_clients.watch import Event

FORK = multiprocessing.get_context("fork")
LATE = 0.1  # seconds: a wake-up that got lost takes a quarter


def test_one_event_at_a_time_and_what_is_left_keeps_the_descriptor_readable(conn: shmq.Connection) -> None:
    queue = new_queue(conn)
    publish(conn, queue, b"1", b"2", b"3")
    conn.channel().consume(queue)
    got = []
    for _ in range(3):
        assert readable(conn, scaled(WAIT))
        got += events(conn, 1)

    assert got == [(queue, b"1"), (queue, b"2"), (queue, b"3")]
    wait_until(lambda: is_idle(conn), "nothing is left")


def test_several_events_at_a_time(conn: shmq.Connection) -> None:
    queue = new_queue(conn)
    publish(conn, queue, *(b"%d" % number for number in range(10)))
    conn.consume(queue)

    assert [body for _, body in events(conn, 10, limit=4)] == [b"%d" % number for number in range(10)]
    with pytest.raises(shmq.InvalidArgument):
        conn.drain(0)


def test_it_becomes_readable_when_another_publishes(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection]
) -> None:
    queue, other = new_queue(conn), connect()
    conn.channel().consume(queue)
    wait_until(lambda: is_idle(conn), "it waits")

    delays = []
    for number in range(20):
        publish(other, queue, b"%d" % number)
        start = time.monotonic()
        assert readable(conn, scaled(WAIT))
        delays.append(time.monotonic() - start)
        assert events(conn, 1) == [(queue, b"%d" % number)]
        wait_until(lambda: is_idle(conn), "it waits")

    assert statistics.median(delays) < scaled(LATE)


def test_a_drain_may_wait(conn: shmq.Connection, connect: Callable[[], shmq.Connection]) -> None:
    queue, other = new_queue(conn), connect()
    conn.consume(queue)
    start = time.monotonic()
    assert conn.drain(timeout=0.4) == []
    assert 0.3 < time.monotonic() - start < scaled(2)
    timer = threading.Timer(0.3, lambda: publish(other, queue, b"x"))
    timer.start()

    (event,) = conn.drain(timeout=scaled(WAIT))

    assert event.message.body == b"x"
    assert time.monotonic() - start < scaled(WAIT)
    timer.join()


def test_consumers_take_turns_in_each_queue_by_priority(conn: shmq.Connection, mode: str) -> None:
    queues = [new_queue(conn, max_priority=1) for _ in range(3)]
    for queue in queues:
        conn.publish(b"low", routing_key=queue, priority=0, confirm="memory")
        conn.publish(b"high", routing_key=queue, priority=1, confirm="memory")
    channel = conn.channel()
    for queue in queues:
        channel.consume(queue)
    if mode == "socket":
        wait_until(lambda: all(conn.queue_info(queue).unacked == 2 for queue in queues), "all are pushed")

    got = events(conn, 6)

    assert sorted(got[:3]) == [(queue, b"high") for queue in queues]
    assert sorted(got[3:]) == [(queue, b"low") for queue in queues]


@pytest.mark.parametrize("windowed", [True, False])
def test_a_full_window_is_idle_and_an_ack_makes_it_readable(conn: shmq.Connection, *, windowed: bool) -> None:
    queue = new_queue(conn)
    channel = conn.channel()
    channel.prefetch = 2 if windowed else 0
    channel.consume(queue, prefetch=0 if windowed else 2)
    publish(conn, queue, *(b"%d" % number for number in range(6)))
    assert len(events(conn, 2)) == 2
    wait_until(lambda: is_idle(conn), "it waits for acks")

    for tag in (1, 2, 3):
        channel.ack(tag)
        assert readable(conn, scaled(WAIT))
        assert events(conn, 1) == [(queue, b"%d" % (tag + 1))]
        wait_until(lambda: is_idle(conn), "it waits for acks")
    if windowed:
        channel.prefetch = 3
        assert events(conn, 1) == [(queue, b"5")]


def test_who_has_no_room_keeps_no_wake_up_from_others(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection]
) -> None:
    queue, other = new_queue(conn), connect()
    channel = conn.channel()
    channel.prefetch = 1
    channel.consume(queue)
    publish(conn, queue, b"mine")
    assert events(conn, 1) == [(queue, b"mine")]
    wait_until(lambda: is_idle(conn), "it is full")

    delays = []
    for number in range(20):
        timer = threading.Timer(0.02, lambda body: publish(conn, queue, body), [b"%d" % number])
        timer.start()
        start = time.monotonic()
        message = other.get(queue, timeout=scaled(WAIT))
        assert message is not None
        delays.append(time.monotonic() - start)
        message.ack()
        timer.join()

    assert statistics.median(delays) < scaled(LATE)


def test_a_deleted_queue_is_an_event_and_the_others_go_on(conn: shmq.Connection) -> None:
    first, second = new_queue(conn), new_queue(conn)
    channel = conn.channel()
    gone = channel.consume(first, consumer_tag="gone")
    channel.consume(second)
    wait_until(lambda: is_idle(conn), "it waits")

    conn.delete_queue(first)
    found: list[Event] = []
    deadline = time.monotonic() + scaled(WAIT)
    while not found and time.monotonic() < deadline:
        readable(conn, conn.drain_pause)
        found = conn.drain()

    (event,) = found
    assert (event.consumer, event.message) == (gone, None)
    assert event.consumer.consumer_tag == "gone"
    assert isinstance(event.error, shmq.NotFound)
    publish(conn, second, b"x")
    assert events(conn, 1) == [(second, b"x")]
    channel.consume(second, consumer_tag="gone")


def test_a_cancelled_consumer_gives_no_more_and_its_queue_is_others(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection]
) -> None:
    queue, other = new_queue(conn), connect()
    channel = conn.channel()
    channel.consume(queue, consumer_tag="one")
    wait_until(lambda: is_idle(conn), "it waits")

    channel.cancel("one")
    publish(other, queue, b"x")

    assert conn.drain(timeout=0.3) == []
    message = other.get(queue, timeout=scaled(WAIT))
    assert message is not None
    message.ack()


def test_consumers_from_before_are_drained_too(connect: Callable[[], shmq.Connection]) -> None:
    conn = connect()
    queue = new_queue(conn)
    kept = conn.channel().consume(queue)
    publish(conn, queue, b"x")

    assert events(conn, 1) == [(queue, b"x")]
    assert not kept.is_cancelled  # type: ignore[attr-defined] # of the consumers that drain watches


def test_without_consumers_there_is_nothing(conn: shmq.Connection) -> None:
    assert conn.drain() == []
    assert conn.drain(timeout=0.05) == []
    assert conn.drain_pause <= 0.25
    conn.close()
    with pytest.raises(shmq.ConnectionClosed):
        conn.drain()
    with pytest.raises(shmq.ConnectionClosed):
        conn.fileno()


def test_two_that_drain_share_a_queue_and_nothing_is_late(connect: Callable[[], shmq.Connection]) -> None:
    one, other, publisher = connect(), connect(), connect()
    queue = new_queue(publisher)
    for conn in (one, other):
        conn.fileno()
        conn.channel().consume(queue)
        wait_until(lambda conn=conn: is_idle(conn), "it waits")  # type: ignore[misc] # binds this turn's
    got: list[bytes] = []
    delays = []
    for number in range(50):
        publish(publisher, queue, b"%d" % number)
        ready, _, _ = select.select([one, other], [], [], scaled(WAIT))
        assert ready
        start = time.monotonic()
        while len(got) == number and time.monotonic() < start + scaled(WAIT):
            for conn in (one, other):
                got += [event.message.body for event in conn.drain()]
        delays.append(time.monotonic() - start)

    assert got == [b"%d" % number for number in range(50)]
    assert statistics.median(delays) < scaled(LATE)


def test_in_a_forked_child_it_is_dead_and_the_parent_goes_on(conn: shmq.Connection) -> None:
    queue = new_queue(conn)
    conn.channel().consume(queue)
    wait_until(lambda: is_idle(conn), "it waits")

    def child() -> None:
        try:
            conn.drain()
        except shmq.ForkedHandle:
            os._exit(0)
        os._exit(1)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    publish(conn, queue, b"x")

    assert process.exitcode == 0
    assert events(conn, 1) == [(queue, b"x")]


def test_an_idle_one_does_not_spin(conn: shmq.Connection) -> None:
    queues = [new_queue(conn) for _ in range(3)]
    channel = conn.channel()
    for queue in queues:
        channel.consume(queue)
    wait_until(lambda: is_idle(conn), "it waits")
    calls = 0
    end = time.monotonic() + 1
    while time.monotonic() < end:
        readable(conn, conn.drain_pause)
        assert conn.drain() == []
        calls += 1

    assert calls < 20


@pytest.mark.parametrize("kind", ["direct", "socket", "auto"])
def test_it_goes_on_when_the_broker_was_killed(tmp_path: Path, kind: str) -> None:
    with (
        instance(tmp_path) as shmqd,
        shmq.connect(shmqd.url, mode=kind) as conn,  # type: ignore[arg-type] # one of its words
        shmq.connect(shmqd.url) as other,
    ):
        conn.fileno()
        queue = new_queue(conn)
        channel = conn.channel()
        channel.prefetch = 3
        channel.consume(queue)
        publish(other, queue, b"before")
        assert events(conn, 1) == [(queue, b"before")]
        shmqd.kill("broker")
        publish(other, queue, b"after")
        deadline, got = time.monotonic() + scaled(WAIT), []
        while b"after" not in got and time.monotonic() < deadline:
            readable(conn, conn.drain_pause)
            got += [event.message.body for event in conn.drain()]
        assert b"after" in got
        if kind == "socket":
            with pytest.raises(shmq.StaleDelivery):
                channel.ack(1)
        else:
            channel.ack(1)
        channel.ack(0, multiple=True)
        for number in range(10):
            publish(other, queue, b"%d" % number)
            assert events(conn, 1) == [(queue, b"%d" % number)]
            channel.ack(0, multiple=True)


def test_a_consumer_over_several_queues_is_one_in_events(conn: shmq.Connection) -> None:
    queues = [new_queue(conn) for _ in range(3)]
    consumer = conn.channel().consume(queues, prefetch=2)
    for queue in queues:
        publish(conn, queue, b"x")
    got: list[Event] = []
    deadline = time.monotonic() + scaled(WAIT)
    while len(got) < 3 and time.monotonic() < deadline:
        readable(conn, conn.drain_pause)
        for event in conn.drain(2):
            got.append(event)
            event.message.ack()
    assert {event.message.queue_name for event in got} == set(queues)
    conn.delete_queue(queues[0])
    ended: list[Event] = []
    while not ended and time.monotonic() < deadline:
        readable(conn, conn.drain_pause)
        ended = conn.drain()

    assert [event.consumer for event in got + ended] == [consumer] * 4
    assert isinstance(ended[0].error, shmq.NotFound)
    publish(conn, queues[2], b"y")
    assert [event.message.body for event in conn.drain(timeout=scaled(WAIT))] == [b"y"]
