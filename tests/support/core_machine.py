"""The core's segment, the model beside it, and what each owner holds: what the rules of test_model.py work with.

Owns: taking with its comparison, what the supervisor knows, what must hold after every rule. Does not own: the rules.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypothesis.stateful import RuleBasedStateMachine, invariant

from shmq.core import CONSUMERS, Loan, Queue, Snapshot
from shmq.core import Message as CoreMessage
from shmq.errors import ShmqError
from support.delivery_model import Held, Refusal
from support.queue_model import Message, QueueModel, State
from support.segments import Segment

HOUR_NS: Final = 3600 * 10**9
OWNERS: Final = (32, 33, 300)
SUPERVISOR: Final = 16


@dataclass(eq=False)
class Lent:
    """A loan that is open."""

    loan: Loan
    message: Message
    owner: int


def refusal_of(call: Callable[[], object]) -> Refusal:
    """Return the class of the error that a call raises, and nothing that would keep its frame alive."""
    try:
        call()
    except ShmqError as error:
        return type(error)
    return None


def pattern(number: int, size: int) -> bytes:
    """Return bytes that only this message has (from four on)."""
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


class CoreMachine(RuleBasedStateMachine):
    """One queue as the core has it and as the model has it."""

    segment: Segment
    model: QueueModel
    queues: dict[int, Queue]  # by owner
    supervisor: Queue

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Held] = []
        self.lent: list[Lent] = []
        self.sleepers: list[int] = []
        self.delayed: dict[Message, tuple[int, int]] = {}  # what the supervisor knows
        self.dead: dict[Message, tuple[int, int]] = {}
        self.number = 0

    # -- delivering ---------------------------------------------------------------------------------------------------

    def numbered(self, flags: int) -> Message:
        return next(message for message in self.model.messages if message.draft.flags == flags)

    def newly_dead(self) -> set[Message]:
        """Messages that a take found expired on its way."""
        known = self.model.in_state(State.DEAD)
        if self.supervisor.stats()["dead_pending"] == len(known):
            return set()
        return {self.numbered(snapshot.flags) for _, _, snapshot in self.snapshots(State.DEAD)} - set(known)

    def take(self, owner: int, most: int = 1, *, no_ack: bool = False) -> list[Held]:
        """Take, and see that it was what the model says."""
        queue = self.queues[owner]
        taken = queue.take_many(most, no_ack) if most > 1 else list(filter(None, [queue.take(no_ack)]))
        buried = self.newly_dead()
        held = [self.hold(owner, message, buried, no_ack=no_ack) for message in taken]
        if len(taken) < most:
            self.model.took(owner, None, buried)
        assert not buried
        return held

    def hold(self, owner: int, core: CoreMessage, buried: set[Message], *, no_ack: bool) -> Held:
        message = self.numbered(core.flags)
        self.model.took(owner, message, buried)
        held = Held(core, message, owner, "auto" if no_ack else "unacked")
        draft = message.draft
        assert (core.envelope, core.priority) == (draft.envelope, draft.level)
        assert (core.body_bytes, core.expires_ns > 0) == (len(draft.body), draft.ttl is not None)
        assert (core.delivery_count, core.failure_count) == (message.deliveries, message.failures)
        assert core.redelivered == (message.deliveries > 1)
        if no_ack:
            self.model.ack(message)
        return held

    def drop(self, gone: Iterable[Held]) -> None:
        for held in list(gone):
            self.held.remove(held)
            for view in held.views:
                view.memory.release()
            held.views.clear()
            held.release_unpinned(self.model)
            held.forgotten(self.model)

    # -- the supervisor -----------------------------------------------------------------------------------------------

    @staticmethod
    def at(hour: int) -> int:
        return time.monotonic_ns() + hour * HOUR_NS

    def snapshots(self, state: State) -> Iterable[tuple[int, int, Snapshot]]:
        for slot, ctl in self.supervisor.scan(state.value):
            snapshot = self.supervisor.peek(slot, ctl)
            assert snapshot is not None
            yield slot, ctl, snapshot

    def same(self, snapshot: Snapshot) -> Message:
        """Return the message that this is a copy of, and see that it is a good one."""
        message = self.numbered(snapshot.flags)
        assert (snapshot.body, snapshot.envelope) == (message.draft.body, message.draft.envelope)
        assert snapshot.state == message.state.value
        assert snapshot.reason == (message.reason.value if message.reason else 0)
        assert snapshot.level == message.level
        assert (snapshot.delivery_count, snapshot.failure_count) == (message.deliveries, message.failures)
        return message

    def note_delayed(self, slot: int, ctl: int, due_ns: int) -> None:
        snapshot = self.supervisor.peek(slot, ctl)
        assert snapshot is not None
        message = self.same(snapshot)
        assert abs(due_ns - self.at(message.due)) < HOUR_NS // 2
        self.delayed[message] = (slot, ctl)

    def note_dead(self, slot: int, ctl: int) -> None:
        snapshot = self.supervisor.peek(slot, ctl)
        assert snapshot is not None
        self.dead[self.same(snapshot)] = (slot, ctl)

    def scan(self) -> None:
        for slot, ctl in self.supervisor.scan(State.DELAYED.value):
            self.note_delayed(slot, ctl, self.supervisor.due_ns(slot, ctl))
        for slot, ctl in self.supervisor.scan(State.DEAD.value):
            self.note_dead(slot, ctl)

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        counts, stats = self.supervisor.count_states(), self.supervisor.stats()

        assert {state: n for state, n in counts.items() if state != State.FREE.value} == self.model.counts()
        assert {name: stats[name] for name in self.model.stats()} == self.model.stats()

    @invariant()
    def holds_what_it_says(self) -> None:
        for held in self.held:
            assert held.core.state == held.state
            if not held.is_detached:
                assert held.core.is_current == (held.is_kept or (held.state == "unacked" and held.is_current))

    @invariant()
    def is_sound_with_nothing_to_heal(self) -> None:
        assert self.supervisor.check() == []

        report = self.supervisor.heal(full=True)

        assert (report["bits"], report["references"]) == (0, 0)
        if report["rescan"]:  # a ring for the supervisor was full: it looks itself
            self.scan()

    @invariant()
    def nobody_sleeps_beside_a_message(self) -> None:
        ready = len(self.model.in_state(State.READY))
        if ready:
            assert self.supervisor.may_have(CONSUMERS)
        if ready and self.sleepers:
            lines = Path("/proc/self/fdinfo", str(self.segment.bells[0])).read_text().split()
            tokens = int(lines[lines.index("eventfd-count:") + 1], 16)
            assert tokens >= min(ready, len(self.sleepers))
