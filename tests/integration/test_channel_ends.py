"""Channels in unlucky moments: another thread is faster than a frame, a session is lost.

Invariants: what is closed leaves nothing that the next one of its number could meet; what is taken back is settled here
too.
"""

import asyncio
import sys
import threading
from typing import Any

import pytest

import shmq
from shmq.wire.frames import Counted
from support.deadline import scaled, wait_until
from support.taking import publish, take

THREADS, CHANNELS = 8, 200


@pytest.fixture
def queue(conn: shmq.Connection) -> str:
    return conn.declare_queue("", exclusive=True).name


def cut(conn: shmq.Connection) -> None:
    """Lose the session; it may be resumed."""
    link = conn._link
    while (session := link.session) is not None:
        session.stream.close()
        link.lose(session, shmq.ConnectionLost(path="", reason="a test"))


def test_a_number_is_free_when_the_broker_has_heard_of_the_end(
    conn: shmq.Connection, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = conn.channel()
    opened: list[Any] = []
    ask = conn._link.ask

    def asked(make: Any, expect: Any, **keywords: Any) -> Any:
        if expect is Counted and not opened:  # another thread is faster than the frame
            opened.append(conn.channel())
            opened.append(opened[0].consume(queue))
        return ask(make, expect, **keywords)

    monkeypatch.setattr(conn._link, "ask", asked)  # the real one, in that order
    closing.close()

    assert opened[0].number != closing.number
    wait_until(lambda: conn.queue_info(queue).consumers == 1, "the broker has its consumer")
    with conn.channel() as next_one:
        assert next_one.number == closing.number


def test_a_number_is_free_when_the_broker_has_heard_of_the_end_of_tasks_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with await shmq.connect_async(url, mode="socket") as conn:
            queue = (await conn.declare_queue("", exclusive=True)).name
            closing = conn.channel()
            opened: list[Any] = []
            asked = conn._link.asked

            async def ask(make: Any, expect: Any, **keywords: Any) -> Any:
                if expect is Counted and not opened:  # another task is faster than the frame
                    opened.append(conn.channel())
                    opened.append(await opened[0].consume(queue))
                return await asked(make, expect, **keywords)

            monkeypatch.setattr(conn._link, "asked", ask)  # the real one, in that order
            await closing.close()

            assert opened[0].number != closing.number
            assert (await conn.queue_info(queue)).consumers == 1

    asyncio.run(main())


def test_threads_open_channels_of_different_numbers(conn: shmq.Connection) -> None:
    opened: list[int] = []
    start = threading.Barrier(THREADS)

    def open_many() -> None:
        start.wait(scaled(10))
        opened.extend(conn.channel().number for _ in range(CHANNELS))

    threads = [threading.Thread(target=open_many) for _ in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(60))
    finally:
        sys.setswitchinterval(interval)

    assert sorted(opened) == list(range(1, THREADS * CHANNELS + 1))


def test_channels_that_are_closed_leave_nothing(conn: shmq.Connection) -> None:
    conn.channel().close()
    told = len(conn._link.on_welcome)
    for _ in range(10):
        conn.channel().close()

    assert len(conn._link.on_welcome) == told
    assert not conn._socket.ledgers


@pytest.mark.parametrize("mode", ["socket"], indirect=True)
def test_what_is_handed_out_while_all_is_taken_back_is_taken_back_too(
    conn: shmq.Connection, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(conn, queue, *range(3))
    channel = conn.channel()
    consumer = channel.consume(queue)
    taken = [next(consumer), next(consumer)]
    ask = conn._link.ask

    def asked(make: Any, expect: Any, **keywords: Any) -> Any:
        if expect is Counted:
            taken.append(next(consumer))  # by another thread
        return ask(make, expect, **keywords)

    monkeypatch.setattr(conn._link, "ask", asked)  # the real one, in that order
    channel.recover()

    assert channel.unacked == 0
    with pytest.raises(shmq.AlreadySettled):
        taken[-1].ack()
    assert [next(consumer).body for _ in range(3)] == [b"0", b"1", b"2"]


def test_the_window_of_a_channel_that_was_closed_without_a_session_holds_for_nobody(
    conn: shmq.Connection, queue: str
) -> None:
    closing = conn.channel()
    closing.prefetch = 2
    conn.queue_info(queue)
    cut(conn)
    closing.close()
    publish(conn, queue, *range(5))
    channel = conn.channel()
    assert channel.number == closing.number
    taker = take(channel.consume(queue))

    wait_until(lambda: len(taker.messages) == 5, "all is delivered")
    taker.stop()


def test_a_window_that_nobody_was_told_of_ends_with_its_channel(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, *range(5))
    closing = conn.channel()
    cut(conn)
    conn._link._retry_at = float("inf")  # the daemon is away
    closing.prefetch = 2
    closing.close()
    conn._link._retry_at = 0.0
    channel = conn.channel()
    assert channel.number == closing.number
    taker = take(channel.consume(queue))

    wait_until(lambda: len(taker.messages) == 5, "all is delivered")
    taker.stop()
