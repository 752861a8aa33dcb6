"""What must hold about messages whose queues dead-letter to each other, and come back.

Owns: rules about one message in all queues of a cycle. Does not own: rules about one queue (checker.py, ordering.py).
Invariant: as of the checker: only what no interleaving explains. How often a message went round is not asked: it may
expire where nobody sees it, and one that would go round without having been rejected is dropped, as RabbitMQ does.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from crash.history import Delivery, Facts, Outcome, Settle, pairs, span


def round_trip(facts: Facts) -> Iterator[str]:
    """It is in one of the queues at a time, in one pair of hands, and an ack ends it wherever it is."""
    if facts.supervisor_died:
        return  # at least once: it may have left a message where it was, and made it elsewhere
    seen: dict[tuple[int, int, int], list[Delivery]] = defaultdict(list)
    for delivery in facts.history.deliveries:
        if facts.queues[delivery.queue].in_cycle:
            seen[delivery.message].append(delivery)
    for message, deliveries in seen.items():
        deliveries.sort(key=lambda delivery: delivery.at)
        for one, other in pairs(deliveries):
            if one.settle is Settle.ACK and facts.is_settled(one):
                yield f"{tuple(message)} acked by {tuple(one.to)}, then delivered at {span([other.at])}"
            elif other.at < _release(facts, one):
                yield f"{tuple(message)} in the hands of {tuple(one.to)}, and delivered at {span([other.at])}"


def _release(facts: Facts, delivery: Delivery) -> int:
    """From when on it may have gone on its way."""
    if delivery.settle is Settle.DROP and delivery.outcome is not Outcome.FAILED:
        return min(delivery.settle_invoked, facts.release(delivery))
    return facts.release(delivery)


RULES: Final[dict[str, Callable[[Facts], Iterator[str]]]] = {"round trip": round_trip}
