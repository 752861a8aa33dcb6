"""What a queue does, in plain Python: the model that the core is compared with. It knows no slot, ring, word or clock.

Owns: states and counts of messages, their order, capacity, what each operation answers, the totals. Time is hours from
the start, and a test is over long before the first: a message expires at once (0), or when a sweep says it is later.

Order within a level: what was returned goes first, by its time of publication, then the main line in order of commit.
Expiry and purge may leave holes in the main line; where that has happened the core may count the head of the main line
among the returned. That shows only when a delayed message, which is older than its place, stands there.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

MIB: Final = 1 << 20
TIERS: Final = ((64 << 10, 512), (8 << 20, 16 << 10), (1 << 30, 1 << 20))  # bodies up to, bytes of a granule
DELIVERIES_MAX, DELIVERIES_AGAIN, FAILURES_MAX = 255, 128, 255


class State(Enum):
    """States of a message, numbered as in the core."""

    FREE = 0
    WRITING = 1
    READY = 2
    DELAYED = 3
    UNACKED = 4
    ACKED = 5
    DEAD = 6


class Reason(Enum):
    """Why a message is DEAD."""

    REJECTED = 1
    EXPIRED = 2
    DELIVERY_LIMIT = 4


class Outcome(Enum):
    """Answers to a publish."""

    OK = 0
    FULL = 1
    TOO_LARGE = 3


@dataclass(frozen=True)
class Draft:
    """What is published."""

    body: bytes
    envelope: bytes = b""
    level: int = 0
    flags: int = 0
    ttl: int | None = None  # hours
    delay: int = 0  # hours


@dataclass(eq=False)
class Message:
    """One message from claim to FREE. Two are never equal."""

    draft: Draft
    level: int
    owner: int
    granules: tuple[int, int]  # (tier, how many); (0, 0): in the slot
    state: State = State.WRITING
    order: int = -1  # of commit by its publisher
    deliveries: int = 0
    failures: int = 0
    due: int = 0
    reason: Reason | None = None
    touched: tuple[int, int] | None = None  # (deliveries, hour the timeout ends)

    @property
    def is_large(self) -> bool:
        return self.granules != (0, 0)

    @property
    def charge(self) -> int:
        """Bytes of the arena."""
        return self.granules[1] * TIERS[self.granules[0]][1]

    def is_expired(self, hour: int = 0) -> bool:
        return self.draft.ttl is not None and self.draft.delay + self.draft.ttl <= hour  # it lives from when it is due


def _order(message: Message) -> int:
    return message.order


class QueueModel:
    """One queue. Every method is one operation of the core; AssertionError says what the core may not have done."""

    def __init__(self, levels: int, slots: int, inline_bytes: int, arena_bytes: int) -> None:
        self.levels, self.slots = levels, slots
        self.inline_bytes, self.arena_bytes = inline_bytes, arena_bytes
        self.messages: list[Message] = []  # all that are not FREE
        self.main: list[list[Message]] = [[] for _ in range(levels)]
        self.returned: list[list[Message]] = [[] for _ in range(levels)]
        self.holed: set[int] = set()  # levels whose main line may have holes
        self.delivery_limit: int | None = None
        self.totals: Counter[str] = Counter()
        self.seen: dict[tuple[Message, int, int, int], int] = {}  # first sight of a delivery by the ack timeout
        self._commits = 0

    # -- looking ------------------------------------------------------------------------------------------------------

    def in_state(self, state: State) -> list[Message]:
        return [message for message in self.messages if message.state is state]

    def owned(self, owner: int, state: State) -> list[Message]:
        return [message for message in self.in_state(state) if message.owner == owner]

    def counts(self) -> dict[int, int]:
        """How many are in each state, FREE aside."""
        return {state.value: len(self.in_state(state)) for state in State if state is not State.FREE}

    def stats(self) -> dict[str, int]:
        """The totals and gauges that the core must give."""
        names = "published delivered acked requeued dead expired purged settled aborted fired bytes_in bytes_out"
        gauges = {
            "ready": len(self.in_state(State.READY)),
            "unacked": len(self.in_state(State.UNACKED)),
            "delayed": len(self.in_state(State.DELAYED)),
            "dead_pending": len(self.in_state(State.DEAD)),
            "arena_used_bytes": self._arena_used(),
            "capacity": self.slots,
            "capacity_bytes": self.arena_bytes,
        }
        return {name: self.totals[name] for name in names.split()} | gauges

    def _arena_used(self) -> int:
        return sum(message.charge for message in self.messages)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def outcomes(self, draft: Draft) -> set[Outcome]:
        """What a publish may answer: one outcome, or two where it depends on how the arena is cut up."""
        inside, size = self._fits_inline(draft), len(draft.body)
        if not inside and size > self.arena_bytes:
            return {Outcome.TOO_LARGE}
        if len(self.messages) == self.slots:
            return {Outcome.FULL}
        return {Outcome.OK} if inside else self._arena_outcomes(draft)

    def _arena_outcomes(self, draft: Draft) -> set[Outcome]:
        tier, wanted = self._granules(draft)
        granule = TIERS[tier][1]
        all_bytes = self.arena_bytes + MIB if self.arena_bytes else 0  # room for the envelope of the largest body
        if wanted > all_bytes // granule:
            return {Outcome.TOO_LARGE}
        used = self._arena_used()
        runs = [message.granules[1] for message in self.messages if message.is_large and message.granules[0] == tier]
        free = all_bytes // granule - sum(runs)
        if (used and used + wanted * granule > all_bytes) or free < wanted:
            return {Outcome.FULL}
        longest_at_least = math.ceil(free / (len(runs) + 1))
        return {Outcome.OK} if longest_at_least >= wanted else {Outcome.OK, Outcome.FULL}

    def _fits_inline(self, draft: Draft) -> bool:
        return self._bytes(draft) <= self.inline_bytes

    @staticmethod
    def _bytes(draft: Draft) -> int:
        return -(-len(draft.body) // 8) * 8 + len(draft.envelope)

    def _granules(self, draft: Draft) -> tuple[int, int]:
        size = self._bytes(draft)
        tier = next(tier for tier, (most, _) in enumerate(TIERS) if size <= most)
        return tier, -(-size // TIERS[tier][1])

    def refused(self, draft: Draft) -> None:
        """A publish failed; one that had its slot already counts as aborted."""
        had_slot = len(self.messages) < self.slots and len(draft.body) <= self.arena_bytes
        self.totals["aborted"] += had_slot

    def claim(self, owner: int, draft: Draft) -> Message:
        """A slot, and granules where the body is large: WRITING."""
        granules = (0, 0) if self._fits_inline(draft) else self._granules(draft)
        message = Message(draft, min(draft.level, self.levels - 1), owner, granules)
        self.messages.append(message)
        return message

    def commit(self, message: Message) -> None:
        """WRITING -> READY or DELAYED: published."""
        message.order = self._commits
        self._commits += 1
        self.totals["published"] += 1
        self.totals["bytes_in"] += len(message.draft.body)
        if message.draft.delay:
            message.due = message.draft.delay
            self._become(message, State.DELAYED)
        else:
            self._become_ready(message, self.main)

    def abort(self, message: Message) -> None:
        """WRITING -> FREE."""
        self.totals["aborted"] += 1
        self._become_free(message)

    # -- delivering ---------------------------------------------------------------------------------------------------

    def took(self, owner: int, taken: Message | None, buried: set[Message]) -> None:
        """The core delivered `taken` to `owner`. Of `buried`, found expired, those on the way there are taken out."""
        for level in reversed(range(self.levels)):
            while possible := self._next(level):
                if expired := [message for message in possible if message in buried]:
                    assert expired[0].is_expired(), "a message that has not expired was found expired"
                    buried.remove(expired[0])
                    self._bury(expired[0], Reason.EXPIRED)
                    continue
                assert taken in possible, f"{taken} was delivered, next was {' or '.join(map(str, possible))}"
                self._deliver(taken, owner)
                return
            if self.levels <= 16:  # with more, what is known to be empty is not looked at
                self.holed.discard(level)
        assert taken is None, "delivered from an empty queue"

    def _next(self, level: int) -> list[Message]:
        """The messages of a level one of which must be delivered next: one, unless the main line has holes."""
        main, returned = self.main[level], self.returned[level]
        first = [min(returned, key=_order)] if returned else main[:1]
        if level not in self.holed:
            return first
        heads = [min([*returned, *main[: n + 1]], key=_order) for n in range(len(main))]
        return list(dict.fromkeys(first + heads))

    def _deliver(self, message: Message, owner: int) -> None:
        assert not message.is_expired(), "an expired message was delivered"
        self._leave_line(message)
        message.deliveries = DELIVERIES_AGAIN if message.deliveries == DELIVERIES_MAX else message.deliveries + 1
        message.owner = owner
        self._become(message, State.UNACKED)
        self.totals["delivered"] += 1
        self.totals["bytes_out"] += len(message.draft.body)

    # -- settling -----------------------------------------------------------------------------------------------------

    def ack(self, message: Message, *, keep: bool = False) -> None:
        """UNACKED -> FREE, or ACKED while views of its body live."""
        self.totals["acked"] += 1
        if keep:
            self._become(message, State.ACKED)
        else:
            self._become_free(message)

    def release(self, message: Message) -> None:
        """ACKED -> FREE: the last view is gone."""
        self._become_free(message)

    def requeue(self, message: Message, *, count_failure: bool) -> bool:
        """UNACKED -> READY in its place, or DEAD over the delivery limit. Returns whether it is READY."""
        if count_failure:
            message.failures = min(message.failures + 1, FAILURES_MAX)
            if self.delivery_limit is not None and message.failures > self.delivery_limit:
                self._bury(message, Reason.DELIVERY_LIMIT)
                return False
        self._become_ready(message, self.returned)
        self.totals["requeued"] += 1
        return True

    def reject(self, message: Message) -> None:
        """UNACKED -> DEAD(rejected)."""
        self._bury(message, Reason.REJECTED)

    def delay(self, message: Message, hours: int) -> None:
        """UNACKED -> DELAYED."""
        message.due = hours
        self._become(message, State.DELAYED)

    def touch(self, message: Message, hours: int) -> None:
        """The ack timeout of this delivery ends then."""
        message.touched = (message.deliveries, hours)

    # -- the broker and the supervisor --------------------------------------------------------------------------------

    def purge(self, upto: Message | None = None) -> int:
        """READY, published up to then -> FREE. Returns how many."""
        ready = self.in_state(State.READY)
        gone = [message for message in ready if upto is None or message.order <= upto.order]
        for message in gone:
            self._leave_line(message, hole=True)
            self._become_free(message)
        if len(gone) == len(ready):
            self.holed.clear()
        self.totals["purged"] += len(gone)
        return len(gone)

    def expire(self, hour: int) -> int:
        """READY past its time, anywhere -> DEAD(expired). Returns how many."""
        gone = [message for message in self.in_state(State.READY) if message.is_expired(hour)]
        for message in gone:
            self.holed.add(message.level)
            self._bury(message, Reason.EXPIRED)
        return len(gone)

    def overdue(self, timeout: int, hour: int) -> int:
        """UNACKED for longer, counted from the sweep's first sight of this delivery -> READY. Returns how many."""
        returned = 0
        for message in self.in_state(State.UNACKED):
            delivery = (message, message.owner, message.deliveries, message.failures)
            if delivery not in self.seen:
                self.seen = {seen: at for seen, at in self.seen.items() if seen[0] is not message} | {delivery: hour}
                continue
            moved = message.touched if message.touched and message.touched[0] == message.deliveries else None
            if hour >= (moved[1] if moved else self.seen[delivery] + timeout):
                returned += self.requeue(message, count_failure=True)
        return returned

    def is_due(self, message: Message, hour: int) -> bool:
        return message.due <= hour

    def fire(self, message: Message) -> None:
        """DELAYED -> READY, at the end of the main line."""
        self.totals["fired"] += 1
        self._become_ready(message, self.main)

    def settle_dead(self, message: Message) -> None:
        """DEAD -> FREE: dead-lettered or dropped."""
        self.totals["settled"] += 1
        self._become_free(message)

    def reap(self, owner: int, *, count_failure: bool, lost_session: bool = False) -> tuple[int, int, int]:
        """All of a dead owner; of a lost session only what is UNACKED. Returns (requeued, dead, freed)."""
        unacked = self.owned(owner, State.UNACKED)
        ready = sum(self.requeue(message, count_failure=count_failure) for message in unacked)
        freed = 0 if lost_session else sum(1 for _ in self._free_owned(owner))
        return ready, len(unacked) - ready, freed

    def _free_owned(self, owner: int) -> Iterator[Message]:
        for message in self.owned(owner, State.WRITING):
            self.abort(message)
            yield message
        for message in self.owned(owner, State.ACKED):
            self.release(message)
            yield message

    # -- changing state -----------------------------------------------------------------------------------------------

    def _become(self, message: Message, state: State) -> None:
        message.state = state

    def _become_ready(self, message: Message, lines: list[list[Message]]) -> None:
        lines[message.level].append(message)
        self._become(message, State.READY)

    def _become_free(self, message: Message) -> None:
        self.messages.remove(message)
        self._become(message, State.FREE)

    def _bury(self, message: Message, reason: Reason) -> None:
        self.totals["expired" if message.state is State.READY else "dead"] += 1
        if message.state is State.READY:
            self._leave_line(message)
        message.reason = reason
        self._become(message, State.DEAD)

    def _leave_line(self, message: Message, *, hole: bool = False) -> None:
        for line in (self.main[message.level], self.returned[message.level]):
            if message in line:
                line.remove(message)
        if hole:
            self.holed.add(message.level)
