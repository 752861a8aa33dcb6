"""The core against a plain model: random operations of several owners, and after each one both agree.

Invariant: states, totals, order, counts, bodies, errors are those of support.queue_model; the segment is sound; nobody
who waits sleeps beside a message. At the end everything can be drained and every slot be used again.
"""

import itertools
import os
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from shmq.core import CONSUMERS, DELETED, Queue
from shmq.errors import AlreadySettled, DetachedQueue
from support.core_machine import HOUR_NS, OWNERS, SUPERVISOR, CoreMachine, Lent, pattern, refusal_of
from support.delivery_model import Held
from support.queue_model import MIB, Draft, Message, Outcome, QueueModel, State
from support.segments import Segment

EXAMPLES: Final = int(os.environ.get("SHMQ_TEST_EXAMPLES", "1000"))
ALIVE_BYTES: Final = 8192
SIZES: Final = (0, 4, 5, 56, 64, 65, 200, 256, 257, 600, 5_000, 65_500, 70_000, 300_000, MIB, 2 * MIB, 2 * MIB + 1)

owners = st.sampled_from(OWNERS)
picks = st.integers(0, 10_000)
hours = st.sampled_from((0, 2, 4))  # of sweeps
later = st.sampled_from((1, 3))  # when things are due


@dataclass(frozen=True)
class Shape:
    """A draft before it has its number."""

    size: int
    envelope_bytes: int
    level: int
    ttl: int | None
    delay: int


shapes = st.builds(
    Shape,
    st.one_of(st.sampled_from(SIZES[:6]), st.sampled_from(SIZES)),
    st.sampled_from((0, 0, 0, 9, 100)),
    st.sampled_from((0, 0, 1, 2, 7, 19, 255)),
    st.sampled_from((None, None, None, 0, 1, 3)),
    st.sampled_from((0, 0, 0, 0, 1, 3)),
)


