"""Compiled routes: when a direct client asks the broker, and when it need not."""

from collections.abc import Callable
from typing import Any

import pytest

from shmq.definitions import ExchangeDefinition
from shmq.errors import DirectRefused, NotFound, ResourceLocked
from shmq.message import encode_envelope
from shmq.routing.addressing import Addressed
from shmq.wire.fields import BindingInfo
from shmq.wire.frames import Route, Routed
from shmq_clients import routes
from shmq_clients.routes import Routes

EVENTS = ExchangeDefinition("events", "topic")
FILTER = ExchangeDefinition("events", "headers")


class Queue:
    deleted = False


class Attachment:
    def __init__(self, name: str) -> None:
        self.name = name
        self.queue = Queue()


class Broker:
    """Stands for the attachments and their link: answers what it was told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.link = self
        self.answer = Routed(1, [], [])
        self.asked: list[Route] = []
        self.value = 7
        self.refused: dict[str, Exception] = {}
        self.attached: dict[str, Attachment] = {}
        self.on_sweep: list[Callable[[], object]] = []

    def ask(self, make: Callable[[int], Route], _answer: type[Routed], **_how: object) -> Routed:
        self.asked.append(make(1))
        return self.answer

    def word(self, index: int) -> int:
        return self.value if index == 3 else -1

    def attach(self, name: str) -> Attachment:
        if name in self.refused:
            raise self.refused[name]
        return self.attached.setdefault(name, Attachment(name))

    def is_current(self, attachment: Attachment) -> bool:
        return self.attached.get(attachment.name) is attachment


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def kept(broker: Broker) -> Routes:
    return Routes(broker)  # type: ignore[arg-type] # what they use of it


def says(broker: Broker, *queues: str, **fields: Any) -> None:
    broker.answer = Routed(1, list(queues), [(3, broker.value)], **fields)


def targets(kept: Routes, *keys: str, exchange: str = "events", **headers: Any) -> tuple[list[str], list[str]] | None:
    envelope = encode_envelope(exchange, keys[0], headers=headers)
    found = kept.targets(exchange, Addressed(keys, headers, envelope))
    return None if found is None else ([one.name for one in found.at_once], [one.name for one in found.delayed])


def test_a_route_is_asked_for_once_a_generation(broker: Broker, kept: Routes) -> None:
    says(broker, "a", delayed=["b"])
    assert [targets(kept, "k"), targets(kept, "k")] == [(["a"], ["b"])] * 2
    assert len(broker.asked) == 1
    broker.value += 1
    says(broker, "c")

    assert [targets(kept, "k"), targets(kept, "k")] == [(["c"], [])] * 2
    assert len(broker.asked) == 2


def test_all_keys_of_a_message_are_asked_for_at_once(broker: Broker, kept: Routes) -> None:
    says(broker, "a")
    targets(kept, "k", "l", "m")

    assert broker.asked == [Route(1, "events", "k", ["l", "m"])]


def test_where_no_key_is_read_one_answer_holds_for_all(broker: Broker, kept: Routes) -> None:
    says(broker, "a", any_key=True)

    assert [targets(kept, key) for key in ("k", "l", "m")] == [(["a"], [])] * 3
    assert len(broker.asked) == 1


def test_a_graph_routes_every_key_and_follows_its_word(broker: Broker, kept: Routes) -> None:
    bindings = [BindingInfo("events", "a", routing_key="k.*"), BindingInfo("events", "b", routing_key="#.1")]
    says(broker, any_key=True, exchanges=[EVENTS], bindings=bindings)

    assert [targets(kept, key) for key in ("k.1", "k.2", "l", "k.1")] == [
        (["a", "b"], []),
        (["a"], []),
        ([], []),
        (["a", "b"], []),
    ]
    assert len(broker.asked) == 1
    broker.value += 1
    says(broker, "c")
    assert targets(kept, "k.1") == (["c"], [])


def test_a_graph_reads_the_headers_of_each_message(broker: Broker, kept: Routes) -> None:
    says(broker, any_key=True, exchanges=[FILTER], bindings=[BindingInfo("events", "a", arguments={"n": 1})])

    assert [targets(kept, "k", n=n) for n in (1, 2, 1.0, True)] == [(["a"], []), ([], []), (["a"], []), ([], [])]
    assert len(broker.asked) == 1


def test_what_is_not_direct_is_the_brokers_until_something_changes(broker: Broker, kept: Routes) -> None:
    says(broker, direct=False)
    assert [targets(kept, "k"), targets(kept, "k")] == [None, None]
    assert len(broker.asked) == 1


@pytest.mark.parametrize("error", [NotFound(name="b"), DirectRefused(queue="b"), ResourceLocked(queue="b")])
def test_a_route_with_a_queue_that_cannot_be_attached_is_the_brokers(
    broker: Broker, kept: Routes, error: Exception
) -> None:
    broker.refused["b"] = error
    says(broker, "a", "b")

    assert targets(kept, "k") is None


def test_the_default_exchange_needs_no_route(broker: Broker, kept: Routes) -> None:
    broker.refused = {"gone": NotFound(name="gone"), "locked": ResourceLocked(queue="locked")}

    assert targets(kept, "a", "gone", "b", exchange="") == (["a", "b"], [])
    assert targets(kept, "a", "locked", exchange="") is None
    assert broker.asked == []


def test_a_route_to_a_queue_that_is_gone_is_asked_for_anew(broker: Broker, kept: Routes) -> None:
    says(broker, "a")
    targets(kept, "k")
    broker.attached.pop("a").queue.deleted = True
    says(broker, "b")

    assert targets(kept, "k") == (["b"], [])


def test_a_sweep_lets_go_of_routes_to_queues_that_are_gone(broker: Broker, kept: Routes) -> None:
    says(broker, "a")
    targets(kept, "k1")
    says(broker, "b")
    targets(kept, "k2")
    broker.attached["a"].queue.deleted = True
    for sweep in broker.on_sweep:
        sweep()

    assert [keys for _, keys in kept._compiled] == [("k2",)]


def test_what_is_kept_has_an_end(broker: Broker, kept: Routes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ROUTES_MAX", 3)
    says(broker, "a")
    for number in range(10):
        targets(kept, f"k{number}")

    assert len(kept._compiled) <= 3
