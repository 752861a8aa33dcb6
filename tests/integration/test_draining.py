"""Waiting for all consumers of a connection at one descriptor, as event loops that are not asyncio's do."""

import itertools
import multiprocessing
import os
import select
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import WAIT
from support.shmqd import instance

if TYPE_CHECKING:
    from shmq_clients.watch import Event

FORK = multiprocessing.get_context("fork")
LATE = 0.1  # seconds: a wake-up that got lost takes a quarter
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with shmq.local() as url:
        yield url


@pytest.fixture(params=["direct", "socket", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(broker: str, mode: str) -> Iterator[Callable[[], shmq.Connection]]:
    opened: list[shmq.Connection] = []

    def one() -> shmq.Connection:
        opened.append(shmq.connect(broker, mode=mode, timeout=5))  # type: ignore[arg-type] # one of its words
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


@pytest.fixture
def conn(connect: Callable[[], shmq.Connection]) -> shmq.Connection:
    """Give a connection whose consumers are drained from the start."""
    connection = connect()
    connection.fileno()
    return connection


def new_queue(conn: shmq.Connection, **arguments: object) -> str:
    return conn.declare_queue(f"drained-{next(_numbers)}", **arguments).name  # type: ignore[arg-type] # any of them


def publish(conn: shmq.Connection, queue: str, *bodies: bytes) -> None:
    conn.publish_many(bodies, routing_key=queue, confirm="memory")


def readable(conn: shmq.Connection, seconds: float) -> bool:
    return bool(select.select([conn.fileno()], [], [], seconds)[0])


def events(conn: shmq.Connection, count: int, limit: int = 1) -> list[tuple[str, bytes]]:
    """Drain as an event loop would: only when the descriptor is readable, or the pause is over."""
    got: list[tuple[str, bytes]] = []
    deadline = time.monotonic() + scaled(WAIT)
    while len(got) < count and time.monotonic() < deadline:
        readable(conn, conn.drain_pause)
        taken = conn.drain(limit)
        assert len(taken) <= limit
        got += [(event.consumer.queue_name, event.message.body) for event in taken]
    return got


def is_idle(conn: shmq.Connection) -> bool:
    """Whether the descriptor says nothing, once all is taken."""
    for _ in range(3):
        assert conn.drain() == []
    return not readable(conn, min(0.05, conn.drain_pause))


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
    assert not kept.is_cancelled  # type: ignore[attr-defined]


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


def test_nobody_rings_a_descriptor_that_is_closed(
    connect: Callable[[], shmq.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = connect()
    conn.fileno()
    nudge = conn._paths.watch._nudge
    ringing, goes_on = threading.Event(), threading.Event()
    closed: list[OSError] = []

    def write(fd: int, _value: int) -> None:  # another thread runs in the middle of it
        ringing.set()
        goes_on.wait(scaled(WAIT))
        try:
            os.fstat(fd)
        except OSError as error:
            closed.append(error)

    monkeypatch.setattr(os, "eventfd_write", write)
    threads = [threading.Thread(target=nudge.ring), threading.Thread(target=conn.close)]
    threads[0].start()
    assert ringing.wait(scaled(WAIT))
    threads[1].start()
    threads[1].join(0.3)
    goes_on.set()
    for thread in threads:
        thread.join(scaled(WAIT))
        assert not thread.is_alive()

    assert not closed


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


@pytest.mark.parametrize("mode", ["direct"], indirect=True)
def test_a_wake_up_of_two_is_not_lost_in_one_that_has_no_room(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, other = new_queue(conn), connect()
    both = [conn.consume(queue, prefetch=1) for _ in range(2)]
    publish(other, queue, b"1")
    (event,) = conn.drain(10, timeout=scaled(WAIT))
    wait_until(lambda: is_idle(conn), "both wait")
    watch, late = conn._paths.watch, [b"2", b"3"]
    look_around = watch._look_around

    def look() -> None:  # messages that come just behind it
        look_around()
        publish(other, queue, *late)
        late.clear()

    monkeypatch.setattr(watch, "_look_at", time.monotonic() + 60)  # no look that finds it by chance
    monkeypatch.setattr(watch, "_look_around", look)
    event.message.ack()
    got = conn.drain(10)
    while len(got) < len(both) and readable(conn, scaled(1)):
        got += conn.drain(10)

    assert [event.message.body for event in got] == [b"2", b"3"]


@pytest.mark.parametrize("mode", ["direct"], indirect=True)
def test_nobody_goes_to_bells_that_are_just_being_changed(conn: shmq.Connection) -> None:
    queue = new_queue(conn)
    conn.consume(queue)
    assert conn.drain() == []
    draining = threading.Thread(target=conn.drain)

    with conn._attachments.around_bells(conn._attachments.attach(queue).queue):
        draining.start()
        draining.join(0.2)
        assert draining.is_alive()

    draining.join(scaled(WAIT))
    assert not draining.is_alive()


def test_an_error_of_one_loses_nothing_of_the_others(conn: shmq.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    queues = [new_queue(conn) for _ in range(3)]
    first, second, third = (conn.consume(queue) for queue in queues)
    for queue in queues:
        publish(conn, queue, b"1", b"2")

    def lost() -> None:
        raise shmq.ConnectionLost(path="", reason="a test")

    monkeypatch.setattr(second, "take", lost)
    got: list[tuple[str, bytes]] = []
    errors = 0
    deadline = time.monotonic() + scaled(WAIT)
    while (len(got) < 4 or not errors) and time.monotonic() < deadline:
        try:
            got += [(event.consumer.queue_name, event.message.body) for event in conn.drain(10)]
        except shmq.ConnectionLost:
            errors += 1

    assert errors
    assert sorted(got) == sorted((queue.queue_name, body) for queue in (first, third) for body in (b"1", b"2"))


def test_while_the_daemon_is_away_nobody_waits_for_its_word(tmp_path: Path) -> None:
    with (
        instance(tmp_path) as shmqd,
        shmq.connect(shmqd.url) as conn,
        shmq.connect(shmqd.url) as other,
    ):
        conn.fileno()
        plain, brokered = new_queue(conn), new_queue(conn)
        keep = [conn.consume(plain), conn.consume(brokered)]
        assert conn.drain() == []
        prior = other.consume(brokered, priority=1)
        shmqd.kill_all()
        publish(conn, plain, b"1", b"2", b"3")

        started = time.monotonic()
        assert events(conn, 3, limit=10) == [(plain, b"1"), (plain, b"2"), (plain, b"3")]
        assert time.monotonic() - started < scaled(3)
        assert [consumer.queue_name for consumer in (*keep, prior)] == [plain, brokered, brokered]


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
