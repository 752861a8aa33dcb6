"""What happens to dead messages: published where their queue's dead-letter exchange routes them, then freed at the
source.

Owns: taking dead messages up, publishing them to each target, trying again where a target is full, the alarm that
names both queues. Does not own: the rewriting of headers (death.py), routing (shmq.routing), when something is dead
(the core).
Invariants: a source is freed only when every target has the message: at least once, never lost; a target that stays
full holds up only the messages that go there; a message is dropped only where its queue names no place, or one that
is not there, and that is counted.
"""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple, Protocol

from shmq.core import _core
from shmq.core._core import Snapshot
from shmq.errors import InvalidArgument
from shmq.routing.addressing import DELAY, Addressed
from shmq.routing.router import DEFAULT_EXCHANGE
from shmq_daemon import death, policy
from shmq_daemon.events import Queue
from shmq_daemon.log import Logger
from shmq_daemon.routing import Target, targets
from shmq_daemon.topology import Topology
from shmq_daemon.watched import Quarantine, SlotWord, Watched

BATCH: Final = 256  # of one queue in one step
STUCK_MAX: Final = 4096  # then no more are taken up from that queue
RETRY_NS: Final = 50_000_000
TELL_NS: Final = 1_000_000_000  # between two looks at what was settled: nothing is logged per message
REASONS: Final = {
    _core.REJECTED: "rejected",
    _core.EXPIRED: "expired",
    _core.MAXLEN: "maxlen",
    _core.DELIVERY_LIMIT: "delivery_limit",
}
ALARM: Final = "dead-letter-target-full"
SET_APART: Final = -1  # beside the core's outcomes: the target's segment can't be used
WHY_NOT: Final = {
    _core.TOO_LARGE: "can never hold",
    _core.REFUSED: "is as long as it may be (x-overflow) and refuses",
    _core.STOPPED: "has more than its fair share of memory, and may not grow for",
    _core.NO_MEMORY: "has no memory for",
    SET_APART: "is set apart and can't take",
}


class Alarms(Protocol):
    """Where alarms go."""

    def raise_alarm(self, kind: str, subject: str, text: str) -> None: ...
    def clear_alarm(self, kind: str, subject: str) -> None: ...


class Settled(NamedTuple):
    """What became of dead messages, for the log."""

    queue: str
    reason: str
    fate: str
    exchange: str | None
    routing_key: str | None


