"""What must hold about the order of messages: first in, first out; priorities; what was returned comes first.

Owns: rules that compare messages of one queue. Does not own: rules about one message (checker.py). Invariant: only
what was certain at the time counts: a message was *there* between the end of its publish (or nack) and the begin of
its delivery, a delivery happened between `since` and `at`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from crash.history import NEVER, Consumer, Delivery, Facts, Life, Outcome, Publish, Settle, pairs, span

RETURNED_MAX: Final = 128  # as many returned messages of a level are in exact order


class There(NamedTuple):
    """A message lay in its queue, ready, at least from `start` to `end`."""

    start: int
    end: int
    level: int
    delivery: Delivery
    published: int


def _first(life: Life) -> Delivery | None:
    """A message's very first delivery, if somebody wrote it down."""
    return life.deliveries[0] if life.deliveries and life.deliveries[0].count == 1 else None


def _is_ordered(publish: Publish | None) -> bool:
    return publish is not None and not publish.delay_ns


def fifo(facts: Facts) -> Iterator[str]:
    """First deliveries of what one life of a producer published into one level of a queue come in its order."""
    series: dict[tuple[int, int, Consumer], list[Delivery]] = defaultdict(list)
    for (queue, _), life in facts.lives.items():
        delivery, rules = _first(life), facts.queues[queue]
        if delivery is not None and life.publish is not None and _is_ordered(life.publish) and not rules.in_cycle:
            level = rules.level_of(life.publish.level)
            series[queue, level, life.publish.by].append(delivery)
    for deliveries in series.values():
        deliveries.sort(key=lambda delivery: delivery.message.seq, reverse=True)
        earliest = deliveries[0]
        for delivery in deliveries:
            if earliest.at < delivery.since:
                yield f"{_shown(facts, earliest)} before {_shown(facts, delivery)}"
            if delivery.at < earliest.at:
                earliest = delivery


def fifo_here(facts: Facts) -> Iterator[str]:
    """The same within one life of a consumer, where the order of its deliveries is known exactly."""
    last: dict[tuple[Consumer, int, int, int, int], Delivery] = {}
    for delivery in facts.history.deliveries:
        message = delivery.message
        life, rules = facts.lives[delivery.queue, message], facts.queues[delivery.queue]
        if delivery.count != 1 or not _is_ordered(life.publish) or rules.in_cycle:
            continue
        level = rules.level_of(delivery.level)
        key = (delivery.to, delivery.queue, level, message.producer, message.incarnation)
        before = last.get(key)
        if before is not None and before.message.seq > message.seq:
            yield f"{_shown(facts, before)} before {_shown(facts, delivery)}, at the same consumer"
        last[key] = delivery


def priority(facts: Facts) -> Iterator[str]:
    """No message is delivered while one of a higher level is ready throughout."""
    for queue, rules in enumerate(facts.queues):
        if rules.levels > 1:
            yield from _priority_in(facts, queue)


def _priority_in(facts: Facts, queue: int) -> Iterator[str]:
    waiting = sorted(_there(facts, queue), key=lambda there: there.start, reverse=True)
    rules = facts.queues[queue]
    longest: list[There | None] = [None] * rules.levels
    for delivery in _by_since(facts, queue):
        while waiting and waiting[-1].start <= delivery.since:
            there = waiting.pop()
            level = rules.level_of(there.level)
            known = longest[level]
            if known is None or known.end < there.end:
                longest[level] = there
        for higher in longest[rules.level_of(delivery.level) + 1 :]:
            if higher is not None and higher.end > delivery.at:
                yield f"{_shown(facts, delivery)} while there was {_shown(facts, higher.delivery)}"


def returned(facts: Facts) -> Iterator[str]:
    """What was given back is delivered again before newer messages of its level."""
    for queue in range(len(facts.queues)):
        if not facts.sources(queue):
            yield from _returned_in(facts, queue)


def _returned_in(facts: Facts, queue: int) -> Iterator[str]:
    waiting = sorted(_given_back(facts, queue), key=lambda there: there.start, reverse=True)
    level_of = facts.queues[queue].level_of
    here: list[There] = []
    for delivery in _by_since(facts, queue):
        while waiting and waiting[-1].start <= delivery.since:
            here.append(waiting.pop())
        here = [there for there in here if there.end > delivery.since]
        publish = facts.lives[queue, delivery.message].publish
        if publish is None or publish.delay_ns or delivery.count > 1 or len(here) > RETURNED_MAX:
            continue
        for there in here:
            same_level = level_of(there.level) == level_of(delivery.level)
            if same_level and there.end > delivery.at and there.published < publish.invoked:
                yield f"{_shown(facts, delivery)} while there was, given back, {_shown(facts, there.delivery)}"


def single(facts: Facts) -> Iterator[str]:
    """Of the consumers of a queue with a single active one each is served until it goes: nobody comes twice."""
    for queue, rules in enumerate(facts.queues):
        if rules.single_active:
            yield from _single_in(facts, queue)


def _single_in(facts: Facts, queue: int) -> Iterator[str]:
    pushed = [delivery for delivery in facts.history.deliveries if delivery.queue == queue and delivery.is_pushed]
    pushed.sort(key=lambda delivery: delivery.at)
    served: dict[Consumer, int] = {}
    followed: dict[Consumer, Delivery] = {}  # by whose first delivery another one's turn was over
    for delivery in pushed:
        before = followed.get(delivery.to)
        if before is not None and delivery.since > before.at:
            yield f"{_shown(facts, delivery)} to {tuple(delivery.to)}, after {_shown(facts, before)} to another"
        for who, at in served.items():
            if who != delivery.to and at < delivery.since:
                followed.setdefault(who, delivery)
        served[delivery.to] = delivery.at


def _there(facts: Facts, queue: int) -> Iterator[There]:
    """When messages were surely ready: first after their publish, then after they were given back."""
    for (where, _), life in facts.lives.items():
        first = _first(life)
        publish = life.publish
        if where == queue and first is not None and publish is not None and _is_surely_there(publish):
            yield There(publish.ended, first.since, first.level, first, publish.ended)
    yield from _given_back(facts, queue)


def _is_surely_there(publish: Publish) -> bool:
    return publish.outcome is Outcome.OK and not (publish.sent or publish.delay_ns or publish.ttl_ns)


def _given_back(facts: Facts, queue: int) -> Iterator[There]:
    """From a nack that returned, in direct mode, to the next delivery; socket mode's nack is under way for a while."""
    for (where, _), life in facts.lives.items():
        publish = life.publish
        rules = facts.queues[queue]
        if where != queue or publish is None or rules.ttl_of(publish) or rules.retry_ns:
            continue
        for one, other in pairs(life.deliveries):
            direct = one.settle in {Settle.NACK, Settle.REJECT} and one.outcome is Outcome.OK and not one.is_socket
            if direct and other.count == one.count + 1:
                yield There(one.settle_ended, other.since, other.level, other, publish.ended or NEVER)


def _by_since(facts: Facts, queue: int) -> list[Delivery]:
    deliveries = [delivery for delivery in facts.history.deliveries if delivery.queue == queue]
    return sorted(deliveries, key=lambda delivery: delivery.since)


def _shown(facts: Facts, delivery: Delivery) -> str:
    where = f"{facts.queues[delivery.queue].name} {tuple(delivery.message)} level {delivery.level}"
    return f"{where} (delivery {delivery.count}, {span([delivery.since, delivery.at])})"


RULES: Final[dict[str, Callable[[Facts], Iterator[str]]]] = {
    "fifo": fifo,
    "fifo here": fifo_here,
    "priority": priority,
    "returned": returned,
    "single": single,
}
