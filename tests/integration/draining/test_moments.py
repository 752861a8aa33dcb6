"""Draining in unlucky moments: an error of one consumer, a daemon that is away, another thread in the middle of it."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.draining import events, is_idle, new_queue, publish, readable
from support.messages import WAIT
from support.shmqd import instance


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

    monkeypatch.setattr(second, "take", lost)  # a moment that a broker gives too rarely
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
