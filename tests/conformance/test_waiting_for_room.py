"""Publishes that wait for room, of several kinds at once: each goes on when there is enough for it."""

import threading
import time
from collections.abc import Callable

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import QueueMaker
from support.taking import stays

Connect = Callable[[], shmq.Connection]

LARGE = 3_000_000  # bytes: one fits into the queue's arena, two do not
LATE = 1.0  # seconds


class Publisher:
    """Publishes one message in a thread of its own, and waits for room."""

    def __init__(self, conn: shmq.Connection, queue: str, body: bytes) -> None:
        self.published_at = 0.0
        self._conn, self._queue, self._body = conn, queue, body
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()
        time.sleep(0.1)  # so that it waits

    def _publish(self) -> None:
        self._conn.publish(self._body, routing_key=self._queue, confirm="memory", timeout=scaled(10))
        self.published_at = time.monotonic()

    def join(self) -> None:
        self._thread.join(scaled(12))
        assert not self._thread.is_alive()


@pytest.fixture
def queue(conn: shmq.Connection, new_queue: QueueMaker) -> str:
    """Give a queue with room for one large message and three small ones, with the large one in it."""
    name = new_queue(capacity_messages=4, capacity_bytes=4 << 20)
    conn.publish(bytes(LARGE), routing_key=name, confirm="memory")
    return name


def fill(conn: shmq.Connection, queue: str) -> None:
    for _ in range(3):
        conn.publish(b"small", routing_key=queue, confirm="memory")


def take_two(conn: shmq.Connection, queue: str) -> tuple[shmq.Message, shmq.Message]:
    large, small = conn.get(queue, timeout=1), conn.get(queue, timeout=1)
    assert large is not None
    assert small is not None
    assert len(large.body) == LARGE  # copied: who never looks at a body keeps its memory
    return large, small


@pytest.mark.parametrize("connections", [1, 2])
def test_who_needs_more_room_than_there_is_holds_up_none_who_needs_less(
    conn: shmq.Connection, mode: str, connect: Connect, queue: str, connections: int
) -> None:
    publishers = [connect() for _ in range(connections)]
    large = Publisher(publishers[0], queue, bytes(LARGE))
    fill(conn, queue)
    small = Publisher(publishers[-1], queue, b"small")
    first, second = take_two(conn, queue)
    second.ack()
    conn.wait_for_confirms()
    try:
        if mode == "socket" and connections == 1:  # there what a connection publishes stays in order
            assert stays(lambda: not small.published_at)
        else:
            wait_until(lambda: small.published_at > 0, "there is room for the small one", LATE)
        assert not large.published_at
    finally:
        first.ack()
        large.join()
        small.join()
