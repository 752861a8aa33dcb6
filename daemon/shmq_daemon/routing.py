"""Where the broker and the supervisor publish a message: queues, and with which envelope and delay each.

Owns: what a publish by frames says about its way, where headers have to be read for it. Does not own: matching, the
walk over exchanges (shmq.routing), publishing.
Invariants: a queue is named once; headers are decoded only where they may say something, because most say nothing.
"""

from typing import Final, NamedTuple

from shmq.errors import AccessRefused, InvalidArgument
from shmq.message import decode_envelope, envelope_names
from shmq.routing.addressing import CC, Addressed, address, late
from shmq.routing.router import DEFAULT_EXCHANGE, NO_HEADERS
from shmq.wire import frames as wire
from shmq_daemon.events import Queue
from shmq_daemon.topology import Topology

KEYS_IN_HEADERS: Final = CC.encode()  # in the envelope of whatever has a CC or a BCC


class Target(NamedTuple):
    """One queue, and the message as it arrives there."""

    queue: Queue
    envelope: bytes
    delay_ns: int


def targets_of(topology: Topology, frame: wire.Publish | wire.PublishMany) -> list[Target]:
    """Return where a client's message goes. Raises NotFound, AccessRefused, InvalidArgument."""
    _check_envelope(frame)
    exchange, envelope = frame.exchange, frame.envelope
    check_may_publish(topology, exchange)
    if KEYS_IN_HEADERS in envelope or (exchange and topology.router.reads_headers(exchange)):
        addressed = address(frame.routing_key, decode_envelope(envelope, frame.routing_key).headers, envelope)
    else:
        addressed = Addressed((frame.routing_key,), NO_HEADERS, envelope)
    return targets(topology, exchange, addressed, frame.delay_ns)


def targets(topology: Topology, exchange: str, addressed: Addressed, delay_ns: int = 0) -> list[Target]:
    """Return where a message goes, in the order of the queues' names. Raises NotFound, InvalidArgument."""
    route = topology.router.route(exchange, addressed.keys, addressed.headers)
    found = [Target(topology.queues[name], addressed.envelope, delay_ns) for name in route.queues]
    if route.delayed:
        behind = late(addressed.headers, addressed.envelope, delay_ns)
        found += [Target(topology.queues[name], *behind) for name in route.delayed]
    return found


def check_may_publish(topology: Topology, exchange: str) -> None:
    """Raise NotFound; AccessRefused for an internal exchange, which only other exchanges pass messages to."""
    if exchange != DEFAULT_EXCHANGE and topology.exchange(exchange).definition.internal:
        text = f"exchange {exchange!r} is internal: publish to an exchange that is bound to it"
        raise AccessRefused(text, what=f"exchange {exchange!r}", reason="it is internal")


def _check_envelope(frame: wire.Publish | wire.PublishMany) -> None:
    if not frame.envelope:
        if frame.exchange:
            raise InvalidArgument(argument="envelope", value=b"", allowed="empty only for the default exchange")
    elif not envelope_names(frame.envelope, frame.exchange, frame.routing_key):
        raise InvalidArgument(argument="envelope", value=frame.envelope[:64], allowed="its exchange and key first")
