"""Which queues a message goes to."""

import pytest

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.errors import NotFound
from shmq_daemon.events import Binding, Bound, Exchange, ExchangeDeclared, Queue, QueueDeclared
from shmq_daemon.routing import exchanges_used, route
from shmq_daemon.topology import Topology


@pytest.fixture
def topology() -> Topology:
    made = Topology()
    for number, name in enumerate(("jobs", "logs"), 1):
        geometry = (1, 64, 64, 4, 0)
        made.apply(
            QueueDeclared(
                Queue(queue_id=number, definition=QueueDefinition(name), geometry=geometry, segment="", number=number)
            )
        )
    for number, name in enumerate(("a", "b"), 1):
        made.apply(ExchangeDeclared(Exchange(definition=ExchangeDefinition(name), word=number)))
    return made


def bind(topology: Topology, source: str, destination: str, key: str = "k", *, to_exchange: bool = False) -> None:
    topology.apply(Bound(Binding(source=source, destination=destination, routing_key=key, to_exchange=to_exchange)))


def names(topology: Topology, exchange: str, *keys: str) -> list[str]:
    return [queue.name for queue in route(topology, exchange, keys)]


def test_the_default_exchange_routes_to_the_queue_of_that_name(topology: Topology) -> None:
    assert names(topology, "", "jobs") == ["jobs"]
    assert names(topology, "", "nothing") == []


def test_a_direct_exchange_routes_equal_keys(topology: Topology) -> None:
    bind(topology, "a", "jobs")

    assert names(topology, "a", "k") == ["jobs"]
    assert names(topology, "a", "other") == []


def test_a_queue_gets_one_copy_whatever_matches(topology: Topology) -> None:
    bind(topology, "a", "jobs", "k")
    bind(topology, "a", "jobs", "l")

    assert names(topology, "a", "k", "l") == ["jobs"]


def test_exchanges_pass_on_and_a_cycle_ends(topology: Topology) -> None:
    bind(topology, "a", "b", to_exchange=True)
    bind(topology, "b", "a", to_exchange=True)
    bind(topology, "b", "logs")

    assert names(topology, "a", "k") == ["logs"]
    assert exchanges_used(topology, "a") == {"a", "b"}


def test_a_missing_exchange_is_not_found(topology: Topology) -> None:
    with pytest.raises(NotFound):
        names(topology, "nowhere", "k")
