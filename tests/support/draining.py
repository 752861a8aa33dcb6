"""What tests of one descriptor for many consumers ask again and again: draining as an event loop would."""

import itertools
import select
import time

import shmq
from support.deadline import scaled
from support.messages import WAIT

_numbers = itertools.count(1)


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
