"""What tests of queues ask again and again: the next message, and whether anything is left."""

import itertools
from collections.abc import Callable
from typing import Protocol

import shmq
from support.deadline import scaled, wait_until

QueueMaker = Callable[..., str]
WAIT = 10.0
_numbers = itertools.count(1)


class Getting(Protocol):
    """A connection or a channel."""

    def get(self, queue: str, *, timeout: float | None = 0, no_ack: bool = False) -> shmq.Message | None: ...


def wait_for(conn: Getting, queue: str) -> shmq.Message:
    message = conn.get(queue, timeout=scaled(WAIT))
    assert message is not None, f"nothing came to {queue}"
    return message


def reject(conn: shmq.Connection, queue: str) -> None:
    wait_for(conn, queue).reject()


def ready_bodies(conn: shmq.Connection, queue: str) -> list[bytes]:
    """Take what is ready now, and ack it."""
    taken = list(conn.get_batch(queue, max_messages=1000))
    conn.ack_many(taken)
    return [message.body for message in taken]


def deaths(message: shmq.Message) -> list[tuple[str, str, int]]:
    return [(death["queue"], death["reason"], death["count"]) for death in message.headers["x-death"]]


def wait_until_gone(conn: shmq.Connection, queue: str) -> None:
    """Wait until nothing is in a queue, ready or dead."""

    def is_empty() -> bool:
        totals = conn.queue_info(queue).totals
        return totals["ready"] + totals["dead_pending"] == 0

    wait_until(is_empty, f"{queue} is empty", WAIT)


def unique(name: str) -> str:
    return f"{name}-{next(_numbers)}"
