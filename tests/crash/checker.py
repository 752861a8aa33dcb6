"""What must hold for every history of a run, whatever died in it: the rules, each by its name.

Owns: the rules about each message by itself; entry point of all. Does not own: order (ordering.py), counters
(counters.py), the history. Invariant: a rule complains only about what no interleaving of the recorded operations
explains; where an outcome is unknown it takes either for possible. It is never made softer for a run's sake: a
complaint is a bug, here or there.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from crash import ordering, rounds
from crash.bodies import MessageId
from crash.history import (
    NEVER,
    REQUEUES,
    Delivery,
    Facts,
    History,
    Life,
    Outcome,
    Publish,
    Settle,
    pairs,
    span,
)

LATE_NS: Final = 10_000_000  # how long after its expiry a message may still be delivered
SHOWN_MAX: Final = 20  # of one rule
MANY: Final = 1 << 20  # copies, where a message may come again and again; rounds.py has what holds there


class Violation(NamedTuple):
    """Which rule, and what broke it."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


class Case(NamedTuple):
    """One message in one queue, as the rules look at it."""

    facts: Facts
    queue: int
    message: MessageId
    life: Life
    copies: int  # how many of it there may be: more than one only of dead letters

    def name(self) -> str:
        return f"{self.facts.queues[self.queue].name} {tuple(self.message)}"


def check(history: History) -> list[Violation]:
    """Return everything that must not be, by rule."""
    facts = Facts(history)
    found = [Violation("error", text) for text in history.errors]
    for case in _cases(facts):
        for rule, check_case in RULES.items():
            found.extend(Violation(rule, f"{case.name()}: {text}") for text in check_case(case))
    for rule, check_order in (ordering.RULES | rounds.RULES).items():
        found.extend(Violation(rule, text) for text in check_order(facts))
    return found


def report(violations: list[Violation]) -> str:
    """Violations for a person: how many of each rule, and the first ones."""
    counts = Counter(violation.rule for violation in violations)
    lines = [f"{rule}: {count} times" for rule, count in counts.items()]
    for rule in counts:
        lines += [str(violation) for violation in violations if violation.rule == rule][:SHOWN_MAX]
    return "\n".join(lines)


def _cases(facts: Facts) -> Iterator[Case]:
    sources = {queue: facts.sources(queue) for queue in range(len(facts.queues))}
    for (queue, message), life in facts.lives.items():
        copies = 1
        if facts.queues[queue].in_cycle:
            copies = MANY
        elif sources[queue]:
            copies = sum(_may_be_dead(facts, source, message) < NEVER for source in sources[queue])
            copies += len(facts.history.outages) if facts.supervisor_died else 0
        yield Case(facts, queue, message, life, copies)


# -- one message ------------------------------------------------------------------------------------------------------


def _unpublished(case: Case) -> Iterator[str]:
    """Nothing comes from nowhere: each delivery was published there, or died where it is dead-lettered from."""
    if not case.life.deliveries or case.life.publish is not None:
        return
    for delivery in case.life.deliveries:
        if _dead_since(case, delivery) == NEVER:
            yield f"{_shown(delivery)}: never published there, and no reason to be dead ({delivery.reason or 'none'})"


def _ghost(case: Case) -> Iterator[str]:
    """A publish that failed is never delivered, alive or dead."""
    origins = _origins(case)
    if case.life.deliveries and origins and all(publish.is_nowhere for publish in origins):
        if case.life.publish is None and all(one.reason == "maxlen" for one in case.life.deliveries):
            return  # refused, and dead-lettered for that; whether its queue does so is a matter of `unpublished`
        yield f"its publish failed at {span([origins[0].ended])}, and it was delivered"


def _torn(case: Case) -> Iterator[str]:
    """A body is the one published, to the last byte."""
    for delivery in case.life.deliveries:
        if not delivery.is_intact:
            yield f"delivery {delivery.count} to {tuple(delivery.to)} is not what was published"


