"""Conservation: what the daemon counts of a queue at rest agrees with what its workers know.

Owns: the comparison of a drained queue's counters with the history. Does not own: the history, the other rules.
Invariant: a counter lies between what surely happened and what may have happened. Counters are statistics: a process
that is killed within the few instructions between a commit and its counts leaves one of them one off. So few of all
deaths hit that window that `SLACK_SHARE` of them is patience enough, and any systematic error is far beyond it.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from crash.history import Facts, History, Outcome, Settle

SLACK: Final = 2
SLACK_SHARE: Final = 50  # and one in so many deaths
EMPTY: Final = ("ready", "unacked", "delayed", "dead_pending", "arena_used_bytes")


class Rest(NamedTuple):
    """A drained queue: its counters, how many slots are in which state, and what is wrong with its segment."""

    queue: int
    totals: Mapping[str, int]
    states: Mapping[int, int]
    faults: list[str]


def is_at_rest(totals: Mapping[str, int], held: int) -> bool:
    """Nothing is in the queue, in anybody's hands, or on its way elsewhere. held: slots that are not free."""
    return not held and not any(totals[name] for name in EMPTY)


def check(history: History, rests: list[Rest]) -> Iterator[str]:
    """Yield what does not agree."""
    facts = Facts(history)
    slack = SLACK + (len(history.ends) + len(history.outages)) // SLACK_SHARE
    for rest in rests:
        name = history.queues[rest.queue].name
        for text in [
            *_left(rest),
            *_sums(facts, rest, slack),
            *_known(facts, rest, slack),
            *_dead(facts, rest, rests, slack),
            *_dropped(facts, rest, slack),
        ]:
            yield f"{name}: {text}"


def _left(rest: Rest) -> Iterator[str]:
    """Nothing is left in a drained queue, and its segment is sound."""
    yield from (f"{count} are {name}" for name in EMPTY if (count := rest.totals[name]))
    yield from (f"{count} slots are in state {state}" for state, count in rest.states.items() if state and count)
    yield from rest.faults


def _sums(facts: Facts, rest: Rest, slack: int) -> Iterator[str]:
    """What came is what went; what is refused and dead-lettered goes without having come."""
    totals = rest.totals
    came, gone = totals["published"], totals["acked"] + totals["settled"] + totals["purged"]
    refused = facts.queues[rest.queue].overflow == "reject-publish-dlx"
    if came > gone + slack or (came < gone - slack and not refused):
        yield f"{came} published, {gone} gone ({totals})"


def _dropped(facts: Facts, rest: Rest, slack: int) -> Iterator[str]:
    """Where heads are dropped and nobody wants the dead: as many are dropped as nobody acked, between surely and
    possibly.
    """
    rules = facts.queues[rest.queue]
    if rules.overflow != "drop-head" or rules.dead_letter is not None:
        return
    surely = possibly = 0
    for (queue, _), life in facts.lives.items():
        if queue != rest.queue or life.publish is None or life.publish.is_nowhere:
            continue
        settled = [one for one in life.deliveries if one.settle in {Settle.ACK, Settle.DROP}]
        surely += facts.is_confirmed(life.publish) and not any(one.outcome is not Outcome.FAILED for one in settled)
        possibly += not any(facts.is_settled(one) for one in settled)
    if not surely - slack <= rest.totals["purged"] <= possibly + slack:
        yield f"{rest.totals['purged']} dropped, not {surely} to {possibly}"


def _known(facts: Facts, rest: Rest, slack: int) -> Iterator[str]:
    """Published and acked, between what surely and what possibly happened."""
    if not facts.sources(rest.queue):
        publishes = [publish for publish in facts.history.publishes if publish.queue == rest.queue]
        surely = sum(facts.is_confirmed(publish) for publish in publishes)
        possibly = sum(not publish.is_nowhere for publish in publishes)
        if not surely - slack <= rest.totals["published"] <= possibly + slack:
            yield f"{rest.totals['published']} published, not {surely} to {possibly}"
    acks = [one for one in facts.history.deliveries if one.queue == rest.queue and one.settle is Settle.ACK]
    surely = sum(facts.is_settled(ack) for ack in acks)
    possibly = sum(ack.outcome is not Outcome.FAILED for ack in acks)
    if not surely - slack <= rest.totals["acked"] <= possibly + slack:
        yield f"{rest.totals['acked']} acked, not {surely} to {possibly}"


def _dead(facts: Facts, rest: Rest, rests: list[Rest], slack: int) -> Iterator[str]:
    """What died elsewhere and was let go there is here: all of it, more only if a supervisor died at it."""
    sources = facts.sources(rest.queue)
    if not sources or facts.queues[rest.queue].in_cycle:
        return
    came, left = rest.totals["published"], sum(other.totals["settled"] for other in rests if other.queue in sources)
    if came < left - slack or (came > left + slack and not facts.supervisor_died):
        yield f"{came} dead letters came, {left} were let go where they died"
