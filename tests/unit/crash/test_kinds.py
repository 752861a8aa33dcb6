"""The checker, of queues of every kind: what a length, a time, a cycle, a single active consumer allow, and no more.

Invariant of each test: a history that such a queue could have made is sound; the same with one thing changed that it
could not have done is found by the rule for it.
"""

from dataclasses import replace

import pytest

from crash import kinds
from crash.bodies import MessageId
from crash.checker import check
from crash.counters import Rest
from crash.counters import check as check_counters
from crash.history import LATER_NS, Consumer, Delivery, End, History, Outcome, Publish, QueueRules, Settle

ID = MessageId(1, 1, 0)
PRODUCER, HERE, THERE, LAST = (Consumer(number, 1) for number in range(1, 5))
TTL_NS = 1_000
RULES = {
    "drop": QueueRules("drop", max_length=1, overflow="drop-head"),
    "drop dead": QueueRules("drop dead", dead_letter=1, max_length=1, overflow="drop-head"),
    "refuse": QueueRules("refuse", max_length=1, overflow="reject-publish"),
    "refuse dead": QueueRules("refuse dead", dead_letter=1, max_length=1, overflow="reject-publish-dlx"),
    "ttl": QueueRules("ttl", dead_letter=1, ttl_ns=TTL_NS),
    "single": QueueRules("single", single_active=True),
    "retry": QueueRules("retry", retry_ns=LATER_NS),
    "round": QueueRules("round", dead_letter=1, in_cycle=True, ttl_ns=TTL_NS),
}
DEAD = QueueRules("dead")
BACK = QueueRules("back", dead_letter=0, in_cycle=True, ttl_ns=TTL_NS)


def publish(message: MessageId = ID, outcome: Outcome = Outcome.OK) -> Publish:
    return Publish(0, message, 0, 1, 2, outcome, PRODUCER)


def delivery(at: int, to: Consumer = HERE, *, queue: int = 0, message: MessageId = ID, **changes: object) -> Delivery:
    made = Delivery(queue, message, 0, at - 1, at, 1, 0, to, redelivered=False)
    return replace(made, **changes)  # type: ignore[arg-type] # its fields


def acked(at: int, to: Consumer = HERE, **changes: object) -> Delivery:
    times = {"settle": Settle.ACK, "settle_invoked": at + 1, "settle_ended": at + 2, "outcome": Outcome.OK}
    return delivery(at, to, **(times | changes))  # type: ignore[arg-type] # as above


def history(kind: str, *deliveries: Delivery, published: tuple[Publish, ...] = (publish(),)) -> History:
    other = BACK if kind == "round" else DEAD
    return History([RULES[kind], other], list(published), list(deliveries))


def found_in(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}


def test_what_a_queue_with_a_length_drops_is_among_the_dead_where_they_are_wanted() -> None:
    assert found_in(history("drop dead", acked(10, queue=1, reason="maxlen"))) == set()
    assert found_in(history("drop dead")) == {"lost"}


def test_nothing_is_dropped_by_a_queue_that_refuses() -> None:
    assert found_in(history("refuse", acked(10))) == set()
    assert found_in(history("refuse dead", acked(10))) == set()
    assert found_in(history("refuse")) == {"lost"}
    assert found_in(history("refuse dead")) == {"lost"}
    assert found_in(history("refuse dead", acked(10, queue=1, reason="maxlen"))) == {"unpublished", "lost"}


def test_what_was_refused_is_never_delivered() -> None:
    refused = (publish(outcome=Outcome.REFUSED),)

    assert found_in(history("refuse", published=refused)) == set()
    assert found_in(history("refuse", acked(10), published=refused)) == {"ghost"}


def test_what_was_refused_and_has_to_be_dead_lettered_is_among_the_dead_for_that_reason() -> None:
    refused = (publish(outcome=Outcome.REFUSED),)

    assert found_in(history("refuse dead", acked(10, queue=1, reason="maxlen"), published=refused)) == set()
    assert found_in(history("refuse dead", published=refused)) == {"refused"}
    assert "ghost" in found_in(history("refuse dead", acked(10, queue=1, reason="rejected"), published=refused))
    assert "ghost" in found_in(history("refuse dead", acked(10), published=refused))


