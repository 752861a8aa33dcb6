"""What happened in a run, as those who took part know it: operations with their invocation and their outcome.

Owns: the model of a history, and how the files of its workers (logbook.py) and the nemesis' list become one. Does not
own: what must hold (checker.py). Invariants: times are CLOCK_MONOTONIC nanoseconds, which all processes of a host
share; an operation took effect, if at all, between its invocation and its end; OK: surely, FAILED: surely not,
UNKNOWN: who knows.
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from crash.bodies import MessageId

NEVER: Final = 1 << 63
NOTICED_NS: Final = 2_000_000_000  # until a busy broker knows of a death, it may push to the dead


class Outcome(IntEnum):
    """Of an operation."""

    UNKNOWN = 0  # "info": begun, and its worker was killed in it or could not tell
    OK = 1
    FAILED = 2
    REFUSED = 3  # by a queue that is as long as it may be: it has not got it, but may have to dead-letter it


class Settle(IntEnum):
    """What a consumer did with a delivery."""

    NONE = 0
    ACK = 1
    NACK = 2  # requeue, no failure counted
    REJECT = 3  # requeue, a failure counted
    DROP = 4  # reject or nack without requeue: dead-lettered, or gone where there is no dead-letter exchange
    LATER = 5  # nack with a delay of LATER_NS


REQUEUES: Final = (Settle.NACK, Settle.REJECT, Settle.LATER)
LATER_NS: Final = 20_000_000


class Consumer(NamedTuple):
    """One life of one worker."""

    worker: int
    incarnation: int


@dataclass(slots=True)
class Publish:
    """One message published into one queue. ttl_ns 0: none. sent: OK means that the kernel has it."""

    queue: int
    message: MessageId
    level: int
    invoked: int
    ended: int
    outcome: Outcome
    by: Consumer
    delay_ns: int = 0
    ttl_ns: int = 0
    sent: bool = False

    @property
    def is_nowhere(self) -> bool:
        """Whether it surely was not published."""
        return self.outcome in (Outcome.FAILED, Outcome.REFUSED)


@dataclass(slots=True)
class Delivery:
    """One delivery at one consumer: handed out between `since` and `at`, and what became of it.

    is_pushed: the broker sent it unasked. `since` is then when the settling was invoked that made room in the prefetch,
    which a new session has anew.
    """

    queue: int
    message: MessageId
    level: int
    since: int
    at: int
    count: int
    failures: int
    to: Consumer
    redelivered: bool
    is_intact: bool = True
    is_socket: bool = False
    is_pushed: bool = False
    reason: str = ""  # of its death, where it was taken from among the dead
    settle: Settle = Settle.NONE
    settle_invoked: int = 0
    settle_ended: int = 0
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(slots=True)
class End:
    """A life's end, which happened between the two times: killed, or closed in order. queues: those it consumed from.

    closing: it was killed while it closed, so that what it held may have gone back before. is_socket: a session of the
    broker's.
    """

    who: Consumer
    before: int
    after: int
    killed: bool
    closing: bool = False
    is_socket: bool = False
    queues: frozenset[int] = frozenset()


@dataclass(slots=True)
class Outage:
    """A process of the daemon was killed: it died at or after `before`, its successor works from `after` on."""

    before: int
    after: int
    broker: bool
    supervisor: bool


@dataclass(slots=True)
class Barrier:
    """The broker answered a request of this worker: all that the worker had sent before it was done."""

    who: Consumer
    invoked: int
    ended: int


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What was declared. delivery_limit -1: none; dead_letter: the queue that gets its dead messages. retry_ns: what is
    given back waits so long. in_cycle: its dead come back to it.
    """

    name: str
    levels: int = 1
    dead_letter: int | None = None
    delivery_limit: int = -1
    ttl_ns: int = 0
    max_length: int = 0
    overflow: str = ""
    single_active: bool = False
    retry_ns: int = 0
    in_cycle: bool = False

    def level_of(self, priority: int) -> int:
        """Where a message of this priority waits."""
        return min(priority, self.levels - 1)

    def ttl_of(self, publish: Publish) -> int:
        """How long a message may stay: the lower of its own time and the queue's; 0: for ever."""
        return min(filter(None, (self.ttl_ns, publish.ttl_ns)), default=0)


@dataclass(slots=True)
class Life:
    """A message in a queue: how it came there, and its deliveries in the order of their counts."""

    publish: Publish | None = None
    deliveries: list[Delivery] = field(default_factory=list)


@dataclass
class History:
    """All of a run."""

    queues: list[QueueRules]
    publishes: list[Publish] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # what no worker should ever have seen
    is_drained: bool = True

    def confirmed(self) -> int:
        """How many messages were surely published, each queue counted."""
        return sum(publish.outcome is Outcome.OK for publish in self.publishes)


