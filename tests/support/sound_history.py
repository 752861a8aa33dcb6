"""A broker that does everything right, in virtual time, and the history its clients write: what the checker must find
sound.

Owns: a tiny model of queues, deliveries and deaths. Does not own: what must hold. Invariant: each operation takes
effect at one moment between its invocation and its end, and those of one life do not overlap.
"""

import random
from dataclasses import dataclass, field

from crash.bodies import MessageId
from crash.history import (
    Consumer,
    Delivery,
    End,
    History,
    Outage,
    Outcome,
    Publish,
    QueueRules,
    Settle,
)

STEP = 1_000_000
RULES = [
    QueueRules("plain"),
    QueueRules("levels", levels=4, dead_letter=2, delivery_limit=2),
    QueueRules("dead"),
]
DEAD = 2
PRODUCERS, CONSUMERS = range(3), range(3, 7)


@dataclass
class Stored:
    """A message in a queue."""

    order: int
    message: MessageId
    level: int
    deliveries: int = 0
    failures: int = 0
    reason: str = ""


@dataclass
class Worker:
    """One worker in its present life."""

    number: int
    life: int = 1
    free_at: int = 0
    seq: int = 0
    held: list[tuple[Delivery, Stored]] = field(default_factory=list)

    @property
    def who(self) -> Consumer:
        return Consumer(self.number, self.life)

    @property
    def is_socket(self) -> bool:
        return self.number % 2 == 0


