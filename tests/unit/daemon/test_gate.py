"""Each frame asks for what docs/OPERATIONS.md says, and none is left out."""

import typing
from typing import Any

import pytest

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.errors import AccessRefused, DirectRefused, InvalidArgument
from shmq.message import encode_envelope
from shmq.wire import frames as wire
from shmq_daemon.events import Queue, QueueDeclared
from shmq_daemon.gate import Gate, check_publish
from shmq_daemon.permissions import VERBS, Access, Principal, Rule, Subject, Verb
from shmq_daemon.topology import Topology

QUEUE = QueueDefinition("q")
DEAD = QueueDefinition("q", dead_letter_exchange="x")
DEAD_TO_QUEUE = QueueDefinition("q", dead_letter_exchange="", dead_letter_routing_key="dead")
GENERATED = QueueDefinition("")
EXCHANGE = ExchangeDefinition("x")
ALTERNATE = ExchangeDefinition("x", alternate_exchange="y")
Needs = set[tuple[str, str]]


def may_all_but(without: tuple[str, str] | None = None) -> Access:
    """A subject that may do everything to everything, but for one thing."""
    allow: dict[Verb, list[str]] = {verb: ["*"] for verb in VERBS}
    deny = {verb: [name] for verb, name in [without or ("read", "nothing")] if verb in allow}
    return Access(Subject(1, frozenset()), [Rule(Principal("any"), allow, deny)])


def refused(frame: wire.ClientFrame, access: Access, topology: Topology | None = None) -> bool:
    try:
        Gate(topology or Topology()).check(access, frame)
    except (AccessRefused, DirectRefused):
        return True
    return False


def needs(frame: wire.ClientFrame, topology: Topology | None = None) -> Needs:
    """The permissions without each of which a frame is refused."""
    names = ("q", "x", "y", "dead", "amq.gen-", "amq.default")
    asked = {(verb, name) for verb in VERBS for name in names}
    return {one for one in asked if refused(frame, may_all_but(one), topology)}


@pytest.mark.parametrize(
    ("frame", "needed"),
    [
        (wire.DeclareQueue(1, QUEUE), {("configure", "q")}),
        (wire.DeclareQueue(1, GENERATED), {("configure", "amq.gen-")}),
        (wire.DeclareQueue(1, DEAD), {("configure", "q"), ("read", "q"), ("write", "x")}),
        (wire.DeclareQueue(1, DEAD_TO_QUEUE), {("configure", "q"), ("read", "q"), ("write", "dead")}),
        (wire.DeclareQueue(1, DEAD, passive=True), set()),
        (wire.DeleteQueue(1, "q"), {("configure", "q")}),
        (wire.PurgeQueue(1, "q"), {("read", "q")}),
        (wire.InspectQueue(1, "q"), set()),
        (wire.DeclareExchange(1, EXCHANGE), {("configure", "x")}),
        (wire.DeclareExchange(1, ALTERNATE), {("configure", "x"), ("read", "x"), ("write", "y")}),
        (wire.DeclareExchange(1, ALTERNATE, passive=True), set()),
        (wire.DeleteExchange(1, "x"), {("configure", "x")}),
        (wire.BindQueue(1, "q", "x"), {("write", "q"), ("read", "x")}),
        (wire.UnbindQueue(1, "q", "x"), {("write", "q"), ("read", "x")}),
        (wire.BindExchange(1, "y", "x"), {("write", "y"), ("read", "x")}),
        (wire.UnbindExchange(1, "y", "x"), {("write", "y"), ("read", "x")}),
        (wire.Attach(1, "q"), {("direct", "q"), ("write", "q"), ("read", "q")}),
        (wire.RenewBells(1, "q"), {("direct", "q"), ("write", "q"), ("read", "q")}),
        (wire.Detach(1, "q"), set()),
        (wire.Route(1, "x", "k"), {("write", "x")}),
        (wire.Route(1, "", "q"), {("write", "q")}),
        (wire.Route(1, "", "q", ["dead"]), {("write", "q"), ("write", "dead")}),
        (wire.Route(1, "x", "k", ["q"]), {("write", "x")}),
        (wire.Get(1, "q"), {("read", "q")}),
        (wire.Consume(1, "q"), {("read", "q")}),
        (wire.Status(1), set()),
        (wire.ListQueues(1), set()),
        (wire.ListExchanges(1), set()),
        (wire.ListBindings(1, "x", "q"), set()),
    ],
)
def test_a_frame_needs(frame: wire.ClientFrame, needed: Needs) -> None:
    assert needs(frame) == needed
    assert not refused(frame, may_all_but())


@pytest.mark.parametrize(
    "frame",
    [
        wire.DeclareQueue(1, QUEUE, passive=True),
        wire.DeclareExchange(1, EXCHANGE, passive=True),
        wire.InspectQueue(1, "q"),
        wire.Detach(1, "q"),
    ],
)
def test_to_look_at_a_thing_takes_one_permission_on_it(frame: wire.ClientFrame) -> None:
    def one(verb: Verb) -> Access:
        return Access(Subject(1, frozenset()), [Rule(Principal("any"), {verb: ["q", "x"]})])

    assert [verb for verb in VERBS if not refused(frame, one(verb))] == ["configure", "write", "read"]


def test_whoever_may_configure_a_queue_that_is_there_may_declare_it_again() -> None:
    topology = Topology()
    queue = Queue(queue_id=1, definition=DEAD, geometry=(1, 1, 1, 1, 1), segment="/s", number=0)
    topology.apply(QueueDeclared(queue))

    assert needs(wire.DeclareQueue(1, DEAD), topology) == {("configure", "q")}


def publish(key: str, headers: dict[str, Any], exchange: str = "") -> wire.Publish:
    return wire.Publish(1, exchange, key, encode_envelope(exchange, key, headers=headers), b"")


@pytest.mark.parametrize(
    ("frame", "needed"),
    [
        (publish("q", {}), {"q"}),
        (publish("q", {"CC": ["x"], "BCC": ["y"]}), {"q", "x", "y"}),
        (publish("q", {"CC": ["y"]}, "x"), {"x"}),
        (publish("amq.rabbitmq.reply-to.abc", {}), set()),
    ],
)
def test_a_publish_needs_write_on_all_that_it_names(frame: wire.Publish, needed: set[str]) -> None:
    def is_refused(name: str) -> bool:
        try:
            check_publish(may_all_but(("write", name)), frame)
        except AccessRefused:
            return True
        return False

    assert {name for name in ("q", "x", "y", frame.routing_key) if is_refused(name)} == needed


@pytest.mark.parametrize("headers", [{"CC": "x"}, {"CC": ["x"], "BCC": ["y", 5]}])
def test_a_publish_whose_keys_are_none_is_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        check_publish(may_all_but(), publish("q", headers))


def test_to_wait_for_replies_needs_nothing() -> None:
    nothing = Access(Subject(1, frozenset()))

    assert not refused(wire.Consume(1, "amq.rabbitmq.reply-to", no_ack=True), nothing)
    assert refused(wire.Consume(1, "amq.rabbitmq.reply-to.abc"), nothing)


def test_every_frame_of_a_client_is_in_the_table() -> None:
    assert set(Gate(Topology())._checks) == set(typing.get_args(wire.ClientFrame))
