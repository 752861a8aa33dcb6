"""Exchanges and bindings: the same in each mode, as RabbitMQ has them."""

from collections.abc import Callable
from typing import Any

import pytest

import shmq
from support.routed import bodies, publish

QueueMaker = Callable[..., str]
ExchangeMaker = Callable[..., str]


# -- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ROUTE-2")
def test_a_fanout_exchange_routes_everything_to_all(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    exchange, queues = new_exchange("fanout"), [new_queue() for _ in range(3)]
    for queue in queues:
        conn.bind_queue(queue, exchange, "ignored")

    publish(conn, exchange, "one", b"1")
    publish(conn, exchange, "two", b"2")

    assert [bodies(conn, queue) for queue in queues] == [[b"1", b"2"]] * 3


@pytest.mark.rule("ROUTE-5", "ROUTE-6")
@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("image.*.new", ["image.cam1.new", "image..new"], ["image.new", "image.a.b.new", "image.a.old"]),
        ("#.a", ["a", "b.a", "b.c.a"], ["", "a.b"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["", "b.a"]),
        ("#", ["", "a", "a.b"], []),
        ("*", ["a"], ["", "a.b"]),
        ("*.*", ["."], ["", "a", "a.b.c"]),
        ("", [""], ["a"]),
    ],
)
def test_a_topic_exchange_routes_by_patterns_of_words(  # noqa: PLR0917 - a row of the table, and fixtures
    conn: shmq.Connection,
    new_queue: QueueMaker,
    new_exchange: ExchangeMaker,
    pattern: str,
    matching: list[str],
    others: list[str],
) -> None:
    exchange, queue = new_exchange("topic"), new_queue()
    conn.bind_queue(queue, exchange, pattern)

    for key in (*matching, *others):
        publish(conn, exchange, key, key.encode())

    assert bodies(conn, queue) == [key.encode() for key in matching]


@pytest.mark.rule("ROUTE-7", "ROUTE-8", "ROUTE-9")
@pytest.mark.parametrize(
    ("match", "arguments", "matching", "others"),
    [
        (
            None,
            {"a": 1, "b": "x"},
            [{"a": 1, "b": "x", "c": 0}, {"a": 1.0, "b": "x"}],
            [{"a": 1}, {"a": True, "b": "x"}],
        ),
        ("any", {"a": 1, "b": "x"}, [{"a": 1}, {"b": "x"}], [{}, {"a": 2}, {"c": 1}]),
        ("all", {"a": None}, [{"a": 5}, {"a": None}, {"a": [1]}], [{}, {"b": 1}]),
        ("all", {"x-a": 1}, [{}, {"x-a": 2}], []),
        ("all-with-x", {"x-a": 1}, [{"x-a": 1}], [{}, {"x-a": 2}]),
        ("any-with-x", {"x-a": 1, "b": 1}, [{"x-a": 1}, {"b": 1}], [{}]),
        ("any", {"x-a": 1}, [], [{}, {"x-a": 1}]),
        (None, {}, [{}, {"a": 1}], []),
        ("any", {}, [], [{}, {"a": 1}]),
        (None, {"a": "1"}, [{"a": "1"}], [{"a": 1}]),
        (None, {"a": True}, [{"a": True}], [{"a": 1}, {"a": "true"}]),
    ],
)
def test_a_headers_exchange_routes_by_headers(  # noqa: PLR0917 - a row of the table, and fixtures
    conn: shmq.Connection,
    new_queue: QueueMaker,
    new_exchange: ExchangeMaker,
    match: str | None,
    arguments: dict[str, Any],
    matching: list[dict[str, Any]],
    others: list[dict[str, Any]],
) -> None:
    exchange, queue = new_exchange("headers"), new_queue()
    conn.bind_queue(queue, exchange, match=match, arguments=arguments)

    for headers in (*matching, *others):
        publish(conn, exchange, "k", repr(headers).encode(), headers=headers)

    assert bodies(conn, queue) == [repr(headers).encode() for headers in matching]


