"""The checker: sound histories pass, and whatever is broken in one of them is found by the rule for it.

Invariant: a history of a broker that does everything right has no violation; one change that such a broker could not
have made has at least one, of the rule that is named.
"""

import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from crash import checker, ordering, rounds
from crash.bodies import MessageId
from crash.checker import check, report
from crash.history import (
    LATER_NS,
    REQUEUES,
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
from support.sound_history import DEAD, STEP, SoundRun

SEEDS = range(8)
OF_KINDS = {"single", "refused", "round trip"}  # rules about some kinds of queues: test_kinds.py


@cache
def _long_history(seed: int) -> bytes:
    return pickle.dumps(SoundRun(seed, steps=1_500).history)


def found_in(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("outages", [False, True])
def test_a_history_of_a_broker_that_does_everything_right_is_sound(seed: int, outages: bool) -> None:  # noqa: FBT001 - pytest's
    history = SoundRun(seed, outages=outages).history

    assert report(check(history)) == ""
    assert history.confirmed() > 100


# -- mutations: each breaks one thing in a sound history --------------------------------------------------------------

Dice = random.Random


def first_deliveries(history: History) -> dict[tuple[int, MessageId], Delivery]:
    return {(one.queue, one.message): one for one in history.deliveries if one.count == 1}


def acked(history: History) -> list[Delivery]:
    return [one for one in history.deliveries if one.settle is Settle.ACK and one.queue != DEAD]


def confirmed(history: History) -> list[Publish]:
    return [publish for publish in history.publishes if publish.outcome is Outcome.OK]


def later(delivery: Delivery, by: int) -> None:
    delivery.since += by
    delivery.at += by
    delivery.settle_invoked += by
    delivery.settle_ended += by


def lose(history: History, dice: Dice) -> None:
    gone = dice.choice(confirmed(history)).message
    history.deliveries = [one for one in history.deliveries if one.message != gone]


def lose_in_hand(history: History, dice: Dice) -> None:
    """The drain says nothing about it any more, nor does anybody."""
    dice.choice(acked(history)).settle = Settle.NONE


def lose_the_last_delivery(history: History, dice: Dice) -> None:
    again = [one for one in history.deliveries if one.count > 1 and one.settle is Settle.ACK]
    history.deliveries.remove(dice.choice(again))


def lose_the_dead(history: History, dice: Dice) -> None:
    gone = dice.choice([one for one in history.deliveries if one.queue == DEAD]).message
    history.deliveries = [one for one in history.deliveries if one.queue != DEAD or one.message != gone]


def tear(history: History, dice: Dice) -> None:
    dice.choice(history.deliveries).is_intact = False


def ghost(history: History, dice: Dice) -> None:
    seen = {(one.queue, one.message) for one in history.deliveries}
    dice.choice([one for one in confirmed(history) if (one.queue, one.message) in seen]).outcome = Outcome.FAILED


def invent(history: History, dice: Dice) -> None:
    seen = first_deliveries(history)
    history.publishes.remove(dice.choice([one for one in confirmed(history) if (one.queue, one.message) in seen]))


def die_for_no_reason(history: History, dice: Dice) -> None:
    died = {one.message for one in history.deliveries if one.queue == DEAD}
    alive = dice.choice([one for one in acked(history) if one.message not in died and one.queue != DEAD])
    history.deliveries.append(replace(alive, queue=DEAD, level=0, reason="rejected"))


def come_early(history: History, dice: Dice) -> None:
    first = first_deliveries(history)
    publish = dice.choice([one for one in confirmed(history) if (one.queue, one.message) in first])
    first[publish.queue, publish.message].at = publish.invoked - 1


def ignore_the_delay(history: History, dice: Dice) -> None:
    first = first_deliveries(history)
    publish = dice.choice([one for one in confirmed(history) if (one.queue, one.message) in first])
    publish.delay_ns = first[publish.queue, publish.message].at - publish.invoked + 1


def ignore_the_expiry(history: History, dice: Dice) -> None:
    first = first_deliveries(history)
    publish = dice.choice([one for one in confirmed(history) if (one.queue, one.message) in first])
    publish.ttl_ns = STEP
    later(first[publish.queue, publish.message], 1_000 * STEP)


def change_the_level(history: History, dice: Dice) -> None:
    dice.choice(history.deliveries).level += 1


def deliver_after_the_ack(history: History, dice: Dice) -> None:
    again = replace(dice.choice(acked(history)), to=Consumer(77, 1), redelivered=True)
    again.count += 1
    later(again, 50 * STEP)
    history.deliveries.append(again)


def double_the_reference(history: History, dice: Dice) -> None:
    """Two consumers get one and the same delivery."""
    history.deliveries.append(replace(dice.choice(acked(history)), to=Consumer(77, 1)))


def forget_the_death(history: History, dice: Dice) -> None:
    """A redelivery without its cause."""
    causes = {end.who for end in history.ends}
    again = [one for one in history.deliveries if one.count > 1]
    left = [
        one
        for one in history.deliveries
        if one.settle is Settle.NONE
        and one.to in causes
        and not one.is_socket
        and any(other.message == one.message and other.count == one.count + 1 for other in again)
    ]
    gone = dice.choice(left).to
    history.ends = [end for end in history.ends if end.who != gone]


def overlap(history: History, dice: Dice) -> None:
    """A redelivery comes before the nack that made it possible."""
    by_key = {(one.queue, one.message, one.count): one for one in history.deliveries}
    choices = [
        (one, other)
        for one in history.deliveries
        if one.settle in REQUEUES and (other := by_key.get((one.queue, one.message, one.count + 1))) is not None
    ]
    one, other = dice.choice(choices)
    other.since, other.at = one.at, one.settle_invoked - 1


def hide_the_redelivery(history: History, dice: Dice) -> None:
    one = dice.choice(history.deliveries)
    one.redelivered = not one.redelivered


def count_wrongly(history: History, dice: Dice) -> None:
    one = dice.choice([one for one in acked(history) if one.count == 1])
    one.count, one.redelivered = 200, True


def forget_a_failure(history: History, dice: Dice) -> None:
    rejected = {(one.queue, one.message) for one in history.deliveries if one.settle is Settle.REJECT}
    dice.choice(
        [one for one in history.deliveries if one.failures and (one.queue, one.message) in rejected]
    ).failures = 0


def invent_a_failure(history: History, dice: Dice) -> None:
    dice.choice([one for one in history.deliveries if one.count == 1]).failures = 1


def swap_in_one_consumer(history: History, dice: Dice) -> None:
    """Two messages of one producer trade places."""
    one, other = dice.choice(_neighbours(history, same_consumer=True))
    _trade(one, other)


def swap_between_consumers(history: History, dice: Dice) -> None:
    one, other = dice.choice(_neighbours(history, same_consumer=False))
    _trade(one, other)


def _trade(one: Delivery, other: Delivery) -> None:
    one.message, other.message = other.message, one.message


def _neighbours(history: History, *, same_consumer: bool) -> list[tuple[Delivery, Delivery]]:
    """First and only deliveries of one producer's life, queue and level, the second surely after the first."""
    firsts = [one for one in acked(history) if one.count == 1]
    return [
        (one, other)
        for one in firsts
        for other in firsts
        if one.message[:2] == other.message[:2]
        and (one.queue, one.level) == (other.queue, other.level)
        and one.message.seq < other.message.seq
        and one.at < other.since
        and (one.to == other.to) == same_consumer
    ]


def let_a_low_one_pass(history: History, dice: Dice) -> None:
    """A message of a high level is left behind until after one of a low level, confirmed before both, is delivered."""
    publishes = {(one.queue, one.message): one for one in confirmed(history)}
    firsts = [one for one in acked(history) if one.count == 1 and (one.queue, one.message) in publishes]
    pairs = [
        (high, low)
        for high in firsts
        for low in firsts
        if high.queue == low.queue
        and high.level > low.level
        and publishes[high.queue, high.message].ended < low.since
        and high.at < low.since
    ]
    high, low = dice.choice(pairs)
    later(high, low.at - high.since + 1)


def let_a_new_one_pass(history: History, dice: Dice) -> None:
    """What was given back waits until after a newer one of its level."""
    by_key = {(one.queue, one.message, one.count): one for one in history.deliveries}
    publishes = {(one.queue, one.message): one for one in confirmed(history)}
    pairs = [
        (again, newer)
        for one in history.deliveries
        if one.settle in REQUEUES and not one.is_socket and one.queue != DEAD and (one.queue, one.message) in publishes
        if (again := by_key.get((one.queue, one.message, one.count + 1))) is not None
        for newer in acked(history)
        if (newer.queue, newer.level, newer.count) == (one.queue, one.level, 1)
        and (newer.queue, newer.message) in publishes
        and publishes[newer.queue, newer.message].invoked > publishes[one.queue, one.message].ended
        and newer.since > one.settle_ended
    ]
    again, newer = dice.choice(pairs)
    later(again, newer.at - again.since + 1)


def come_back_from_the_dead(history: History, dice: Dice) -> None:
    dead = dice.choice([one for one in history.deliveries if one.queue == DEAD])
    last = [one for one in history.deliveries if one.queue != DEAD and one.message == dead.message][-1]
    later(last, dead.at - last.since + 1)


MUTATIONS: list[tuple[Callable[[History, Dice], None], set[str]]] = [
    (lose, {"lost"}),
    (lose_in_hand, {"lost", "doubled"}),
    (lose_the_last_delivery, {"lost", "failures", "count"}),
    (lose_the_dead, {"lost"}),
    (tear, {"torn"}),
    (ghost, {"ghost"}),
    (invent, {"unpublished"}),
    (die_for_no_reason, {"unpublished"}),
    (come_early, {"early"}),
    (ignore_the_delay, {"early"}),
    (ignore_the_expiry, {"late"}),
    (change_the_level, {"level"}),
    (deliver_after_the_ack, {"after ack"}),
    (double_the_reference, {"count"}),
    (forget_the_death, {"doubled"}),
    (overlap, {"overlap"}),
    (hide_the_redelivery, {"redelivered"}),
    (count_wrongly, {"count"}),
    (forget_a_failure, {"failures"}),
    (invent_a_failure, {"failures"}),
    (swap_in_one_consumer, {"fifo here"}),
    (swap_between_consumers, {"fifo"}),
    (let_a_low_one_pass, {"priority"}),
    (let_a_new_one_pass, {"returned"}),
    (come_back_from_the_dead, {"twice there"}),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("mutate", "rules"), MUTATIONS, ids=[mutate.__name__ for mutate, _ in MUTATIONS])
def test_what_such_a_broker_could_not_have_done_is_found(
    mutate: Callable[[History, Dice], None], rules: set[str], seed: int
) -> None:
    history: History = pickle.loads(_long_history(seed))
    mutate(history, random.Random(seed))

    assert found_in(history) & rules


# -- what is unknown is not held against anybody ----------------------------------------------------------------------

ID = MessageId(1, 1, 0)
HERE, THERE = Consumer(2, 1), Consumer(3, 1)


def delivery(count: int, at: int, to: Consumer = HERE, **changes: object) -> Delivery:
    made = Delivery(0, ID, 0, at - 1, at, count, 0, to, redelivered=count > 1)
    return replace(made, **changes)  # type: ignore[arg-type] # its fields


def history(*deliveries: Delivery, ends: tuple[End, ...] = (), outages: tuple[Outage, ...] = ()) -> History:
    publish = Publish(0, ID, 0, 1, 2, Outcome.OK, Consumer(1, 1))
    return History([QueueRules("queue")], [publish], list(deliveries), list(ends), list(outages))


ACKED = {"settle": Settle.ACK, "settle_invoked": 60, "settle_ended": 61, "outcome": Outcome.OK}
KILLED = End(HERE, 50, 55, killed=True, queues=frozenset({0}))


def test_an_ack_that_nobody_knows_the_end_of_may_have_happened() -> None:
    unknown = delivery(1, 10, settle=Settle.ACK, settle_invoked=49)

    assert found_in(history(unknown, ends=(KILLED,))) == set()


def test_an_ack_that_nobody_knows_the_end_of_may_not_have_happened() -> None:
    unknown = delivery(1, 10, settle=Settle.ACK, settle_invoked=49)
    again = delivery(2, 58, THERE, failures=1, **ACKED)

    assert found_in(history(unknown, again, ends=(KILLED,))) == set()


def test_a_kill_explains_one_redelivery_and_no_second_one() -> None:
    first = delivery(1, 10)
    again, once_more = delivery(2, 58, THERE, failures=1), delivery(3, 59, Consumer(4, 1), failures=1, **ACKED)

    assert found_in(history(first, again, once_more, ends=(KILLED,))) == {"doubled"}


def test_an_ack_in_socket_mode_that_the_broker_may_not_have_read_before_it_died_may_be_lost() -> None:
    sent = delivery(1, 10, is_socket=True, settle=Settle.ACK, settle_invoked=20, settle_ended=21, outcome=Outcome.OK)
    again = delivery(2, 58, THERE, **ACKED)

    assert found_in(history(sent, again, outages=(Outage(22, 30, broker=True, supervisor=False),))) == set()
    assert found_in(history(sent, again)) == {"after ack"}


def test_an_outage_is_no_excuse_in_direct_mode() -> None:
    sent = delivery(1, 10, settle=Settle.ACK, settle_invoked=20, settle_ended=21, outcome=Outcome.OK)
    again = delivery(2, 58, THERE, **ACKED)

    assert found_in(history(sent, again, outages=(Outage(22, 30, broker=True, supervisor=True),))) == {"after ack"}


def test_what_was_given_back_for_later_does_not_come_sooner() -> None:
    given = delivery(1, 10, settle=Settle.LATER, settle_invoked=20, settle_ended=21, outcome=Outcome.OK)
    soon, later = (delivery(2, at, THERE, **ACKED) for at in (LATER_NS, LATER_NS + 20))

    assert found_in(history(given, soon)) == {"overlap"}
    assert found_in(history(given, later)) == set()


def test_a_stale_ack_settles_nothing() -> None:
    stale = delivery(1, 10, settle=Settle.ACK, settle_invoked=20, settle_ended=21, outcome=Outcome.FAILED)

    assert found_in(history(stale)) == {"lost"}


def test_every_rule_has_a_mutation_that_it_finds() -> None:
    found = {rule for _, rules in MUTATIONS for rule in rules}

    assert found | OF_KINDS == {*checker.RULES, *ordering.RULES, *rounds.RULES}
