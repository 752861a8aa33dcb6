"""What a consumer does with its life: gets messages in every way there is, settles them at random, writes it down.

Owns: the choice of how to receive and what to do with each delivery. Does not own: the logbook, who kills it.
Invariants: a delivery is in the logbook before anything else is done with it; `words[HELD]` counts those not settled;
`since` is a time before the delivery can have been made: in direct mode the call that handed it out, in socket mode
the settling that made room in the prefetch.
"""

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import shmq
from crash.bodies import is_intact, message_of
from crash.history import LATER_NS, Delivery, Outcome, Settle
from crash.history import Consumer as Who
from crash.logbook import DOING, HELD, STEPS, Logbook
from crash.plan import Life
from shmq_clients.message import SocketMessage

WAIT: Final = 0.05
TAKE, SETTLE, BARRIER = 5, 6, 7  # in words[DOING]
BATCH_MAX: Final = 20
SHARE_OF_SINGLE: Final = 0.2  # of those who consume, where there is a queue with a single active consumer
LARGE_BYTES: Final = 4_096
VIEWS_MAX: Final = 4
SETTLES: Final = {Settle.ACK: 86, Settle.NACK: 5, Settle.LATER: 2, Settle.REJECT: 4, Settle.DROP: 3}


class ForeignBodyError(AssertionError):
    """A body that no message of this run has."""


class Held(NamedTuple):
    """A delivery in hand, and maybe a view of its body that will outlive the ack."""

    record: int
    message: Any
    view: memoryview | None