def test_the_time_of_a_queue_is_kept() -> None:
    late = 2 + TTL_NS + 20_000_000

    assert found_in(history("ttl", acked(100))) == set()
    assert found_in(history("ttl", acked(late, queue=1, reason="expired"))) == set()
    assert found_in(history("ttl", acked(500, queue=1, reason="expired"))) == {"early"}
    assert found_in(history("ttl", acked(late))) == {"late"}
    assert found_in(history("ttl")) == {"lost"}


def test_what_a_queue_retries_waits_before_it_comes_again() -> None:
    given = delivery(10, settle=Settle.NACK, settle_invoked=11, settle_ended=12, outcome=Outcome.OK)
    again = {"count": 2, "redelivered": True}

    assert found_in(history("retry", given, acked(11 + LATER_NS, THERE, **again))) == set()
    assert found_in(history("retry", given, acked(LATER_NS, THERE, **again))) == {"overlap"}


def pushed(seq: int, at: int, to: Consumer) -> tuple[Publish, Delivery]:
    message = MessageId(1, 1, seq)
    return publish(message), acked(at, to, message=message, is_socket=True, is_pushed=True)


def test_a_single_active_consumer_is_served_until_it_goes() -> None:
    one_after_the_other = [pushed(0, 10, HERE), pushed(1, 20, HERE), pushed(2, 30, THERE), pushed(3, 40, THERE)]
    in_turn = [pushed(0, 10, HERE), pushed(1, 20, THERE), pushed(2, 30, HERE)]

    for series, rules in ((one_after_the_other, set()), (in_turn, {"single"})):
        published, deliveries = zip(*series, strict=True)
        assert found_in(history("single", *deliveries, published=published)) == rules


def test_a_message_may_go_round_and_expire_where_nobody_sees_it() -> None:
    rejected = delivery(10, settle=Settle.DROP, settle_invoked=11, settle_ended=12, outcome=Outcome.OK)
    there = delivery(20, THERE, queue=1, settle=Settle.DROP, settle_invoked=21, settle_ended=22, outcome=Outcome.OK)

    assert found_in(history("round")) == set()
    assert found_in(history("round", rejected, there, acked(30, LAST))) == set()


def test_a_message_that_goes_round_is_in_one_place_at_a_time_and_ends_with_an_ack() -> None:
    held = delivery(10, settle=Settle.DROP, settle_invoked=50, settle_ended=51, outcome=Outcome.OK)

    assert found_in(history("round", held, acked(60, THERE, queue=1))) == set()
    assert "round trip" in found_in(history("round", held, acked(40, THERE, queue=1)))
    assert found_in(history("round", acked(10), acked(5_000, THERE, queue=1))) == {"round trip"}


def test_the_death_of_a_consumer_lets_a_message_go_on_its_way() -> None:
    held, later = delivery(10), acked(5_000, THERE, queue=1)
    run = history("round", held, later)
    run.ends.append(End(HERE, 20, 25, killed=True, queues=frozenset({0})))

    assert found_in(run) == set()
    assert found_in(history("round", held, later)) == {"round trip"}


@pytest.mark.parametrize(("purged", "is_sound"), [(80, True), (0, False), (100, False)])
def test_as_many_heads_are_dropped_as_nobody_acked(purged: int, is_sound: bool) -> None:  # noqa: FBT001 - an outcome
    ids = [MessageId(1, 1, seq) for seq in range(100)]
    taken = [acked(10 + seq, message=ids[seq]) for seq in range(20)]
    run = History([RULES["drop"]], [publish(message) for message in ids], taken)
    nothing = dict.fromkeys(["ready", "unacked", "delayed", "dead_pending", "arena_used_bytes"], 0)
    totals = nothing | {"published": 100, "acked": 20, "settled": 80 - purged, "purged": purged}

    assert ([text for text in check_counters(run, [Rest(0, totals, {}, [])]) if "dropped" in text] == []) is is_sound


def test_every_queue_of_the_plan_is_reached_and_every_route_leads_somewhere() -> None:
    routes = kinds.routes_of(1)

    assert all(route.queues for route in routes)
    reached = {queue for queue in range(kinds.DEAD) if any(route.queues >> queue & 1 for route in routes)}
    assert reached == set(range(kinds.DEAD)) - {kinds.ROUND_B}  # by dead letters
