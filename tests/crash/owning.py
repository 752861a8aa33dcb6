"""Workers with queues of their own, exclusive or deleted with their last consumer: both go when their owner is killed.

Owns: what such a worker does, what must be left of its queues. Does not own: the history: what dies with a queue is
nobody's loss. Invariant: what comes is whole, and comes in the order of its producer.
"""

import select
import time
from typing import Any, Final

import shmq
from crash.bodies import MessageId, is_intact, message_of
from crash.kinds import FAN, exchange_of
from crash.logbook import DOING, STEPS, Logbook
from crash.plan import Life
from support.deadline import scaled

OWN: Final = 8  # in words[DOING]
LENGTH_MAX: Final = 50
PREFIX: Final = "own-"
GONE_SECONDS: Final = 15.0  # a session that was lost, and not ended, may come back for ten


def own(life: Life, conn: shmq.Connection, log: Logbook) -> None:
    """Make a queue, consume from it, let it go, again and again."""
    dice, number = life.dice(), 0
    while not log.has_to_stop:
        number += 1
        log.words[DOING] = OWN
        name = f"{PREFIX}{life.run}-{life.worker}-{life.incarnation}-{number}"
        flags: dict[str, Any] = {dice.choice(["exclusive", "auto_delete"]): True}
        conn.declare_queue(name, max_length=LENGTH_MAX, overflow="drop-head", **flags)
        conn.bind_queue(name, exchange_of(life.run, FAN))
        _consume(conn, life, name, dice.randint(1, 30), log)
        if "exclusive" in flags:
            conn.delete_queue(name)
        log.words[DOING] = 0
        log.words[STEPS] += 1


def _consume(conn: shmq.Connection, life: Life, name: str, count: int, log: Logbook) -> None:
    newest: dict[tuple[int, int], int] = {}
    consumer = conn.consume(name, prefetch=5, exclusive=life.mode == "socket")
    for message in consumer:
        body = message.body
        found = message_of(body)
        assert found is not None, f"{len(body)} bytes that nobody published"
        assert is_intact(life.run, body), f"{tuple(found)} is torn"
        _check_order(newest, found)
        message.ack()
        count -= 1
        if count <= 0 or log.has_to_stop:
            break
    consumer.cancel()


def _check_order(newest: dict[tuple[int, int], int], found: MessageId) -> None:
    before = newest.get(found[:2], -1)
    assert found.seq > before, f"{tuple(found)} after {before}"
    newest[found[:2]] = found.seq


def left_behind(conn: shmq.Connection) -> list[str]:
    """What should have gone with its owner, and has not; the rest is deleted: what never had a consumer stays."""
    deadline = time.monotonic() + scaled(GONE_SECONDS)
    while (left := _owned(conn)) and time.monotonic() < deadline:
        select.select([], [], [], 0.05)
    for info in conn.queues():
        if info.definition.name.startswith(PREFIX):
            conn.delete_queue(info.definition.name)
    return left


def _owned(conn: shmq.Connection) -> list[str]:
    found = [info for info in conn.queues() if info.definition.name.startswith(PREFIX)]
    return [info.definition.name for info in found if info.definition.exclusive or info.totals["delivered"]]