def _level(case: Case) -> Iterator[str]:
    """A delivery has the priority it was published with, also above the queue's highest level."""
    for published in _origins(case):
        for delivery in case.life.deliveries:
            if delivery.level != published.level:
                yield f"delivered with priority {delivery.level}, published with {published.level}"


def _early(case: Case) -> Iterator[str]:
    """Nothing is delivered before it was published, before its delay was over, or before it died."""
    earliest = min((publish.invoked + publish.delay_ns for publish in _origins(case)), default=0)
    for delivery in case.life.deliveries:
        possible = earliest if case.life.publish is not None else _dead_since(case, delivery)
        if delivery.at < possible < NEVER:
            yield f"delivered at {span([delivery.at])}, not possible before {span([possible])}"


def _late(case: Case) -> Iterator[str]:
    """Nothing is delivered after its expiry."""
    publish, rules = case.life.publish, case.facts.queues[case.queue]
    if publish is None or publish.sent or publish.outcome is Outcome.UNKNOWN or rules.in_cycle:
        return
    ttl_ns = rules.ttl_of(publish)
    if not ttl_ns or any(one.settle is Settle.LATER for one in case.life.deliveries):
        return  # the time of what was put off is counted from when it is due
    expired = publish.ended + publish.delay_ns + ttl_ns
    for delivery in case.life.deliveries:
        if delivery.since > expired + LATE_NS:
            yield f"delivered since {span([delivery.since])}, expired at {span([expired])}"


def _doubled(case: Case) -> Iterator[str]:
    """A second delivery has a cause: a nack, a reject, its consumer's end, a broker that died with it."""
    if case.copies != 1:
        return
    for one, other in pairs(case.life.deliveries):
        if case.facts.release(one) == NEVER and not case.facts.is_settled(one):
            yield f"{_shown(one)}, then without a reason {_shown(other)}"


def _after_ack(case: Case) -> Iterator[str]:
    """Nothing comes back after an ack that returned, nor from the dead."""
    acked = [one for one in case.life.deliveries if one.settle is Settle.ACK and case.facts.is_settled(one)]
    if len(acked) > max(1, case.copies):
        yield f"acked {len(acked)} times: {', '.join(map(_shown, acked))}"
    if case.copies != 1:
        return
    for one, other in pairs(case.life.deliveries):
        if case.facts.is_settled(one) and one.settle not in REQUEUES:
            yield f"{_shown(one)}, then {_shown(other)}"


def _overlap(case: Case) -> Iterator[str]:
    """Deliveries of one message do not overlap: the next one begins when the one before it may have ended."""
    if case.copies != 1:
        return
    for one, other in pairs(case.life.deliveries):
        release = case.facts.release(one)
        if other.at < release < NEVER:
            yield f"{_shown(one)} until {span([release])} at least, and {_shown(other)}"


def _count(case: Case) -> Iterator[str]:
    """Deliveries are counted one by one; deliveries that nobody wrote down went to somebody whose life ended."""
    if case.copies != 1:
        return
    before, since = 0, min((publish.invoked for publish in _origins(case)), default=0)
    for delivery in case.life.deliveries:
        unseen = delivery.count - before - 1
        if unseen < 0:
            yield f"{_shown(delivery)} has the number of an earlier one"
        elif unseen > 0 and unseen > case.facts.unseen_between(case.queue, since, delivery.at):
            yield f"{_shown(delivery)} follows number {before}, and nobody died with what is between"
        before, since = delivery.count, case.facts.release(delivery)


def _redelivered(case: Case) -> Iterator[str]:
    """The flag says whether there was a delivery before."""
    for delivery in case.life.deliveries:
        if delivery.redelivered != (delivery.count > 1):
            yield f"{_shown(delivery)} says redelivered={delivery.redelivered}"


