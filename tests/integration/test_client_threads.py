"""One connection, many threads: two publishers, acks from others, requests in between."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until

PUBLISHERS, CONSUMERS, MESSAGES = 4, 4, 2_000


def run_all(works: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(60))
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_eight_threads_share_a_connection(mode: Any) -> None:
    got: list[bytes] = []
    total = PUBLISHERS * MESSAGES
    with shmq.local() as url, shmq.connect(url, mode=mode) as conn:
        conn.declare_queue("q", capacity_messages=1_000)

        def publisher(number: int) -> Callable[[], None]:
            def work() -> None:
                for count in range(MESSAGES):
                    conn.publish(b"%d %d" % (number, count), routing_key="q", timeout=scaled(30))
                    if count % 500 == 0:
                        conn.queue_info("q")

            return work

        def consume() -> None:
            while len(got) < total:
                for message in conn.get_batch("q", max_messages=50, max_wait=0.1):
                    got.append(message.body)
                    message.ack()

        run_all([publisher(number) for number in range(PUBLISHERS)] + [consume] * CONSUMERS)

        conn.wait_for_confirms()
        info = conn.queue_info("q")
        assert (info.messages, info.unacked) == (0, 0)
    assert sorted(got) == sorted(b"%d %d" % (n, c) for n in range(PUBLISHERS) for c in range(MESSAGES))


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_acks_come_from_another_thread(mode: Any) -> None:
    handed: list[shmq.Message] = []
    with shmq.local() as url, shmq.connect(url, mode=mode) as conn:
        conn.declare_queue("q")
        conn.publish_many([b"x"] * MESSAGES, routing_key="q", confirm="memory")

        def consume() -> None:
            for count, message in enumerate(conn.consume("q", prefetch=10), start=1):
                handed.append(message)
                if count == MESSAGES:
                    return

        def ack() -> None:
            acked = 0
            while acked < MESSAGES:
                for message in handed[acked:]:
                    message.ack()
                    acked += 1

        run_all([consume, ack])

        conn.wait_for_confirms()
        info = conn.queue_info("q")
        assert (info.messages, info.unacked) == (0, 0)


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_what_threads_take_while_their_connection_is_closed_goes_back_to_its_queue(mode: Any) -> None:
    with shmq.local() as url, shmq.connect(url, mode="socket") as other:
        other.declare_queue("q")
        other.publish_many([b"%d" % number for number in range(100)], routing_key="q", confirm="memory")
        for _ in range(10):
            conn = shmq.connect(url, mode=mode)

            def take(conn: shmq.Connection = conn) -> None:
                with contextlib.suppress(shmq.ConnectionClosed):
                    while True:
                        with contextlib.suppress(shmq.DetachedQueue):
                            conn.get("q", timeout=0.01)

            def close(conn: shmq.Connection = conn) -> None:
                time.sleep(0.02)  # until the others wait
                conn.close()

            run_all([take, take, take, close])

        wait_until(lambda: other.queue_info("q").messages == 100, "all are there again")
        assert other.queue_info("q").unacked == 0


def fill(conn: shmq.Connection) -> int:
    for count in itertools.count():
        try:
            conn.publish(b"", routing_key="q", timeout=0, confirm="memory")
        except shmq.QueueFull:
            return count
    raise AssertionError


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_large_publishes_that_wait_for_room_do_not_hold_up_the_ack_that_makes_it(mode: Any) -> None:
    sizes = [20 << 20, 10 << 20, 10 << 20, 100]
    acked: list[float] = []

    def publisher(size: int) -> Callable[[], None]:
        return lambda: conn.publish(bytes(size), routing_key="q", timeout=scaled(20), confirm="memory")

    def take(pause: float) -> float:
        message = conn.get("q", timeout=scaled(20))
        assert message is not None
        never.wait(pause)
        started = time.monotonic()
        message.ack()
        return time.monotonic() - started

    def consume() -> None:
        acked.append(take(1.0))  # in this second all who publish find no room
        acked.extend(take(0) for _ in range(full + len(sizes) - 1))

    never = threading.Event()
    with shmq.local() as url, shmq.connect(url, mode=mode) as conn:
        conn.declare_queue("q", capacity_messages=1)
        full = fill(conn)
        run_all([publisher(size) for size in sizes] + [consume])

        assert max(acked) < scaled(5)


def test_a_large_publish_behind_another_ends_at_its_own_deadline() -> None:
    with shmq.local() as url, shmq.connect(url, mode="socket") as conn:
        conn.declare_queue("q", capacity_messages=1)
        fill(conn)

        def publish(timeout: float) -> float:
            started = time.monotonic()
            with pytest.raises(shmq.QueueFull) as caught:
                conn.publish(bytes(10 << 20), routing_key="q", timeout=timeout, confirm="memory")
            assert caught.value.timeout == timeout
            assert f"{timeout:g} s" in str(caught.value)
            return time.monotonic() - started

        times: list[float] = []
        run_all([lambda: times.append(publish(1.0))] * 3)
        assert all(1.0 <= took < 1 + scaled(2) for took in times)
