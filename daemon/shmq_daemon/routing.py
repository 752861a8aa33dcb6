"""Which queues a message goes to: pure functions of a topology.

Owns: matching and the walk over exchanges. Does not own: the topology, publishing.
Invariants: one copy per queue whatever the number of bindings that match; a cycle of exchanges ends.
"""

from collections.abc import Iterable

from shmq_daemon.events import DEFAULT_EXCHANGE, Queue
from shmq_daemon.topology import Topology


def route(topology: Topology, exchange: str, routing_keys: Iterable[str]) -> list[Queue]:
    """Return the queues, each once, in the order of their names. Raises NotFound for an exchange that is not there."""
    keys = tuple(routing_keys)
    if exchange == DEFAULT_EXCHANGE:
        names = {key for key in keys if key in topology.queues}
    else:
        names = _walk(topology, topology.exchange(exchange).name, keys)
    return [topology.queues[name] for name in sorted(names)]


def exchanges_used(topology: Topology, exchange: str) -> set[str]:
    """The exchanges that a message published to `exchange` can pass: their words date a compiled route."""
    seen, left = {exchange}, [exchange]
    while left:
        for binding in topology.outgoing(left.pop()):
            if binding.to_exchange and binding.destination not in seen:
                seen.add(binding.destination)
                left.append(binding.destination)
    return seen


def _walk(topology: Topology, exchange: str, keys: tuple[str, ...]) -> set[str]:
    queues: set[str] = set()
    seen, left = {exchange}, [exchange]
    while left:
        source = left.pop()
        for binding in (binding for key in keys for binding in topology.bound(source, key)):
            if not binding.to_exchange:
                queues.add(binding.destination)
            elif binding.destination not in seen:
                seen.add(binding.destination)
                left.append(binding.destination)
    return queues
