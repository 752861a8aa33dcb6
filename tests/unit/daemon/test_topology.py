"""What follows from declarations and bindings, and the errors that stand against them."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.errors import AccessRefused, InvalidArgument, NotFound, PreconditionFailed, ResourceLocked
from shmq.routing.bindings import Binding, encode_arguments
from shmq_daemon.events import (
    Bound,
    Event,
    ExchangeDeclared,
    ExchangeDeleted,
    Queue,
    QueueDeclared,
    QueueDeleted,
    Unbound,
)
from shmq_daemon.topology import Topology, Usage

IDLE = Usage(0, 0)


def queue(name: str, queue_id: int = 1, exclusive_to: int = 0) -> Queue:
    return Queue(
        queue_id=queue_id,
        definition=QueueDefinition(name),
        exclusive_to=exclusive_to,
        geometry=(1, 64, 64, 4, 0),
        segment=f"/{name}",
        number=queue_id,
    )


def topology(*events: Event) -> Topology:
    made = Topology()
    apply(made, list(events))
    return made


def apply(made: Topology, events: list[Event]) -> list[Event]:
    for event in events:
        made.apply(event)
    return events


def exchange(made: Topology, name: str, **flags: bool) -> None:
    apply(made, made.declare_exchange(ExchangeDefinition(name, **flags)))  # type: ignore[arg-type] # flags alone


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ],
)
def test_the_predeclared_exchanges_are_there(name: str, kind: str) -> None:
    definition = topology().exchange(name).definition

    assert (definition.type, definition.durable) == (kind, True)


def test_an_equal_declaration_changes_nothing() -> None:
    made = topology()
    exchange(made, "images")

    assert made.declare_exchange(ExchangeDefinition("images")) == []


def test_a_different_declaration_names_the_argument_and_both_values() -> None:
    made = topology()
    exchange(made, "images")
    with pytest.raises(PreconditionFailed) as raised:
        made.declare_exchange(ExchangeDefinition("images", durable=True))

    assert (raised.value.argument, raised.value.declared, raised.value.asked) == ("durable", False, True)


@pytest.mark.parametrize("name", ["", "amq.mine"])
def test_the_brokers_exchanges_cannot_be_declared(name: str) -> None:
    with pytest.raises(AccessRefused):
        topology().declare_exchange(ExchangeDefinition(name))


@pytest.mark.parametrize("name", ["", "amq.direct"])
def test_the_brokers_exchanges_cannot_be_deleted(name: str) -> None:
    with pytest.raises(AccessRefused):
        topology().delete_exchange(name, if_unused=False)


@pytest.mark.parametrize(("argument", "value"), [("alternate-exchange", "rest"), ("type", "topic")])
def test_an_exchange_declared_with_other_arguments_is_refused_by_name(argument: str, value: str) -> None:
    made = topology()
    exchange(made, "images")
    asked = ExchangeDefinition("images", **{argument.replace("-", "_"): value})  # type: ignore[arg-type] # one of its words
    with pytest.raises(PreconditionFailed) as raised:
        made.declare_exchange(asked)

    assert (raised.value.argument, raised.value.asked) == (argument, value)


def test_a_form_of_x_match_that_there_is_not_is_refused_where_headers_are_compared_and_nowhere_else() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    wrong = encode_arguments({"x-match": "some"})
    with pytest.raises(InvalidArgument, match="x-match = 'some'"):
        made.bind(Binding(source="amq.match", destination="jobs", arguments=wrong), 0)

    assert made.bind(Binding(source="amq.topic", destination="jobs", arguments=wrong), 0)


def test_bindings_that_differ_in_their_arguments_are_two() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    for value in (1, 1.0, True):
        binding = Binding(source="amq.headers", destination="jobs", arguments=encode_arguments({"n": value}))
        assert apply(made, made.bind(binding, 0)) == [Bound(binding)]

    assert len(made.delete_queue(made.queue("jobs"), IDLE)) == 4


def test_a_queue_of_another_connection_is_locked() -> None:
    made = topology(QueueDeclared(queue("mine", exclusive_to=7)))

    assert made.queue("mine", 7).name == "mine"
    with pytest.raises(ResourceLocked):
        made.queue("mine", 8)


def test_a_missing_queue_is_not_found() -> None:
    with pytest.raises(NotFound):
        topology().queue("jobs")


def test_deleting_a_queue_unbinds_it_first() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    binding = Binding(source="amq.direct", destination="jobs", routing_key="a")
    apply(made, made.bind(binding, 0))

    assert made.delete_queue(made.queue("jobs"), IDLE) == [Unbound(binding), QueueDeleted(1)]


def test_binding_twice_is_binding_once() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    binding = Binding(source="amq.direct", destination="jobs")

    assert apply(made, made.bind(binding, 0)) == [Bound(binding)]
    assert made.bind(binding, 0) == []


def test_unbinding_what_is_not_bound_is_fine() -> None:
    made = topology(QueueDeclared(queue("jobs")))

    assert made.unbind(Binding(source="amq.direct", destination="jobs"), 0) == []


def test_the_default_exchange_cannot_be_bound() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    with pytest.raises(AccessRefused):
        made.bind(Binding(source="", destination="jobs"), 0)


@pytest.mark.parametrize(("usage", "flags"), [(Usage(1, 0), {"if_unused": True}), (Usage(0, 1), {"if_empty": True})])
def test_a_queue_in_use_or_not_empty_stays_when_asked(usage: Usage, flags: dict[str, bool]) -> None:
    made = topology(QueueDeclared(queue("jobs")))
    with pytest.raises(PreconditionFailed):
        made.delete_queue(made.queue("jobs"), usage, **flags)


def test_an_exchange_in_use_stays_when_asked() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    exchange(made, "images")
    apply(made, made.bind(Binding(source="images", destination="jobs"), 0))
    with pytest.raises(PreconditionFailed):
        made.delete_exchange("images", if_unused=True)


def test_an_auto_delete_exchange_goes_with_its_last_binding() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    exchange(made, "passing", auto_delete=True)
    binding = Binding(source="passing", destination="jobs")
    apply(made, made.bind(binding, 0))

    assert made.unbind(binding, 0) == [Unbound(binding), ExchangeDeleted("passing")]


def test_auto_deletion_goes_up_a_chain_of_exchanges() -> None:
    made = topology(QueueDeclared(queue("jobs")))
    for name in ("first", "second"):
        exchange(made, name, auto_delete=True)
    inner = Binding(source="second", destination="jobs")
    outer = Binding(source="first", destination="second", to_exchange=True)
    for binding in (inner, outer):
        apply(made, made.bind(binding, 0))
    events = apply(made, made.unbind(inner, 0))

    assert events == [Unbound(inner), Unbound(outer), ExchangeDeleted("second"), ExchangeDeleted("first")]


def test_upstream_is_every_exchange_that_feeds_one() -> None:
    made = topology()
    for name in ("a", "b", "c"):
        exchange(made, name)
    for source, destination in (("a", "b"), ("b", "c"), ("c", "a")):
        apply(made, made.bind(Binding(source=source, destination=destination, to_exchange=True), 0))

    assert made.router.upstream("c") == {"a", "b", "c"}


def test_words_and_numbers_are_the_lowest_that_are_free() -> None:
    made = topology(QueueDeclared(queue("a", 0)), QueueDeclared(queue("b", 2)))
    exchange(made, "images")

    assert made.free_number() == 1
    assert made.free_word() == 6


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from(["k", "l"])), max_size=12))
def test_undoing_everything_leaves_what_was_there(bindings: list[tuple[str, str, str]]) -> None:
    """Invariant: whatever was bound, deleting the exchanges and queues leaves no binding behind."""
    made = topology(*(QueueDeclared(queue(name, number)) for number, name in enumerate("xyz", 1)))
    for name in "abc":
        exchange(made, name)
    for source, destination, key in bindings:
        apply(made, made.bind(Binding(source=source, destination=destination, routing_key=key), 0))
    for name in "ab":
        apply(made, made.delete_exchange(name, if_unused=False))
    for name in "xyz":
        apply(made, made.delete_queue(made.queue(name), IDLE))

    assert list(made.router.bindings()) == []
    assert set(made.exchanges) == {*topology().exchanges, "c"}


def test_events_have_one_form_for_state_and_link() -> None:
    declared = ExchangeDeclared(topology().exchange("amq.direct"))

    assert declared.exchange.name == "amq.direct"