class Consumer:
    """One life of a worker that consumes."""

    def __init__(self, life: Life, conn: shmq.Connection, log: Logbook) -> None:
        self._life = life
        self._conn = conn
        self._log = log
        self._words = log.words
        self._dice: random.Random = life.dice()
        self._who = Who(life.worker, life.incarnation)
        self._is_socket = life.mode == "socket"
        self._held: list[Held] = []
        self._settled_at: deque[int] = deque()
        self._asked_at = 0
        self._views: deque[memoryview] = deque()
        self._settles, self._weights = list(SETTLES), list(SETTLES.values())

    @staticmethod
    def choose(life: Life) -> tuple[str, tuple[int, ...]]:
        """How a life receives, and from which queues."""
        dice = random.Random(f"how {life.run}/{life.worker}/{life.incarnation}")
        how = dice.choice(life.ways)
        queues = range(len(life.queues))
        if how == "consume" and dice.random() < SHARE_OF_SINGLE:  # whose consumers come one after the other
            single = [queue for queue in queues if life.queues[queue].single_active]
            return how, tuple(single[:1] or [dice.choice(queues)])
        return how, (dice.choice(queues),) if how == "consume" else tuple(queues)

    def work(self) -> None:
        """Receive and settle until told to stop."""
        how, queues = self.choose(self._life)
        steps = self._dice.randint(20, 200) if self._life.ends_by_itself else 1 << 62
        if how == "consume":
            self._consume(queues[0], steps)
        elif how == "get":
            self._poll(queues, steps, self._get)
        else:
            self._poll(queues, steps, self._get_batch)

    def drain(self, queue: int) -> int:
        """Take and ack what is there now; returns how many."""
        self._asked_at = time.monotonic_ns()
        for message in self._conn.get_batch(self._life.queues[queue].name, max_messages=1_000, max_wait=0):
            self._take(queue, message, self._asked_at)
        drained = len(self._held)
        while self._held:
            self._settle(self._held.pop(0), Settle.ACK)
        self._views.clear()
        return drained

    # -- ways to receive ----------------------------------------------------------------------------------------------

    def _consume(self, queue: int, steps: int) -> None:
        prefetch = self._dice.choice([1, 2, 10, 100])
        keep = self._dice.choice([0, prefetch - 1]) if prefetch > 1 else 0
        self._settled_at = deque([time.monotonic_ns()] * prefetch)
        self._ask()
        for message in self._conn.consume(self._life.queues[queue].name, prefetch=prefetch):
            since = self._room_since() if isinstance(message, SocketMessage) else self._asked_at
            self._words[DOING] = 0
            self._take(queue, message, since, "consume")
            self._settle_down_to(self._dice.randint(0, keep))
            steps -= 1
            if steps <= 0 or self._log.has_to_stop:
                return
            self._ask()

    def _room_since(self) -> int:
        """When the settling was invoked that made room for what was pushed; of a new session only its outage tells."""
        return self._settled_at.popleft() if self._settled_at else self._asked_at

    def _poll(self, queues: tuple[int, ...], steps: int, get: Callable[[int, float], None]) -> None:
        keep = self._dice.choice([0, 5, 30])
        while steps > 0 and not self._log.has_to_stop:
            get(self._dice.choice(queues), self._dice.choice([0, 0, 0, WAIT]))
            self._settle_down_to(self._dice.randint(0, keep))
            steps -= 1

    def _get(self, queue: int, timeout: float) -> None:
        self._ask()
        with contextlib.suppress(shmq.SessionError):
            message = self._conn.get(self._life.queues[queue].name, timeout=timeout)
            if message is not None:
                self._take(queue, message, self._asked_at)
        self._words[DOING] = 0

    def _get_batch(self, queue: int, timeout: float) -> None:
        self._ask()
        name, count = self._life.queues[queue].name, self._dice.randint(1, BATCH_MAX)
        with contextlib.suppress(shmq.SessionError):
            for message in self._conn.get_batch(name, max_messages=count, max_wait=timeout):
                self._take(queue, message, self._asked_at)
        self._words[DOING] = 0

    def _ask(self) -> None:
        self._asked_at = time.monotonic_ns()
        self._words[DOING] = TAKE

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def _take(self, queue: int, message: Any, since: int, how: str = "get") -> None:
        at = time.monotonic_ns()
        view = message.view() if message.body_bytes > LARGE_BYTES and at & 1 else None
        body = message.body if view is None else view
        name = message_of(body)
        if name is None:
            raise ForeignBodyError(f"{len(body)} bytes from {message.queue_name}: {bytes(body[:64]).hex()}")
        is_dead = queue == len(self._life.queues) - 1
        by_frames = isinstance(
            message, SocketMessage
        )  # also of a direct client, where the broker decides who is served
        record = self._log.delivered(
            Delivery(
                queue=queue,
                message=name,
                level=message.priority,
                since=since,
                at=at,
                count=message.delivery_count,
                failures=message.failure_count,
                to=self._who,
                redelivered=message.redelivered,
                is_intact=is_intact(self._life.run, body),
                is_socket=by_frames,
                is_pushed=by_frames and how == "consume",
                reason=message.headers.get("x-first-death-reason", "") if is_dead else "",
            )
        )
        self._words[HELD] += 1
        self._held.append(Held(record, message, view))

    def _settle_down_to(self, keep: int) -> None:
        if len(self._held) <= keep:
            return
        if self._dice.random() < 0.1:
            self._ack_many(keep)
        while len(self._held) > keep:
            held = self._held.pop(self._dice.choice([0, -1, self._dice.randrange(len(self._held))]))
            settle = self._dice.choices(self._settles, self._weights)[0]
            self._settle(held, Settle.ACK if held.view is not None else settle)
            self._keep(held.view)

    def _settle(self, held: Held, settle: Settle) -> None:
        message = held.message
        self._settled_at.append(self._log.settling(held.record, settle))
        self._words[DOING] = SETTLE
        try:
            if settle is Settle.ACK:
                message.ack()
            elif settle is Settle.NACK:
                message.nack()
            elif settle is Settle.LATER:
                message.nack(delay=LATER_NS / 1e9)
            else:
                self._refuse(message, settle)
        except shmq.StaleDelivery:
            self._log.settled(held.record, Outcome.FAILED)
        else:
            self._log.settled(held.record, Outcome.OK)
        self._words[DOING] = 0
        self._words[HELD] -= 1
        self._words[STEPS] += 1

    def _refuse(self, message: Any, settle: Settle) -> None:
        if settle is Settle.REJECT:
            message.reject(requeue=True)
        elif self._dice.random() < 0.5:
            message.reject()
        else:
            message.nack(requeue=False)

    def _ack_many(self, keep: int) -> None:
        going, self._held = self._held[keep:], self._held[:keep]
        self._settled_at.extend([self._log.settling(held.record, Settle.ACK) for held in going])
        self._words[DOING] = SETTLE
        with contextlib.suppress(shmq.StaleDelivery):
            self._conn.ack_many([held.message for held in going])
        for held in going:
            self._log.settled(held.record, Outcome.OK if held.message.state == "acked" else Outcome.FAILED)
        self._words[DOING] = 0
        self._words[HELD] -= len(going)
        self._words[STEPS] += 1
        for held in going:
            self._keep(held.view)

    def _keep(self, view: memoryview | None) -> None:
        """Look at a body once more some time after its ack: its memory must still be its own."""
        if view is not None:
            self._views.append(view)
        if len(self._views) > VIEWS_MAX:
            old = self._views.popleft()
            if not self._is_socket and not is_intact(self._life.run, old):
                raise ForeignBodyError(f"the body of {message_of(old)} changed behind its ack while a view was alive")
