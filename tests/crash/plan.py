"""What a run is made of: its queues, and what each life of each worker is told.

Owns: the shape of a run as plain data that travels as JSON. Does not own: doing any of it. Invariant: a plan follows
from its seed alone, so a run can be repeated (what the scheduler makes of it is another matter).
"""

import random
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import shmq
from crash.history import QueueRules

Mode = Literal["direct", "socket"]
MODES: Final[tuple[Mode, ...]] = ("direct", "socket")
Role = Literal["publish", "consume", "own", "echo", "ping", "wait"]
EXCHANGE: Final = "crash.copies"
COPIES_KEY: Final = "copies"
DEAD_EXCHANGE: Final = "crash.dead"
WAYS: Final = ("consume", "consume", "get", "batch")
ASKING: Final = ("get", "batch")  # ways in which no queue is left alone for long
CAPACITY: Final = 2_000  # messages in a queue: a producer that runs ahead waits for room, and is killed there too
ROLES: Final[tuple[Role, ...]] = (
    "publish",
    "consume",
    "publish",
    "consume",
    "publish",
    "consume",
    "consume",
    "consume",
)


@dataclass(frozen=True)
class Route:
    """What to publish with, and the queues (a bit mask) that get it; those of the plan."""

    exchange: str
    routing_key: str
    queues: int
    headers: dict[str, int] | None = None
    delay_ns: int = 0


@dataclass(frozen=True)
class Life:
    """All that one life of a worker has to know. queues: names; rules: what was declared, in the same order."""

    run: int
    worker: int
    incarnation: int
    role: Role
    mode: Mode
    url: str
    logbook: str
    queues: tuple[QueueRules, ...]
    copies: int  # bit mask of the queues that the exchange routes to
    ends_by_itself: bool
    ways: tuple[str, ...] = WAYS  # to receive messages, one of which it chooses
    routes: tuple[Route, ...] = ()  # beside the default exchange and that of copies

    def dice(self) -> random.Random:
        """Return this life's own dice."""
        return random.Random(f"{self.run}/{self.worker}/{self.incarnation}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Life":
        rules = tuple(QueueRules(**rules) for rules in fields.pop("queues"))
        routes = tuple(Route(**route) for route in fields.pop("routes"))
        return cls(queues=rules, routes=routes, ways=tuple(fields.pop("ways")), **fields)


def connects_in(life: Life) -> Literal["auto", "direct", "socket"]:
    """Where there are queues of every kind, some can only be consumed from through the broker."""
    return "auto" if life.routes and life.mode == "direct" else life.mode


def queues_of(run: int) -> tuple[QueueRules, ...]:
    """One plain queue, one with ten levels whose dead are kept, one with all levels there are, and the dead ones."""
    dice = random.Random(run)
    limit = dice.choice([2, 5, 20])
    names = [f"{kind}-{run}" for kind in ("plain", "levels", "all-levels", "dead")]
    return (
        QueueRules(names[0]),
        QueueRules(names[1], levels=10, dead_letter=3, delivery_limit=limit),
        QueueRules(names[2], levels=256),
        QueueRules(names[3]),
    )


def declare(conn: shmq.Connection, queues: tuple[QueueRules, ...], copies: int) -> None:
    """Make the queues of a run, and what copies go through."""
    declare_queues(conn, queues)
    conn.declare_exchange(EXCHANGE)
    for index, rules in enumerate(queues):
        if copies >> index & 1:
            conn.bind_queue(rules.name, EXCHANGE, f"{COPIES_KEY}-{queues[0].name}")


def declare_queues(conn: shmq.Connection, queues: tuple[QueueRules, ...]) -> None:
    """Make queues, and what their dead go through."""
    conn.declare_exchange(DEAD_EXCHANGE)
    for rules in queues:
        dead = None if rules.dead_letter is None else queues[rules.dead_letter].name
        conn.declare_queue(
            rules.name,
            max_priority=rules.levels - 1 or None,
            capacity_messages=CAPACITY if rules.name != queues[-1].name else 20 * CAPACITY,
            delivery_limit=rules.delivery_limit if rules.delivery_limit >= 0 else None,
            dead_letter_exchange=DEAD_EXCHANGE if dead else None,
            dead_letter_routing_key=dead,
            message_ttl=rules.ttl_ns / 1e9 or None,
            max_length=rules.max_length or None,
            overflow=rules.overflow or None,
            single_active_consumer=rules.single_active or None,
            delayed_retry_type="all" if rules.retry_ns else None,
            delayed_retry_min=rules.retry_ns / 1e9 or None,
            delayed_retry_max=rules.retry_ns / 1e9 or None,
        )
    for dead in {queues[rules.dead_letter].name for rules in queues if rules.dead_letter is not None}:
        conn.bind_queue(dead, DEAD_EXCHANGE, dead)