class DeadLetters:
    """Dead-letters the messages of all watched queues."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        topology: Topology,
        watched: dict[int, Watched],
        quarantine: Quarantine,
        alarms: Alarms,
        log: Logger,
        wall_clock_s: Callable[[], int],
    ) -> None:
        self._topology = topology
        self._watched = watched
        self._quarantine = quarantine
        self._alarms = alarms
        self._log = log
        self._wall_clock_s = wall_clock_s
        self._full: dict[str, str] = {}  # source -> target
        self._cycles_told: set[tuple[str, str]] = set()
        self._untold: Counter[Settled] = Counter()
        self._told_ns = 0
        self.counts: Counter[str] = Counter()

    @staticmethod
    def take(watched: Watched) -> list[SlotWord]:
        """Take out what is dead in one queue, a batch at most, for `step`. Before the topology is looked at: what a
        binding was made for may have died since.
        """
        taken: list[SlotWord] = []
        while len(taken) < BATCH and len(watched.stuck) + len(taken) < STUCK_MAX:
            at = watched.core.dead_pop()
            if at is None:
                break
            taken.append(at)
        return taken

    def step(self, watched: Watched, taken: list[SlotWord], now_ns: int) -> bool:
        """Take up what was taken out of one queue. True: there may be more."""
        tally: Counter[tuple[str, str]] = Counter()
        if watched.stuck and now_ns >= watched.retry_ns:
            self._retry(watched, now_ns, tally)
        for at in taken:
            if at not in watched.stuck:  # who is was found by a scan; what it waits for is known
                self._take_up(watched, at, set(), now_ns, tally)
        self._note(watched, tally)
        return len(taken) == BATCH

    @staticmethod
    def adopt(watched: Watched, found: list[SlotWord]) -> None:
        """Dead messages that a scan found, perhaps in no ring: tried with the stuck ones, as far as there is room."""
        unknown = [at for at in found if at not in watched.stuck]
        room = max(STUCK_MAX - len(watched.stuck), 0)
        watched.stuck.update((at, set()) for at in unknown[:room])
        watched.has_more_dead |= len(unknown) > room
        watched.retry_ns = 0

    @staticmethod
    def wants_scan(watched: Watched) -> bool:
        """Whether there is room again for what a scan had to leave."""
        wanted = watched.has_more_dead and len(watched.stuck) <= STUCK_MAX // 2
        if wanted:
            watched.has_more_dead = False
        return wanted

    def _retry(self, watched: Watched, now_ns: int, tally: Counter[tuple[str, str]]) -> None:
        for at in list(islice(watched.stuck, BATCH)):
            self._take_up(watched, at, watched.stuck.pop(at), now_ns, tally)
        if not watched.stuck and watched.name in self._full:
            del self._full[watched.name]
            self._alarms.clear_alarm(ALARM, watched.name)

    def _take_up(
        self, watched: Watched, at: SlotWord, done: set[int], now_ns: int, tally: Counter[tuple[str, str]]
    ) -> None:
        """One dead message; `done`: ids of the targets that have it."""
        snapshot = watched.core.peek(*at)
        if snapshot is None or snapshot.state != _core.DEAD:
            return
        reason = REASONS.get(snapshot.reason, "rejected")
        fate = self._dead_letter(watched, snapshot, reason, done)
        if fate is None:
            watched.stuck[at] = done  # behind the others
            watched.retry_ns = now_ns + RETRY_NS
        elif watched.core.settle_dead(*at):
            tally[fate, reason] += 1

    def _dead_letter(self, watched: Watched, snapshot: Snapshot, reason: str, done: set[int]) -> str | None:
        """Publish to every target that has not got it. Returns what became of it, None when a target is full."""
        definition = watched.queue.definition
        exchange = definition.dead_letter_exchange
        if exchange is None:
            return "dropped"
        if exchange != DEFAULT_EXCHANGE and exchange not in self._topology.exchanges:
            return "dropped, no dead-letter exchange"
        letter = death.dead_letter(
            snapshot.envelope,
            watched.name,
            reason,
            exchange,
            definition.dead_letter_routing_key,
            self._wall_clock_s(),
        )
        found = self._targets(exchange, letter)
        kept = [target for target in found if not self._closes_cycle(watched, letter, target.queue, reason)]
        for target in kept:
            if target.queue.queue_id not in done and not self._publish(watched, target, snapshot):
                return None
            done.add(target.queue.queue_id)
        return "dead-lettered" if kept else "dropped, no target"

    def _targets(self, exchange: str, letter: death.DeadLetter) -> list[Target]:
        """An x-delay that is no time counts as none: whoever could be told of it is gone."""
        addressed = Addressed(letter.routing_keys, letter.headers, letter.envelope)
        try:
            return targets(self._topology, exchange, addressed)
        except InvalidArgument:
            headers = {name: value for name, value in letter.headers.items() if name != DELAY}
            return targets(self._topology, exchange, addressed._replace(headers=headers))

    def _closes_cycle(self, watched: Watched, letter: death.DeadLetter, target: Queue, reason: str) -> bool:
        if reason == death.REJECTED or not death.is_cycle(letter.deaths, target.name):
            return False
        if (watched.name, target.name) not in self._cycles_told:
            self._cycles_told.add((watched.name, target.name))
            self._log.warning(
                "dead-letter cycle, target skipped", queue=watched.name, target=target.name, reason=reason
            )
        return True

    def _publish(self, source: Watched, to: Target, snapshot: Snapshot) -> bool:
        """True: the target has it, or is being deleted. One that we could not open waits for a supervisor that can."""
        target = to.queue
        watched = self._watched.get(target.queue_id)
        if watched is None:
            self._alarm(source.name, target.name, SET_APART)
            return False
        ttl_ns = policy.ttl_ns_of(target.definition, -1)

        def publish(opened: Watched) -> int:
            core, priority, flags = opened.core, snapshot.priority, snapshot.flags
            return core.publish(snapshot.body, priority, to.envelope, ttl_ns, to.delay_ns, flags, snapshot.sender)

        outcome = self._quarantine.run(watched, publish, SET_APART)
        dead_there = outcome == _core.REFUSED and policy.overflow_of(target.definition) == _core.REFUSES_DEAD
        if outcome in (_core.OK, _core.DELETED) or dead_there:
            return True
        self._alarm(source.name, target.name, outcome)
        return False

    def _alarm(self, source: str, target: str, outcome: int) -> None:
        if source in self._full:
            return
        self._full[source] = target
        why = WHY_NOT.get(outcome, "is full for")
        text = f"queue {target!r} {why} the dead letters of queue {source!r}; they wait there. Consume from {target!r}"
        self._alarms.raise_alarm(ALARM, source, text)

    def forget(self, watched: Watched) -> None:
        """A queue is gone, and with it what waited there."""
        self._full.pop(watched.name, None)

    def _note(self, watched: Watched, tally: Counter[tuple[str, str]]) -> None:
        definition = watched.queue.definition
        exchange, key = definition.dead_letter_exchange, definition.dead_letter_routing_key
        for (what, reason), count in tally.items():
            kind = "dead_lettered" if what == "dead-lettered" else "dead_dropped"
            self.counts[kind] += count
            self._untold[Settled(watched.name, reason, what, exchange, key)] += count

    @property
    def tell_ns(self) -> int | None:
        """When `tell` has something to say; None: nothing."""
        return self._told_ns + TELL_NS if self._untold else None

    def tell(self, now_ns: int) -> None:
        """Log what was settled, the first at once, the rest of a second in one line."""
        if not self._untold or now_ns < self._told_ns + TELL_NS:
            return
        self._told_ns = now_ns
        for settled, count in self._untold.items():
            given = {name: value for name, value in settled._asdict().items() if value is not None}
            self._log.info("dead messages settled", count=count, **given)
        self._untold.clear()