class Facts:
    """A history, sorted and indexed for the rules."""

    def __init__(self, history: History) -> None:
        self.queues = history.queues
        self.history = history
        self.lives = _lives(history)
        self._ends = {end.who: end for end in history.ends}
        self._deaths = [_Deaths(queue, history.ends) for queue in range(len(history.queues))]
        self._broker_outages = sorted((o for o in history.outages if o.broker), key=lambda outage: outage.before)
        for delivery in history.deliveries:
            if delivery.is_pushed:
                delivery.since = min(delivery.since, self._last_outage_before(delivery.at))
        self._barriers: dict[Consumer, list[Barrier]] = {}
        for barrier in history.barriers:
            self._barriers.setdefault(barrier.who, []).append(barrier)
        for publish in history.publishes:
            if not publish.ended:  # its record was cut short; it ended with its worker at the latest
                end = self._ends.get(publish.by)
                publish.ended = NEVER if end is None else end.after
        self.supervisor_died = any(outage.supervisor for outage in history.outages)

    def sources(self, queue: int) -> list[int]:
        """Which queues dead-letter into this one."""
        return [index for index, rules in enumerate(self.queues) if rules.dead_letter == queue]

    def end_of(self, who: Consumer) -> End | None:
        return self._ends.get(who)

    def unseen_between(self, queue: int, start: int, end: int) -> int:
        """How many deliveries may have gone to somebody who could not write them down, and come back, in this time."""
        outages = sum(outage.before <= end and outage.after >= start for outage in self._broker_outages)
        return self._deaths[queue].between(start, end) + outages

    def outage_after(self, since: int) -> int:
        """When the broker that served at `since` may have died at the earliest; NEVER if it did not."""
        return next((outage.before for outage in self._broker_outages if outage.after >= since), NEVER)

    def _last_outage_before(self, at: int) -> int:
        """When the session that served at that time may have begun; NEVER if it is the first."""
        return max((outage.before for outage in self._broker_outages if outage.before <= at), default=NEVER)

    def took_effect(self, who: Consumer, invoked: int, ended: int) -> bool:
        """Whether what a worker had sent to the broker between these times was surely done."""
        outage = self.outage_after(invoked)
        if outage == NEVER:
            return True
        return any(ended <= barrier.invoked and barrier.ended <= outage for barrier in self._barriers.get(who, ()))

    def is_confirmed(self, publish: Publish) -> bool:
        """Whether it is surely in its queue."""
        return publish.outcome is Outcome.OK and (
            not publish.sent or self.took_effect(publish.by, publish.invoked, publish.ended)
        )

    def is_settled(self, delivery: Delivery) -> bool:
        """Whether what its consumer did with it surely took effect."""
        return (
            delivery.settle is not Settle.NONE
            and delivery.outcome is Outcome.OK
            and (
                not delivery.is_socket or self.took_effect(delivery.to, delivery.settle_invoked, delivery.settle_ended)
            )
        )

    def release(self, delivery: Delivery) -> int:
        """From when on somebody else may have this message; NEVER if nothing that happened gives a reason."""
        times = [NEVER]
        settled = self.is_settled(delivery)
        wait_ns = self.queues[delivery.queue].retry_ns
        if delivery.settle in REQUEUES and delivery.outcome is not Outcome.FAILED:
            times.append(delivery.settle_invoked + max(wait_ns, LATER_NS * (delivery.settle is Settle.LATER)))
        end = self._ends.get(delivery.to)
        if end is not None and not settled:
            times.append(end.before)
        if delivery.is_socket and not settled:
            times.append(self.outage_after(delivery.since))
        return min(times)


class _Deaths:
    """When consumers of one queue ended."""

    def __init__(self, queue: int, ends: list[End]) -> None:
        self._before = sorted(end.before for end in ends if queue in end.queues)
        self._after = sorted(end.after + NOTICED_NS * end.is_socket for end in ends if queue in end.queues)

    def between(self, start: int, end: int) -> int:
        return max(0, bisect.bisect_right(self._before, end) - bisect.bisect_left(self._after, start))


def _lives(history: History) -> dict[tuple[int, MessageId], Life]:
    lives: dict[tuple[int, MessageId], Life] = {}
    for publish in history.publishes:
        lives.setdefault((publish.queue, publish.message), Life()).publish = publish
    for delivery in history.deliveries:
        lives.setdefault((delivery.queue, delivery.message), Life()).deliveries.append(delivery)
    for life in lives.values():
        if len(life.deliveries) > 1:
            life.deliveries.sort(key=lambda delivery: (delivery.count, delivery.at))
    return lives


def pairs(deliveries: list[Delivery]) -> Iterator[tuple[Delivery, Delivery]]:
    """Each delivery of a message and the next one."""
    return itertools.pairwise(deliveries)


def span(times: Iterable[int]) -> str:
    """Nanoseconds as milliseconds, for a person."""
    return " .. ".join(f"{time / 1e6:.3f}" for time in times)
