"""Which queues a client's message goes to, and as what."""

from typing import Any

import pytest

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.errors import AccessRefused, InvalidArgument, NotFound
from shmq.message import decode_envelope, encode_envelope
from shmq.routing.bindings import Binding, encode_arguments
from shmq.wire.frames import Publish
from shmq_daemon.events import Bound, Queue, QueueDeclared
from shmq_daemon.routing import Target, targets_of
from shmq_daemon.topology import Topology


@pytest.fixture
def topology() -> Topology:
    made = Topology()
    for number, name in enumerate(("jobs", "logs"), 1):
        made.apply(
            QueueDeclared(
                Queue(
                    queue_id=number,
                    definition=QueueDefinition(name),
                    geometry=(1, 64, 64, 4, 0),
                    segment="",
                    number=number,
                )
            )
        )
    return made


def exchange(topology: Topology, name: str, kind: str, **arguments: Any) -> None:
    for event in topology.declare_exchange(ExchangeDefinition(name, kind, **arguments)):
        topology.apply(event)


def bind(topology: Topology, source: str, destination: str, key: str = "", **arguments: Any) -> None:
    encoded = encode_arguments(arguments)
    topology.apply(Bound(Binding(source=source, destination=destination, routing_key=key, arguments=encoded)))


def targets(topology: Topology, exchange: str, key: str, headers: dict[str, Any] | None = None) -> list[Target]:
    return targets_of(topology, Publish(1, exchange, key, encode_envelope(exchange, key, headers=headers), b""))


def names(found: list[Target]) -> list[str]:
    return [target.queue.name for target in found]


def test_cc_and_bcc_name_more_queues_and_nobody_sees_bcc(topology: Topology) -> None:
    found = targets(topology, "", "nothing", {"CC": ["jobs"], "BCC": ["logs"]})

    assert names(found) == ["jobs", "logs"]
    assert {tuple(decode_envelope(target.envelope, "").headers) for target in found} == {("CC",)}


def test_headers_decide_where_an_exchange_on_the_way_compares_them(topology: Topology) -> None:
    bind(topology, "amq.match", "jobs", kind="image")

    assert names(targets(topology, "amq.match", "k", {"kind": "image"})) == ["jobs"]
    assert names(targets(topology, "amq.match", "k")) == []


def test_a_delay_counts_where_an_exchange_delays_and_nowhere_else(topology: Topology) -> None:
    exchange(topology, "later", "x-delayed-message", delayed_type="fanout")
    for source in ("later", "amq.fanout"):
        bind(topology, source, "jobs")
    headers = {"x-delay": 20}

    assert [target.delay_ns for target in targets(topology, "later", "k", headers)] == [20_000_000]
    assert [target.delay_ns for target in targets(topology, "later", "k")] == [0]
    assert [target.delay_ns for target in targets(topology, "amq.fanout", "k", headers)] == [0]


def test_an_internal_exchange_takes_from_exchanges_alone(topology: Topology) -> None:
    exchange(topology, "inner", "fanout", internal=True)
    bind(topology, "inner", "jobs")
    topology.apply(Bound(Binding(source="amq.fanout", destination="inner", to_exchange=True)))

    with pytest.raises(AccessRefused, match="publish to an exchange that is bound to it"):
        targets(topology, "inner", "k")
    assert names(targets(topology, "amq.fanout", "k")) == ["jobs"]


def test_a_missing_exchange_is_not_found(topology: Topology) -> None:
    with pytest.raises(NotFound):
        targets(topology, "nowhere", "k")


@pytest.mark.parametrize("envelope", [b"", b"\x94", encode_envelope("amq.fanout", "other")])
def test_an_envelope_says_what_its_frame_says(topology: Topology, envelope: bytes) -> None:
    with pytest.raises(InvalidArgument, match="envelope"):
        targets_of(topology, Publish(1, "amq.fanout", "k", envelope, b""))


def test_headers_that_cannot_be_read_are_refused_where_they_decide(topology: Topology) -> None:
    broken = encode_envelope("amq.match", "k")[:-1] + b"\xc1"
    with pytest.raises(InvalidArgument, match="envelope"):
        targets_of(topology, Publish(1, "amq.match", "k", broken, b""))
