"""Eight threads on one connection: publishing, taking, acking what others took, waiting for each other, in both modes.

Invariant: each message is handed out and acked once, one publisher's messages come in its order, and no thread's wait
keeps another from what would end it.
"""

import functools
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import shmq
from support.deadline import scaled

THREADS, MESSAGES = 8, 500
PATIENCE = scaled(60)
SOON = 1.0  # seconds for what another thread makes possible
STOP = None


@pytest.fixture
def jobs(conn: shmq.Connection) -> str:
    """A queue that eight threads fill and empty many times over."""
    return conn.declare_queue("", exclusive=True, capacity_messages=64, max_priority=9).name


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3 * THREADS) as pool:
        yield pool


def results(futures: list[Future[Any]]) -> list[Any]:
    return [future.result(PATIENCE) for future in futures]


def is_empty(conn: shmq.Connection, name: str) -> bool:
    conn.wait_for_confirms()
    info = conn.queue_info(name)
    return (info.messages, info.unacked) == (0, 0)


def test_each_publishes_takes_and_acks_what_its_neighbour_took(
    conn: shmq.Connection, jobs: str, threads: ThreadPoolExecutor
) -> None:
    hands: list[queue.SimpleQueue[shmq.Message | None]] = [queue.SimpleQueue() for _ in range(THREADS)]
    taken: Counter[bytes] = Counter()

    def publish(me: int) -> None:
        for number in range(MESSAGES):
            conn.publish(b"%d %d" % (me, number), routing_key=jobs, priority=number % 10, timeout=PATIENCE)

    def take(me: int) -> None:
        while (message := conn.get(jobs, timeout=PATIENCE)) is not None and message.body:
            taken[message.body] += 1
            hands[(me + 1) % THREADS].put(message)
        assert message is not None
        message.ack()
        hands[(me + 1) % THREADS].put(STOP)

    def ack(me: int) -> None:
        while (message := hands[me].get(timeout=PATIENCE)) is not STOP:
            message.ack()

    works = [threads.submit(work, me) for me in range(THREADS) for work in (take, ack)]
    results([threads.submit(publish, me) for me in range(THREADS)])
    conn.publish_many([b""] * THREADS, routing_key=jobs, timeout=PATIENCE)
    results(works)

    assert taken == Counter(b"%d %d" % (me, number) for me in range(THREADS) for number in range(MESSAGES))
    assert is_empty(conn, jobs)


def test_two_publishers_keep_their_order(conn: shmq.Connection, jobs: str, threads: ThreadPoolExecutor) -> None:
    def one_by_one() -> None:
        for number in range(MESSAGES):
            conn.publish(b"a %d" % number, routing_key=jobs, timeout=PATIENCE)

    def in_batches() -> None:
        for number in range(0, MESSAGES, 20):
            bodies = [b"b %d" % n for n in range(number, number + 20)]
            conn.publish_many(bodies, routing_key=jobs, timeout=PATIENCE)

    works = [threads.submit(one_by_one), threads.submit(in_batches)]
    came: dict[bytes, list[int]] = {b"a": [], b"b": []}
    for message in conn.consume(jobs, prefetch=10):
        who, number = message.body.split()
        came[who].append(int(number))
        message.ack()
        if sum(map(len, came.values())) == 2 * MESSAGES:
            break
    results(works)

    assert came == {b"a": list(range(MESSAGES)), b"b": list(range(MESSAGES))}


def test_large_bodies_and_loans_of_two_publishers_stay_whole(
    conn: shmq.Connection, threads: ThreadPoolExecutor
) -> None:
    """The interpreter's lock is given away while they are copied."""
    name = conn.declare_queue("", exclusive=True, capacity_bytes=32 << 20).name

    def publish() -> None:
        for number in range(20):
            conn.publish(bytes([number]) * 1_000_000, routing_key=name, timeout=PATIENCE)

    def lend() -> None:
        for number in range(100, 120):
            with conn.loan(1_000_000, routing_key=name, timeout=PATIENCE) as buffer:
                buffer[:] = bytes([number]) * 1_000_000

    works = [threads.submit(publish), threads.submit(lend)]
    came: Counter[int] = Counter()
    for _ in range(40):
        message = conn.get(name, timeout=PATIENCE)
        assert message is not None
        assert message.body == message.body[:1] * 1_000_000
        came[message.body[0]] += 1
        message.ack()
    results(works)

    assert came == Counter([*range(20), *range(100, 120)])


