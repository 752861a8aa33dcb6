"""Queues of every kind and exchanges of every type: the plan of runs in which messages take all the ways there are.

Owns: which there are, and to which queues each route leads. Does not own: publishing, what must hold (checker.py).
Invariants: where a route leads is written here by hand, not asked of the code under test; the last queue is that of
the dead, as in plan.py; who publishes by a route knows each queue that gets a copy, but those of `owning.py`.
"""

import random
from typing import Final

import shmq
from crash.history import LATER_NS, QueueRules
from crash.plan import Route, declare_queues

FAN: Final = "fan"  # which queues that go with their owners are bound to as well
LENGTH_MAX: Final = 40
TTL_NS: Final = 100_000_000
ROUND_NS: Final = 60_000_000
PLAIN, LEVELS, TTL, DROP_DEAD, DROP, REFUSE, REFUSE_DEAD, SINGLE, RETRY, ROUND_A, ROUND_B, DEAD = range(12)


def exchange_of(run: int, kind: str) -> str:
    """The name of one of the run's exchanges."""
    return f"crash.{kind}-{run}"


def queues_of(run: int) -> tuple[QueueRules, ...]:
    """One of each kind."""
    limit = random.Random(run).choice([2, 5])
    return (
        QueueRules(f"k-plain-{run}"),
        QueueRules(f"k-levels-{run}", levels=10, dead_letter=DEAD, delivery_limit=limit),
        QueueRules(f"k-ttl-{run}", dead_letter=DEAD, ttl_ns=TTL_NS),
        QueueRules(f"k-drop-dead-{run}", dead_letter=DEAD, max_length=LENGTH_MAX, overflow="drop-head"),
        QueueRules(f"k-drop-{run}", levels=4, max_length=LENGTH_MAX, overflow="drop-head"),
        QueueRules(f"k-refuse-{run}", max_length=LENGTH_MAX, overflow="reject-publish"),
        QueueRules(f"k-refuse-dead-{run}", dead_letter=DEAD, max_length=LENGTH_MAX, overflow="reject-publish-dlx"),
        QueueRules(f"k-single-{run}", single_active=True),
        QueueRules(f"k-retry-{run}", dead_letter=DEAD, delivery_limit=limit, retry_ns=LATER_NS),
        QueueRules(f"k-round-a-{run}", dead_letter=ROUND_B, ttl_ns=ROUND_NS, in_cycle=True),
        QueueRules(f"k-round-b-{run}", dead_letter=ROUND_A, ttl_ns=ROUND_NS, in_cycle=True),
        QueueRules(f"k-dead-{run}"),
    )


def _mask(*queues: int) -> int:
    return sum(1 << queue for queue in queues)


def routes_of(run: int) -> tuple[Route, ...]:
    """What to publish with, and where it goes."""
    topic, fan, heads, late = (exchange_of(run, kind) for kind in ("topic", FAN, "heads", "late"))
    return (
        Route(topic, "a.b", _mask(PLAIN, LEVELS)),
        Route(topic, "a.x.y", _mask(PLAIN)),
        Route(topic, "c.z.d", _mask(TTL)),
        Route(topic, "a.single", _mask(PLAIN, SINGLE)),
        Route(fan, "", _mask(DROP_DEAD, DROP)),
        Route(heads, "", _mask(RETRY), headers={"kind": 1}),
        Route(heads, "", _mask(REFUSE), headers={"y": 2}),
        Route(heads, "", _mask(DROP_DEAD, DROP), headers={"kind": 2}),  # through the fanout exchange behind it
        Route(heads, "", _mask(RETRY, REFUSE), headers={"kind": 1, "y": 2}),
        Route(heads, "", _mask(REFUSE_DEAD), headers={"kind": 9}),  # by the alternate exchange
        Route(late, "l.1", _mask(ROUND_A, PLAIN), headers={"x-delay": 20}, delay_ns=20_000_000),
        Route(late, "l.1", _mask(ROUND_A, PLAIN)),
    )


def declare(conn: shmq.Connection, run: int) -> None:
    """Make the queues and exchanges of a run."""
    queues = queues_of(run)
    declare_queues(conn, queues)
    topic, fan, heads, late, rest = (exchange_of(run, kind) for kind in ("topic", FAN, "heads", "late", "rest"))
    conn.declare_exchange(rest, "fanout")
    conn.declare_exchange(topic, "topic")
    conn.declare_exchange(fan, "fanout")
    conn.declare_exchange(heads, "headers", alternate_exchange=rest)
    conn.declare_exchange(late, "x-delayed-message", delayed_type="topic")
    for queue, exchange, key in (
        (PLAIN, topic, "a.#"),
        (LEVELS, topic, "*.b"),
        (LEVELS, topic, "#.b"),
        (TTL, topic, "c.*.d"),
        (SINGLE, topic, "#.single"),
        (DROP_DEAD, fan, ""),
        (DROP, fan, ""),
        (REFUSE_DEAD, rest, ""),
        (ROUND_A, late, "l.#"),
        (PLAIN, late, "*.1"),
    ):
        conn.bind_queue(queues[queue].name, exchange, key)
    conn.bind_queue(queues[RETRY].name, heads, arguments={"kind": 1})
    conn.bind_queue(queues[REFUSE].name, heads, match="any", arguments={"y": 2, "z": None})
    conn.bind_exchange(fan, heads, arguments={"kind": 2})


def forget(conn: shmq.Connection, run: int) -> None:
    """Delete the exchanges."""
    for kind in ("topic", FAN, "heads", "late", "rest"):
        conn.delete_exchange(exchange_of(run, kind))