class SoundRun:
    """Random operations of some producers and consumers; `history` is what they wrote down."""

    def __init__(self, seed: int, steps: int = 600, *, outages: bool = False) -> None:
        self.dice = random.Random(seed)
        self.history = History(list(RULES))
        self._now = STEP
        self._order = 0
        self._queues: list[list[Stored]] = [[] for _ in RULES]
        self._workers = {number: Worker(number) for number in [*PRODUCERS, *CONSUMERS]}
        for _ in range(steps):
            self._now += STEP
            if outages and self.dice.random() < 0.01:
                self._broker_dies()
            elif self.dice.random() < 0.5:
                self._publish(self._idle(list(PRODUCERS)))
            else:
                self._consume(self._idle(list(CONSUMERS)))
        self._drain()

    # -- time ---------------------------------------------------------------------------------------------------------

    def _idle(self, numbers: list[int]) -> Worker:
        """Somebody who is not in the middle of an operation now."""
        while not (idle := [w for n in numbers if (w := self._workers[n]).free_at < self._now]):
            self._now += STEP
        return self.dice.choice(idle)

    def _span(self, worker: Worker) -> tuple[int, int]:
        """An operation of this worker that takes effect now."""
        invoked = self.dice.randint(max(worker.free_at + 1, self._now - 3 * STEP), self._now)
        worker.free_at = self.dice.randint(self._now + 1, self._now + 3 * STEP)
        return invoked, worker.free_at

    # -- producers ----------------------------------------------------------------------------------------------------

    def _publish(self, worker: Worker) -> None:
        queue = self.dice.choice([0, 1])
        level = self.dice.randrange(RULES[queue].levels)
        message = MessageId(worker.number, worker.life, worker.seq)
        worker.seq += 1
        invoked, ended = self._span(worker)
        outcome = self.dice.choices([Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN], [90, 5, 5])[0]
        self.history.publishes.append(Publish(queue, message, level, invoked, ended, outcome, worker.who))
        if outcome is Outcome.OK or (outcome is Outcome.UNKNOWN and self.dice.random() < 0.5):
            self._store(queue, message, level)
        if outcome is Outcome.UNKNOWN:
            self._dies(worker)

    def _store(self, queue: int, message: MessageId, level: int, reason: str = "") -> None:
        self._order += 1
        self._queues[queue].append(Stored(self._order, message, level, reason=reason))

    # -- consumers ----------------------------------------------------------------------------------------------------

    def _consume(self, worker: Worker) -> None:
        deed = self.dice.random()
        if deed < 0.03:
            self._dies(worker)
        elif deed < 0.05:
            self._closes(worker)
        elif deed < 0.06:
            self._dies_with_unseen(worker)
        elif worker.held and deed < 0.5:
            settle = self.dice.choices([Settle.ACK, Settle.NACK, Settle.REJECT, Settle.DROP], [80, 10, 5, 5])[0]
            self._settle(worker, self.dice.randrange(len(worker.held)), settle)
        else:
            self._deliver(worker, self.dice.randrange(len(RULES)))

    def _take(self, queue: int) -> Stored | None:
        """The first of the highest level."""
        ready = self._queues[queue]
        if not ready:
            return None
        stored = min(ready, key=lambda one: (-RULES[queue].level_of(one.level), one.order))
        ready.remove(stored)
        stored.deliveries += 1
        return stored

    def _deliver(self, worker: Worker, queue: int) -> bool:
        stored = self._take(queue)
        if stored is None:
            return False
        since, at = self._span(worker)
        delivery = Delivery(
            queue=queue,
            message=stored.message,
            level=stored.level,
            since=since,
            at=at,
            count=stored.deliveries,
            failures=stored.failures,
            to=worker.who,
            redelivered=stored.deliveries > 1,
            is_socket=worker.is_socket,
            reason=stored.reason,
        )
        self.history.deliveries.append(delivery)
        worker.held.append((delivery, stored))
        return True

    def _settle(self, worker: Worker, index: int, settle: Settle) -> None:
        delivery, stored = worker.held.pop(index)
        delivery.settle, delivery.outcome = settle, Outcome.OK
        delivery.settle_invoked, delivery.settle_ended = self._span(worker)
        if settle in {Settle.NACK, Settle.REJECT}:
            self._requeue(delivery.queue, stored, failed=settle is Settle.REJECT)
        elif settle is Settle.DROP:
            self._bury(delivery.queue, stored, "rejected")

    def _requeue(self, queue: int, stored: Stored, *, failed: bool) -> None:
        stored.failures += failed
        if 0 <= RULES[queue].delivery_limit < stored.failures:
            self._bury(queue, stored, "delivery_limit")
        else:
            self._queues[queue].append(stored)

    def _bury(self, queue: int, stored: Stored, reason: str) -> None:
        dead_letter = RULES[queue].dead_letter
        if dead_letter is not None:
            self._store(dead_letter, stored.message, stored.level, reason)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _dies(self, worker: Worker, *, killed: bool = True) -> None:
        """All it held goes back, and it lives on as another."""
        self._now = max(self._now, worker.free_at + STEP)
        for delivery, stored in worker.held:
            self._requeue(delivery.queue, stored, failed=killed)
        before, after = self._span(worker)
        self.history.ends.append(End(worker.who, before, after, killed, queues=frozenset(range(len(RULES)))))
        worker.life += 1
        worker.held = []

    def _closes(self, worker: Worker) -> None:
        self._dies(worker, killed=False)

    def _dies_with_unseen(self, worker: Worker) -> None:
        """It dies between a delivery and writing it down."""
        queue = self.dice.randrange(len(RULES))
        stored = self._take(queue)
        self._dies(worker)
        if stored is not None:
            self._requeue(queue, stored, failed=True)

    def _broker_dies(self) -> None:
        """What socket mode's consumers held goes back, and no failure is counted."""
        for worker in self._workers.values():
            for delivery, stored in worker.held if worker.is_socket else ():
                self._requeue(delivery.queue, stored, failed=False)
            worker.held = [] if worker.is_socket else worker.held
            worker.free_at = max(worker.free_at, self._now + STEP)
        before, self._now = self._now - STEP // 2, self._now + 4 * STEP
        self.history.outages.append(Outage(before, self._now, broker=True, supervisor=False))

    def _drain(self) -> None:
        """Everybody closes; one more takes and acks all there is."""
        self._now = max(worker.free_at for worker in self._workers.values()) + STEP
        for number in CONSUMERS:
            self._closes(self._workers[number])
        last = Worker(99)
        self._workers[99] = last
        for queue in range(len(RULES)):
            while self._deliver(last, queue):
                self._now = last.free_at + STEP
                self._settle(last, 0, Settle.ACK)
                self._now = last.free_at + STEP