@pytest.mark.parametrize("settle", ["ack", "nack", "reject"])
def test_a_message_is_settled_by_one_thread_alone(
    conn: shmq.Connection, jobs: str, threads: ThreadPoolExecutor, settle: str
) -> None:
    def try_to(message: shmq.Message, start: threading.Barrier) -> bool:
        start.wait(PATIENCE)
        try:
            getattr(message, settle)()
        except shmq.AlreadySettled:
            return False
        return True

    for _ in range(50):
        conn.publish(b"x", routing_key=jobs)
        message = conn.get(jobs, timeout=PATIENCE)
        assert message is not None
        start = threading.Barrier(THREADS)
        assert sum(results([threads.submit(try_to, message, start) for _ in range(THREADS)])) == 1
        conn.wait_for_confirms()
        conn.purge_queue(jobs)


def test_a_waiting_get_keeps_nobody_from_publishing(
    conn: shmq.Connection, jobs: str, threads: ThreadPoolExecutor
) -> None:
    waiting = [threads.submit(conn.get, jobs, timeout=PATIENCE) for _ in range(THREADS)]
    for number in range(THREADS):
        started = time.monotonic()
        conn.publish(b"%d" % number, routing_key=jobs)
        conn.queue_info(jobs)
        assert time.monotonic() - started < scaled(SOON)

    messages = results(waiting)

    assert sorted(message.body for message in messages) == [b"%d" % number for number in range(THREADS)]
    conn.ack_many(messages)
    assert is_empty(conn, jobs)


def test_publishers_that_wait_for_room_keep_nobody_from_making_it(
    conn: shmq.Connection, jobs: str, threads: ThreadPoolExecutor
) -> None:
    conn.publish_many([b"old"] * 64, routing_key=jobs, confirm="memory")
    held = conn.get_batch(jobs, max_messages=THREADS)
    waiting = [
        threads.submit(conn.publish, b"new", routing_key=jobs, confirm="memory", timeout=PATIENCE)
        for _ in range(THREADS)
    ]

    assert len(held) == THREADS
    for message in held:
        message.ack()
    results(waiting)

    rest = conn.get_batch(jobs, max_messages=100)
    assert Counter(message.body for message in rest) == {b"old": 64 - THREADS, b"new": THREADS}
    conn.ack_many(rest)


def test_consumers_of_eight_threads_share_a_queue_and_are_cancelled_from_outside(
    conn: shmq.Connection, jobs: str, threads: ThreadPoolExecutor
) -> None:
    came: Counter[bytes] = Counter()
    everything = threading.Event()

    def consume(tag: str) -> None:
        for message in conn.consume(jobs, prefetch=3, consumer_tag=tag):
            came[message.body] += 1
            message.ack()
            if came.total() == THREADS * MESSAGES:
                everything.set()

    works = [threads.submit(consume, f"c{number}") for number in range(THREADS)]
    for number in range(THREADS * MESSAGES):
        conn.publish(b"%d" % number, routing_key=jobs, timeout=PATIENCE)
    assert everything.wait(PATIENCE)
    for number in range(THREADS):
        conn.cancel(f"c{number}")
    results(works)

    assert came == Counter(b"%d" % number for number in range(THREADS * MESSAGES))
    assert is_empty(conn, jobs)


def test_closing_ends_the_waits_of_all_threads(url: str, threads: ThreadPoolExecutor) -> None:
    for mode in ("direct", "socket"):
        conn = shmq.connect(url, mode=mode)
        name = conn.declare_queue("", exclusive=True).name
        calls = [
            threads.submit(call)
            for call in (
                functools.partial(conn.get, name, timeout=PATIENCE),
                functools.partial(conn.get_batch, name, max_wait=PATIENCE),
                functools.partial(next, conn.consume(name)),
            )
            for _ in range(2)
        ]
        threading.Event().wait(0.1)  # time to begin to wait; they end as well if they come late
        started = time.monotonic()
        conn.close()
        for call in calls:
            assert isinstance(call.exception(PATIENCE), shmq.ConnectionClosed | shmq.DetachedQueue | StopIteration)
        assert time.monotonic() - started < scaled(SOON)