@pytest.mark.rule("ROUTE-7")
def test_a_headers_binding_is_refused_for_a_form_that_there_is_not(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    exchange = new_exchange("headers")
    with pytest.raises(shmq.InvalidArgument, match="x-match = 'some'"):
        conn.bind_queue(queue, exchange, match="some")


@pytest.mark.rule("ERROR-3")
@pytest.mark.parametrize("arguments", [5, "x-match", [("n", 1)], {1: 2}, {"n": [1]}, {"n": "\ud800"}])
def test_arguments_that_cannot_travel_are_refused(conn: shmq.Connection, queue: str, arguments: Any) -> None:
    with pytest.raises(shmq.InvalidArgument):
        conn.bind_queue(queue, "amq.headers", arguments=arguments)


@pytest.mark.rule("ROUTE-4")
@pytest.mark.parametrize("name", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"])
def test_the_predeclared_exchanges_work(conn: shmq.Connection, queue: str, name: str) -> None:
    conn.bind_queue(queue, name, "k")
    publish(conn, name, "k", b"m")
    conn.unbind_queue(queue, name, "k")
    publish(conn, name, "k", b"n")

    assert bodies(conn, queue) == [b"m"]


@pytest.mark.rule("NAME-2")
def test_names_of_the_broker_are_refused(conn: shmq.Connection) -> None:
    with pytest.raises(shmq.AccessRefused):
        conn.declare_exchange("amq.mine")
    with pytest.raises(shmq.AccessRefused):
        conn.delete_exchange("amq.topic")
    conn.declare_exchange("amq.topic", "topic")
    conn.declare_exchange("amq.topic", passive=True)


# -- one copy, unbinding, equivalence ---------------------------------------------------------------------------------


@pytest.mark.rule("ROUTE-10")
def test_a_queue_gets_one_copy_whatever_the_number_of_bindings_that_match(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    exchange = new_exchange("topic")
    for key in ("a.b", "a.*", "#"):
        conn.bind_queue(queue, exchange, key)

    publish(conn, exchange, "a.b", headers={"CC": ["a.c"]})

    assert bodies(conn, queue) == [b"x"]


@pytest.mark.rule("ROUTE-11")
def test_bindings_that_differ_in_their_arguments_are_two(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    exchange = new_exchange("direct")
    conn.bind_queue(queue, exchange, "k", arguments={"n": 1})
    conn.bind_queue(queue, exchange, "k", arguments={"n": 2})
    conn.unbind_queue(queue, exchange, "k", arguments={"n": 1})

    publish(conn, exchange, "k")

    assert bodies(conn, queue) == [b"x"]


@pytest.mark.rule("ROUTE-18")
@pytest.mark.parametrize(
    ("argument", "declared", "asked"),
    [
        ("type", {}, {"type": "topic"}),
        ("durable", {}, {"durable": False}),
        ("auto_delete", {}, {"auto_delete": True}),
        ("internal", {"internal": True}, {}),
        ("alternate-exchange", {"alternate_exchange": "a"}, {"alternate_exchange": "b"}),
        ("alternate-exchange", {}, {"arguments": {"alternate-exchange": "b"}}),
    ],
)
def test_an_exchange_that_differs_is_refused_and_what_differs_named(
    conn: shmq.Connection,
    new_exchange: ExchangeMaker,
    argument: str,
    declared: dict[str, Any],
    asked: dict[str, Any],
) -> None:
    name = new_exchange(**declared)
    conn.declare_exchange(name, **declared)
    with pytest.raises(shmq.PreconditionFailed) as caught:
        conn.declare_exchange(name, **asked)

    assert caught.value.argument == argument
    assert caught.value.declared != caught.value.asked


@pytest.mark.rule("DELAY-1", "ROUTE-18")
def test_an_exchange_that_delays_says_how_it_routes(conn: shmq.Connection) -> None:
    with pytest.raises(shmq.InvalidArgument, match="x-delayed-type"):
        conn.declare_exchange("later", "x-delayed-message")


# -- between exchanges ------------------------------------------------------------------------------------------------


@pytest.mark.rule("ROUTE-12")
def test_exchanges_pass_messages_on_and_cycles_end(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    first, second = new_exchange("topic"), new_exchange("fanout")
    conn.bind_exchange(second, first, "a.#")
    conn.bind_exchange(first, second)
    conn.bind_queue(queue, second)

    publish(conn, first, "a.b", b"passed")
    publish(conn, first, "b", b"not")
    conn.unbind_exchange(second, first, "a.#")
    publish(conn, first, "a.b", b"not")

    assert bodies(conn, queue) == [b"passed"]


@pytest.mark.rule("ROUTE-20")
def test_binding_exchanges_that_are_not_there_is_not_found(conn: shmq.Connection, new_exchange: ExchangeMaker) -> None:
    exchange = new_exchange()
    for ends in ((exchange, "nowhere"), ("nowhere", exchange)):
        with pytest.raises(shmq.NotFound, match="nowhere"):
            conn.bind_exchange(*ends, "k")
    with pytest.raises((shmq.AccessRefused, shmq.InvalidName)):
        conn.bind_exchange("", exchange)


@pytest.mark.rule("NAME-1")
@pytest.mark.parametrize("name", ["a\0b", "x" * 256, "\ud800", None, 5])
def test_a_bad_name_is_refused_wherever_it_stands(conn: shmq.Connection, name: Any) -> None:
    calls: list[Callable[[], None]] = [
        lambda: conn.bind_exchange(name, "amq.topic", "k"),
        lambda: conn.unbind_exchange("amq.topic", name, "k"),
        lambda: conn.declare_exchange("e", arguments={"alternate-exchange": name or 1}),
    ]
    for call in calls:
        with pytest.raises(shmq.InvalidArgument):
            call()


@pytest.mark.rule("ROUTE-14")
def test_an_internal_exchange_takes_from_exchanges_alone(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    inner, outer = new_exchange("fanout", internal=True), new_exchange("fanout")
    conn.bind_exchange(inner, outer)
    conn.bind_queue(queue, inner)

    with pytest.raises(shmq.AccessRefused, match="internal"):
        publish(conn, inner)
    publish(conn, outer)

    assert bodies(conn, queue) == [b"x"]


@pytest.mark.rule("ROUTE-13")
def test_the_alternate_exchange_gets_what_matched_nothing_and_that_is_routed(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    known, rest = new_queue(), new_queue()
    alternate = new_exchange("fanout")
    exchange = new_exchange("direct", alternate_exchange=alternate)
    conn.bind_queue(known, exchange, "k")
    conn.bind_queue(rest, alternate)

    publish(conn, exchange, "k", b"1", mandatory=True)
    publish(conn, exchange, "other", b"2", mandatory=True)
    publish(conn, exchange, "other", b"3", mandatory=True, headers={"CC": ["k"]})

    assert (bodies(conn, known), bodies(conn, rest)) == ([b"1", b"3"], [b"2"])


@pytest.mark.rule("ROUTE-13")
def test_a_chain_of_alternates_stops_on_a_loop(conn: shmq.Connection, new_exchange: ExchangeMaker) -> None:
    first = new_exchange("direct", alternate_exchange="alternate-loop")
    conn.declare_exchange("alternate-loop", alternate_exchange=first)

    publish(conn, first, "k")
    with pytest.raises(shmq.Unroutable):
        publish(conn, first, "k", mandatory=True)
    conn.delete_exchange("alternate-loop")


@pytest.mark.rule("ROUTE-13")
def test_an_alternate_that_is_declared_later_counts_from_then_on(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    first = new_exchange("direct", alternate_exchange="alternate-later")
    publish(conn, first, "k", b"1")
    conn.declare_exchange("alternate-later", "fanout")
    conn.bind_queue(queue, "alternate-later")
    publish(conn, first, "k", b"2")
    conn.delete_exchange("alternate-later")
    publish(conn, first, "k", b"3")

    assert bodies(conn, queue) == [b"2"]


@pytest.mark.rule("ROUTE-13")
def test_the_default_exchange_may_be_the_alternate(conn: shmq.Connection, new_exchange: ExchangeMaker) -> None:
    first = new_exchange("direct", alternate_exchange="")
    publish(conn, first, "named-later", b"1")
    conn.declare_queue("named-later")
    publish(conn, first, "named-later", b"2")

    assert bodies(conn, "named-later") == [b"2"]
    conn.delete_queue("named-later")


# -- auto-delete ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("ROUTE-19")
def test_an_auto_delete_exchange_goes_with_its_last_binding_as_source(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    outer, inner = new_exchange("fanout", auto_delete=True), new_exchange("fanout", auto_delete=True)
    one, other = new_queue(), new_queue()
    conn.declare_exchange(outer, passive=True)
    conn.bind_exchange(inner, outer)
    for queue in (one, other):
        conn.bind_queue(queue, inner)
    conn.unbind_queue(one, inner)
    conn.declare_exchange(inner, passive=True)

    conn.delete_queue(other)

    for name in (inner, outer):
        with pytest.raises(shmq.NotFound):
            conn.declare_exchange(name, passive=True)


@pytest.mark.rule("ROUTE-18")
def test_an_exchange_in_use_stays_when_asked(conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker) -> None:
    exchange = new_exchange()
    conn.bind_queue(queue, exchange, "k")
    with pytest.raises(shmq.PreconditionFailed):
        conn.delete_exchange(exchange, if_unused=True)
    conn.unbind_queue(queue, exchange, "k")

    conn.delete_exchange(exchange, if_unused=True)