def _failures(case: Case) -> Iterator[str]:
    """Rejects with requeue and deaths are counted, all of them and nothing else; over the limit is no delivery."""
    if case.copies != 1:
        return
    limit = case.facts.queues[case.queue].delivery_limit
    surely = possibly = 0
    begin = case.life.deliveries[0] if case.life.deliveries else None
    for index, delivery in enumerate(case.life.deliveries):
        unseen = delivery.count - 1 - index
        if not surely <= delivery.failures <= possibly + unseen:
            yield f"{_shown(delivery)} counts {delivery.failures} failures, not {surely} to {possibly + unseen}"
        if 0 <= limit < surely:
            yield f"{_shown(delivery)} after {surely} failures, the limit is {limit}"
        assert begin is not None
        following = case.life.deliveries[index + 1] if index + 1 < len(case.life.deliveries) else None
        surely += _surely_failed(case.facts, delivery, following)
        possibly += _possibly_failed(case.facts, delivery)


def _lost(case: Case) -> Iterator[str]:
    """What was confirmed, or seen once, ends in an ack, at the dead, or expires."""
    facts, life = case.facts, case.life
    if not facts.history.is_drained or facts.queues[case.queue].in_cycle:
        return
    exists = bool(life.deliveries) or (life.publish is not None and facts.is_confirmed(life.publish))
    last = life.deliveries[-1] if life.deliveries else None
    if not exists or (last is not None and last.settle is Settle.ACK and last.outcome is not Outcome.FAILED):
        return
    if _may_be_dead(facts, case.queue, case.message) < NEVER:  # by counters.py what was dropped is counted
        dead_letter = facts.queues[case.queue].dead_letter
        if dead_letter is None or facts.lives.get((dead_letter, case.message), Life()).deliveries:
            return
    if case.copies > 1 and any(one.settle is Settle.ACK for one in life.deliveries):
        return
    yield f"confirmed, last seen: {_shown(last)}" if last else "confirmed, and never seen again"


def _refused(case: Case) -> Iterator[str]:
    """What a queue refused and yet has to dead-letter is among the dead."""
    facts, publish, rules = case.facts, case.life.publish, case.facts.queues[case.queue]
    if publish is None or publish.outcome is not Outcome.REFUSED or rules.overflow != "reject-publish-dlx":
        return
    assert rules.dead_letter is not None
    if facts.history.is_drained and not facts.lives.get((rules.dead_letter, case.message), Life()).deliveries:
        yield "refused by its queue, and not among the dead"


def _twice_there(case: Case) -> Iterator[str]:
    """What was delivered from among the dead is not delivered where it died any more."""
    facts = case.facts
    dead_letter = facts.queues[case.queue].dead_letter
    if dead_letter is None or not case.life.deliveries or facts.queues[case.queue].in_cycle:
        return
    dead = facts.lives.get((dead_letter, case.message))
    if dead is None or not dead.deliveries or len(_lives_of(facts, dead_letter, case.message)) > 1:
        return
    died, last = min(one.at for one in dead.deliveries), max(one.since for one in case.life.deliveries)
    if last > died:
        yield f"delivered at {span([last])}, and from among the dead at {span([died])}"


RULES: Final[dict[str, Callable[[Case], Iterator[str]]]] = {
    "unpublished": _unpublished,
    "ghost": _ghost,
    "torn": _torn,
    "level": _level,
    "early": _early,
    "late": _late,
    "doubled": _doubled,
    "after ack": _after_ack,
    "overlap": _overlap,
    "count": _count,
    "redelivered": _redelivered,
    "failures": _failures,
    "lost": _lost,
    "refused": _refused,
    "twice there": _twice_there,
}


# -- what the rules ask -----------------------------------------------------------------------------------------------


def _shown(delivery: Delivery) -> str:
    mode = "socket" if delivery.is_socket else "direct"
    settled = f", {delivery.settle.name} {delivery.outcome.name}" if delivery.settle else ""
    return f"delivery {delivery.count} to {tuple(delivery.to)} ({mode}, {span([delivery.since, delivery.at])}{settled})"