class Core(CoreMachine):
    """What owners, the broker and the supervisor do."""

    @initialize(
        levels=st.sampled_from((1, 3, 20)),
        slots=st.sampled_from((8, 9, 16, 40)),
        inline_bytes=st.sampled_from((0, 64, 256)),
        arena_bytes=st.sampled_from((2 * MIB, 2 * MIB, 0)),
    )
    def create(self, levels: int, slots: int, inline_bytes: int, arena_bytes: int) -> None:
        self.segment = Segment((levels, slots, inline_bytes, 4, arena_bytes))
        self.model = QueueModel(levels, slots, inline_bytes, arena_bytes)
        self.queues = {owner: self.segment.attach(owner) for owner in OWNERS}
        self.supervisor = self.segment.attach(SUPERVISOR)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def draft(self, shape: Shape) -> tuple[Draft, dict[str, Any]]:
        """Number a message, in its body and, so that no body must be read to tell it, in its flags."""
        taken = {message.draft.flags for message in self.model.messages}
        self.number = next(n for n in range(self.number + 1, self.number + 300) if n % 256 not in taken)
        body, envelope = pattern(self.number, shape.size), pattern(self.number, shape.envelope_bytes)
        # 0 hours are 1 ns: over at once, also beside a sleeper, who has a while for what may live for 0 ns
        flags, ttl_ns = self.number % 256, -1 if shape.ttl is None else shape.ttl * HOUR_NS or 1
        keywords = {"level": shape.level, "envelope": envelope, "flags": flags}
        keywords |= {"ttl_ns": ttl_ns, "delay_ns": shape.delay * HOUR_NS}
        return Draft(body, envelope, shape.level, flags, shape.ttl, shape.delay), keywords

    def claim(self, owner: int, draft: Draft, outcome: int) -> Message | None:
        """Follow the core's answer to a publish, if the model allows it."""
        assert Outcome(outcome) in self.model.outcomes(draft), f"{Outcome(outcome)}: {draft}"
        if Outcome(outcome) is Outcome.OK:
            return self.model.claim(owner, draft)
        self.model.refused(draft)
        return None

    @rule(owner=owners, shape=shapes)
    def publish(self, owner: int, shape: Shape) -> None:
        draft, keywords = self.draft(shape)

        outcome = self.queues[owner].publish(draft.body, **keywords)

        if message := self.claim(owner, draft, outcome):
            self.model.commit(message)

    @rule(owner=owners, shape=shapes, many=st.integers(2, 12))
    def publish_many(self, owner: int, shape: Shape, many: int) -> None:
        """All have the flags of the first, so each body is published by a call of its own: all but one are left out."""
        for _ in range(many):
            draft, keywords = self.draft(shape)
            published, outcome = self.queues[owner].publish_many([b"no", draft.body], 1, **keywords)

            assert published == (Outcome(outcome) is Outcome.OK)
            if not (message := self.claim(owner, draft, outcome)):
                return
            self.model.commit(message)

    @rule(owner=owners, level=st.sampled_from((0, 1)), ttls=st.sampled_from(((None,), (None, 1), (1, None, 3), (3, 0))))
    def fill(self, owner: int, level: int, ttls: tuple[int | None, ...]) -> None:
        """Publish small messages, some of which expire, until the queue is full."""
        for ttl in itertools.cycle(ttls):
            before = len(self.model.messages)
            self.publish(owner, Shape(0, 0, level, ttl, 0))
            if len(self.model.messages) == before:
                return

    @rule(owner=owners, shape=shapes)
    def lend(self, owner: int, shape: Shape) -> None:
        draft, keywords = self.draft(shape)

        loan = self.queues[owner].loan(shape.size, **keywords)

        message = self.claim(owner, draft, loan if isinstance(loan, int) else Outcome.OK.value)
        if message and not isinstance(loan, int):
            loan.view()[:] = draft.body
            self.lent.append(Lent(loan, message, owner))

    @precondition(lambda self: self.lent)
    @rule(pick=picks, commits=st.booleans())
    def end_loan(self, pick: int, commits: bool) -> None:  # noqa: FBT001 - hypothesis gives keywords
        lent = self.lent.pop(pick % len(self.lent))
        if commits:
            assert lent.loan.commit() == Outcome.OK.value
            self.model.commit(lent.message)
            assert refusal_of(lent.loan.abort) is AlreadySettled
        else:
            lent.loan.abort()
            self.model.abort(lent.message)
            assert refusal_of(lent.loan.commit) is AlreadySettled

    # -- delivering ---------------------------------------------------------------------------------------------------

    @rule(owner=owners, no_ack=st.sampled_from((False, False, False, True)))
    def take_one(self, owner: int, no_ack: bool) -> None:  # noqa: FBT001 - as above
        self.held += self.take(owner, no_ack=no_ack)

    @rule(owner=owners, most=st.integers(2, 20))
    def take_several(self, owner: int, most: int) -> None:
        self.held += self.take(owner, most)

    @rule(owner=owners, most=st.integers(1, 12), looks=st.sampled_from(("", "", "reads", "views")))
    def work(self, owner: int, most: int, looks: str) -> None:
        """A consumer takes some messages and acks each."""
        for held in self.take(owner, most):
            if looks == "reads":
                assert held.core.body == held.message.draft.body
                held.was_read(self.model)
            elif looks == "views":
                held.was_viewed(held.core.view())
            held.core.ack()
            held.acked(self.model)
            self.held.append(held)

    @rule(owner=owners, times=st.sampled_from((2, 20, 130)), counts=st.booleans())
    def poison(self, owner: int, times: int, counts: bool) -> None:  # noqa: FBT001 - as above
        """One message comes back again and again."""
        for _ in range(times):
            for held in self.take(owner):
                if counts:
                    held.core.reject(requeue=True)
                else:
                    held.core.nack()
                self.model.requeue(held.message, count_failure=counts)

    # -- settling -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def ack(self, pick: int) -> None:
        held = self.held[pick % len(self.held)]
        expected = None if held.state == "auto" else held.refusal()

        assert refusal_of(held.core.ack) is expected

        if held.state == "unacked":
            held.acked(self.model)

    @precondition(lambda self: self.held)
    @rule(pick=picks, requeue=st.sampled_from((True, True, False)), delay=st.sampled_from((0, 0, 1, 3)))
    def nack(self, pick: int, requeue: bool, delay: int) -> None:  # noqa: FBT001 - as above
        held = self.held[pick % len(self.held)]
        expected = held.refusal(gives_back=True)
        delay = delay if requeue else 0

        assert refusal_of(lambda: held.core.nack(requeue, delay * 3600.0)) is expected

        if expected is None:
            held.state = "nacked"
            if delay:
                self.model.delay(held.message, delay)
            else:
                self.give_back(held, requeue=requeue, count_failure=False)

    @precondition(lambda self: self.held)
    @rule(pick=picks, requeue=st.booleans())
    def reject(self, pick: int, requeue: bool) -> None:  # noqa: FBT001 - as above
        held = self.held[pick % len(self.held)]
        expected = held.refusal(gives_back=True)

        assert refusal_of(lambda: held.core.reject(requeue)) is expected

        if expected is None:
            held.state = "rejected"
            self.give_back(held, requeue=requeue, count_failure=True)

    def give_back(self, held: Held, *, requeue: bool, count_failure: bool) -> None:
        if requeue:
            self.model.requeue(held.message, count_failure=count_failure)
        else:
            self.model.reject(held.message)

    @precondition(lambda self: self.held)
    @rule(step=st.sampled_from((1, -1, 2)))
    def nack_all(self, step: int) -> None:
        """Everything goes back: as it came, in reverse, every second one."""
        for held in self.held[::step]:
            if held.state == "unacked" and held.is_current and not held.views:
                held.core.nack()
                held.state = "nacked"
                self.model.requeue(held.message, count_failure=False)

    @precondition(lambda self: self.held)
    @rule(pick=picks, extend=later)
    def touch(self, pick: int, extend: int) -> None:
        held = self.held[pick % len(self.held)]
        expected = held.refusal()

        assert refusal_of(lambda: held.core.touch(extend * 3600.0)) is expected

        if expected is None:
            self.model.touch(held.message, extend)

    # -- bodies -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def read(self, pick: int) -> None:
        held = self.held[pick % len(self.held)]
        expected = held.body_refusal()
        if expected is not None:
            assert refusal_of(lambda: held.core.body) is expected
            return

        assert held.core.body == held.message.draft.body

        held.was_read(self.model)

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def view(self, pick: int) -> None:
        held = self.held[pick % len(self.held)]
        expected = held.body_refusal()
        if expected is not None:
            assert refusal_of(held.core.view) is expected
            return
        held.was_viewed(held.core.view())

        assert held.views[-1].memory.readonly
        assert held.views[-1].memory == held.message.draft.body

    @precondition(lambda self: any(held.views for held in self.held))
    @rule(pick=picks)
    def release_view(self, pick: int) -> None:
        having = [held for held in self.held if held.views]
        held = having[pick % len(having)]
        view = held.views.pop(pick % len(held.views))
        held.views.append(view)

        assert not held.shows_body(view) or view.memory == held.message.draft.body

        held.views.pop().memory.release()
        held.release_unpinned(self.model)

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def forget(self, pick: int) -> None:
        """The application loses the object; an unacked message stays unacked."""
        self.drop([self.held[pick % len(self.held)]])

    # -- the broker and the supervisor --------------------------------------------------------------------------------

    @rule(limit=st.sampled_from((-1, 0, 1, 3, 254)))
    def set_limits(self, limit: int) -> None:
        self.supervisor.set_limits(delivery_limit=limit)
        self.model.delivery_limit = None if limit < 0 else limit

    @rule(pick=picks, everything=st.booleans())
    def purge(self, pick: int, everything: bool) -> None:  # noqa: FBT001 - as above
        ready = self.model.in_state(State.READY)
        if everything or not ready:
            assert self.supervisor.purge() == self.model.purge()
            return
        last = ready[pick % len(ready)]
        sequence = next(s.sequence for _, _, s in self.snapshots(State.READY) if s.flags == last.draft.flags)

        assert self.supervisor.purge(sequence) == self.model.purge(last)

    @rule(hour=hours, settled=st.booleans())
    def expire(self, hour: int, settled: bool) -> None:  # noqa: FBT001 - as above
        """Expiry anywhere leaves holes in the lines, and, where what is dead is settled, room for more behind them."""
        assert self.supervisor.expire_due(self.at(hour)) == self.model.expire(hour)
        if settled:
            self.dead_letter(self.model.slots)

    @rule(sights=st.lists(hours, min_size=1, max_size=3))
    def overdue(self, sights: list[int]) -> None:
        for hour in sights:
            assert self.supervisor.overdue(HOUR_NS, self.at(hour)) == self.model.overdue(1, hour)

    @rule(owner=owners, extend=later, times=st.integers(0, 3))
    def touch_and_return(self, owner: int, extend: int, times: int) -> None:
        """What moved the time-out of one delivery says nothing about the next ones."""
        for held in self.take(owner):
            held.core.touch(extend * 3600.0)
            self.model.touch(held.message, extend)
            self.held.append(held)
        if times:
            self.nack_all(1)
            self.poison(owner, times - 1, counts=False)
            self.take_one(owner, no_ack=False)
        self.overdue([0, 2])

    @rule(hour=hours)
    def fire(self, hour: int) -> None:
        """The supervisor knows every delayed message, and fires what is due, the earliest first."""
        while popped := self.supervisor.delayed_pop():
            self.note_delayed(*popped)

        assert set(self.delayed) == set(self.model.in_state(State.DELAYED))
        for message in sorted(self.delayed, key=lambda message: (message.due, message.order)):
            fired = self.supervisor.fire_delayed(*self.delayed[message], self.at(hour))
            assert fired == self.model.is_due(message, hour)
            if fired:
                self.model.fire(message)
                del self.delayed[message]

    @rule(most=st.integers(1, 40))
    def dead_letter(self, most: int) -> None:
        """The supervisor knows every dead message, and settles some of them."""
        while popped := self.supervisor.dead_pop():
            self.note_dead(*popped)

        assert set(self.dead) == set(self.model.in_state(State.DEAD))
        for message in list(self.dead)[:most]:
            slot, ctl = self.dead.pop(message)
            assert self.supervisor.settle_dead(slot, ctl)
            assert not self.supervisor.settle_dead(slot, ctl)
            self.model.settle_dead(message)

    @rule()
    def restart_supervisor(self) -> None:
        """A new supervisor finds by a scan what the last one knew; what it had timed begins anew."""
        self.supervisor = self.segment.attach(SUPERVISOR + 1)
        self.model.seen.clear()
        self.delayed.clear()
        self.dead.clear()
        self.scan()

    @rule(owner=owners, counts=st.booleans(), way=st.sampled_from(("died", "lost", "all but")))
    def reap(self, owner: int, counts: bool, way: str) -> None:  # noqa: FBT001 - as above
        """An owner dies, or loses its session. What it still holds is refused from then on."""
        expected = self.model.reap(owner, count_failure=counts, lost_session=way == "lost")
        if way == "all but":
            alive = bytearray(b"\xff" * ALIVE_BYTES)
            alive[owner // 8] &= ~(1 << owner % 8)
            assert self.supervisor.reap_except(bytes(alive), count_failure=counts) == expected
        else:
            assert self.supervisor.reap(owner, count_failure=counts, lost_session=way == "lost") == expected
        if way != "lost":
            self.bury_owner(owner)

    def bury_owner(self, owner: int) -> None:
        """The dead owner's late calls fail. Its index is used anew."""
        self.lent = [lent for lent in self.lent if lent.owner != owner]
        self.sleepers = [sleeper for sleeper in self.sleepers if sleeper != owner]
        for held in [held for held in self.held if held.owner == owner]:
            held.is_kept = False
            assert refusal_of(held.core.ack) is (None if held.state == "auto" else held.refusal())
            self.drop([held])
        self.queues[owner] = self.segment.attach(owner)

    @rule(owner=owners)
    def leave(self, owner: int) -> None:
        """An owner says goodbye: what it had unacked goes back, its loans go, views that it still has stay good."""
        queue = self.queues[owner]
        requeued, _, _ = self.model.reap(owner, count_failure=False, lost_session=True)
        assert queue.requeue_owned() == requeued
        if owner in self.sleepers:
            queue.bell_leave(CONSUMERS)
            self.sleepers.remove(owner)
        queue.close()
        for lent in [lent for lent in self.lent if lent.owner == owner]:
            assert refusal_of(lent.loan.commit) is DetachedQueue
            self.lent.remove(lent)
            self.model.abort(lent.message)
        for held in [held for held in self.held if held.owner == owner]:
            held.is_detached = True
            if held.state == "unacked":
                assert refusal_of(held.core.ack) is DetachedQueue
                self.drop([held])
        assert refusal_of(queue.take) is DetachedQueue
        self.queues[owner] = self.segment.attach(owner)

    # -- waiting ------------------------------------------------------------------------------------------------------

    @rule(owner=owners)
    def sleep(self, owner: int) -> None:
        """A consumer registers, looks, and sleeps unless something may be there."""
        queue = self.queues[owner]
        if owner in self.sleepers:
            return
        queue.bell_register(CONSUMERS)
        if queue.may_have(CONSUMERS):
            queue.bell_leave(CONSUMERS)
        else:
            self.sleepers.append(owner)

    @precondition(lambda self: self.sleepers)
    @rule(pick=picks)
    def wake(self, pick: int) -> None:
        """A sleeper tries to read a token; with one, it looks."""
        owner = self.sleepers[pick % len(self.sleepers)]
        if self.queues[owner].bell_token(CONSUMERS):
            self.sleepers.remove(owner)
            self.held += self.take(owner)

    @precondition(lambda self: self.sleepers)
    @rule(pick=picks)
    def stop_waiting(self, pick: int) -> None:
        self.queues[self.sleepers.pop(pick % len(self.sleepers))].bell_leave(CONSUMERS)

    # -- what always holds --------------------------------------------------------------------------------------------

    @rule(state=st.sampled_from((State.READY, State.UNACKED)))
    def browse(self, state: State) -> None:
        copies = [self.same(snapshot) for _, _, snapshot in self.snapshots(state)]

        assert set(copies) == set(self.model.in_state(state))

    # -- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """All owners die; what they leave is drained, and the queue is as good as new."""
        if not hasattr(self, "segment"):
            return
        try:
            self.drain()
            self.fill_and_delete(self.queues[OWNERS[0]])
        finally:
            self.held.clear()
            self.segment.close()

    def drain(self) -> None:
        for owner in OWNERS:
            self.reap(owner, counts=False, way="died")
        self.fire(4)
        while held := self.take(OWNERS[0], 7):
            for delivery in held:
                assert delivery.core.body == delivery.message.draft.body
                delivery.was_read(self.model)
                delivery.core.ack()
                delivery.acked(self.model)
        self.dead_letter(self.model.slots)
        self.agrees()
        self.is_sound_with_nothing_to_heal()
        assert not self.model.messages

    def fill_and_delete(self, queue: Queue) -> None:
        """Every slot can be claimed again; then the queue is deleted, and what is in it still comes out."""
        published, outcome = queue.publish_many([b""] * (self.model.slots + 1))
        assert (published, outcome) == (self.model.slots, Outcome.FULL.value)
        queue.mark_deleted()
        assert queue.deleted
        assert queue.publish(b"") == DELETED
        assert len(queue.take_many(published + 1, no_ack=True)) == published


@pytest.mark.slow
def test_the_core_does_what_the_model_says() -> None:
    run_state_machine_as_test(
        Core, settings=settings(max_examples=EXAMPLES, stateful_step_count=60, report_multiple_bugs=False)
    )
