"""What is there: queues, exchanges and bindings, listed page by page, each once, in order."""

from collections.abc import Callable

import pytest

import shmq
from shmq.limits import PAGE_ENTRIES_MAX
from shmq.wire.fields import BindingInfo
from support.messages import QueueMaker

ExchangeMaker = Callable[..., str]


@pytest.mark.rule("ROUTE-21")
def test_an_exchange_is_listed_as_it_was_declared(conn: shmq.Connection, new_exchange: ExchangeMaker) -> None:
    name = new_exchange("topic", auto_delete=True, durable=False, alternate_exchange="rest", arguments={"x-team": "a"})

    (listed,) = [exchange for exchange in conn.exchanges() if exchange.name == name]

    assert (listed.type, listed.durable, listed.auto_delete, listed.internal) == ("topic", False, True, False)
    assert (listed.alternate_exchange, listed.other) == ("rest", {"x-team": "a"})


@pytest.mark.rule("ROUTE-21")
def test_all_exchanges_but_the_default_one_are_listed_in_order(
    conn: shmq.Connection, new_exchange: ExchangeMaker
) -> None:
    names = {new_exchange() for _ in range(3)} | {
        f"amq.{name}" for name in ["direct", "fanout", "topic", "headers", "match"]
    }

    listed = [exchange.name for exchange in conn.exchanges()]

    assert names <= set(listed)
    assert "" not in listed
    assert listed == sorted(set(listed))


@pytest.mark.rule("ROUTE-21")
def test_a_binding_is_listed_by_its_ends_key_and_arguments(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    source, other = new_exchange("headers"), new_exchange()
    conn.bind_queue(queue, source, "k", match="any", arguments={"n": 1, "b": None})
    conn.bind_exchange(other, source, "e")

    to_queue = BindingInfo(source, queue, False, "k", {"x-match": "any", "n": 1, "b": None})
    to_exchange = BindingInfo(source, other, True, "e", {})
    assert sorted(conn.bindings(source=source), key=lambda one: one.to_exchange) == [to_queue, to_exchange]
    assert conn.bindings(destination=queue) == [to_queue]
    assert conn.bindings(source=source, destination=other) == [to_exchange]
    assert conn.bindings(source=other) == conn.bindings(destination="there-is-none") == []
    assert [one for one in conn.bindings() if one.source == source] == conn.bindings(source=source)


@pytest.mark.rule("ROUTE-21")
def test_more_bindings_than_a_page_holds_are_listed_once_each(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    queue, one, other = new_queue(), new_exchange("topic"), new_exchange("topic")
    keys = {f"k.{number}" for number in range(PAGE_ENTRIES_MAX + 100)}
    for key in keys:
        conn.bind_queue(queue, one, key)
    conn.bind_queue(queue, other, "last")

    listed = conn.bindings(destination=queue)

    assert len(listed) == len(keys) + 1
    assert {binding.routing_key for binding in listed if binding.source == one} == keys
    assert [binding for binding in conn.bindings() if binding.destination == queue] == listed


@pytest.mark.rule("ROUTE-21")
def test_arguments_that_fill_a_frame_make_more_pages(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    source, text = new_exchange("direct"), "x" * 4096
    for number in range(20):
        conn.bind_queue(queue, source, str(number), arguments={f"a{index}": text for index in range(15)})

    assert len(conn.bindings(source=source)) == 20


@pytest.mark.rule("ROUTE-21")
@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_binding_that_went_is_not_listed(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker, end: str
) -> None:
    source = new_exchange()
    conn.bind_queue(queue, source, "k")
    conn.delete_exchange(source) if end == "source" else conn.delete_queue(queue)

    assert conn.bindings(source=source) == conn.bindings(destination=queue) == []