def _lives_of(facts: Facts, dead_letter: int, message: MessageId) -> list[Life]:
    """The lives from which a dead letter may come."""
    lives = [facts.lives.get((source, message)) for source in facts.sources(dead_letter)]
    return [life for life in lives if life is not None]


def _origins(case: Case) -> list[Publish]:
    if case.life.publish is not None:
        return [case.life.publish]
    lives = _lives_of(case.facts, case.queue, case.message)
    return [life.publish for life in lives if life.publish is not None]


def _surely_failed(facts: Facts, delivery: Delivery, following: Delivery | None) -> bool:
    """A reject that took effect, or a message in hand at its consumer's death."""
    if delivery.settle is Settle.REJECT:
        return facts.is_settled(delivery)
    end = facts.end_of(delivery.to)
    if delivery.settle is not Settle.NONE or end is None or not end.killed or end.closing:
        return False
    until = following.at if following is not None else NEVER
    return not delivery.is_socket or facts.outage_after(delivery.since) > until


def _possibly_failed(facts: Facts, delivery: Delivery) -> bool:
    if delivery.settle is Settle.REJECT and delivery.outcome is not Outcome.FAILED:
        return True
    end = facts.end_of(delivery.to)
    return end is not None and end.killed and not facts.is_settled(delivery)


def _dead_since(case: Case, delivery: Delivery) -> int:
    """When a dead letter can have died of its reason, in any queue it may come from; NEVER if it can't."""
    sources = case.facts.sources(case.queue)
    return min((_may_be_dead(case.facts, source, case.message, delivery.reason) for source in sources), default=NEVER)


def _may_be_dead(facts: Facts, queue: int, message: MessageId, reason: str = "") -> int:
    """When a message may have become a dead letter (of this reason) at the earliest; NEVER if it can't be one."""
    life = facts.lives.get((queue, message))
    if life is None:
        return NEVER
    causes = [cause for name, cause in CAUSES.items() if reason in {"", name}]
    return min((cause(facts, queue, life) for cause in causes), default=NEVER)


def _rejected(_facts: Facts, _queue: int, life: Life) -> int:
    drops = (one for one in life.deliveries if one.settle is Settle.DROP and one.outcome is not Outcome.FAILED)
    return min((one.settle_invoked for one in drops), default=NEVER)


def _expired(facts: Facts, queue: int, life: Life) -> int:
    publish = life.publish
    ttl_ns = facts.queues[queue].ttl_of(publish) if publish is not None else 0
    return NEVER if publish is None or not ttl_ns else publish.invoked + publish.delay_ns + ttl_ns


def _over_the_limit(facts: Facts, queue: int, life: Life) -> int:
    """The failure that was one too many; those of unseen deliveries may all have come first."""
    limit = facts.queues[queue].delivery_limit
    if limit < 0:
        return NEVER
    failed = sorted(facts.release(one) for one in life.deliveries if _possibly_failed(facts, one))
    since = life.publish.invoked if life.publish is not None else 0
    unseen = facts.unseen_between(queue, since, NEVER)
    if len(failed) + unseen <= limit:
        return NEVER
    return since if unseen > limit else failed[limit - unseen]


def _too_many(facts: Facts, queue: int, life: Life) -> int:
    """A head may be dropped as soon as it is there; what is refused may have to be dead-lettered."""
    publish, overflow = life.publish, facts.queues[queue].overflow
    if publish is None or overflow not in {"drop-head", "reject-publish-dlx"}:
        return NEVER
    return NEVER if overflow != "drop-head" and publish.outcome is Outcome.OK else publish.invoked


CAUSES: Final = {
    "rejected": _rejected,
    "expired": _expired,
    "delivery_limit": _over_the_limit,
    "maxlen": _too_many,
}
