"""What direct clients are told decides as the router it comes from."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from shmq.definitions import ExchangeDefinition, Scalar
from shmq.routing.bindings import Binding, encode_arguments
from shmq.routing.compiled import WHOLE_BINDINGS_MAX, compile_route, compile_whole, router_of
from shmq.routing.router import Route, Router

EXCHANGES = ("a", "b", "c")
QUEUES = ("q", "r", "k.1")
TYPES = st.sampled_from(["direct", "fanout", "topic", "headers", "x-delayed-message"])
KEYS = st.sampled_from(["k.1", "k.2", "", "*.1"])
ARGUMENTS: st.SearchStrategy[dict[str, Scalar]] = st.sampled_from(
    [{}, {"n": 1}, {"n": None}, {"x-match": "any", "n": 2}]
)


@st.composite
def routers(draw: st.DrawFn) -> Router:
    router = Router()
    for name in QUEUES:
        router.add_queue(name)
    for name in EXCHANGES:
        kind = draw(TYPES)
        delayed = draw(TYPES.filter(lambda kind: kind != "x-delayed-message")) if kind == "x-delayed-message" else None
        alternate = draw(st.sampled_from([None, "", *EXCHANGES]))
        router.add_exchange(ExchangeDefinition(name, kind, alternate_exchange=alternate, delayed_type=delayed))
    for _ in range(draw(st.integers(0, 8))):
        to_exchange = draw(st.booleans())
        router.bind(
            Binding(
                source=draw(st.sampled_from(EXCHANGES)),
                destination=draw(st.sampled_from(EXCHANGES if to_exchange else QUEUES)),
                to_exchange=to_exchange,
                routing_key=draw(KEYS),
                arguments=encode_arguments(draw(ARGUMENTS)),
            )
        )
    return router


def routed(router: Router, exchange: str, keys: tuple[str, ...], headers: dict[str, Any], how: str) -> Route:
    """Route as a direct client does; with other keys than it asked with, where it was told that any will do."""
    compiled = compile_route(router, exchange, keys)
    if how == "other keys" and compiled.any_key:
        compiled = compile_route(router, exchange, ("something.else",))
    if how == "whole":
        compiled = compile_whole(router, exchange) or compiled
    if not compiled.exchanges:
        return compiled.route
    graph = router_of(compiled.route.queues, compiled.exchanges, compiled.bindings)
    found = graph.route(exchange, keys, headers)
    assert compiled.queues.issuperset((*found.queues, *found.delayed))
    return found


@given(
    routers(),
    st.sampled_from(EXCHANGES),
    st.lists(KEYS, min_size=1, max_size=2, unique=True).map(tuple),
    st.sampled_from([{}, {"n": 1}, {"n": 2}, {"n": "x"}]),
    st.sampled_from(["these keys", "other keys", "whole"]),
)
def test_a_compiled_route_routes_as_its_router(
    router: Router,
    exchange: str,
    keys: tuple[str, ...],
    headers: dict[str, Any],
    how: str,
) -> None:
    """Invariant: for any headers, the graph that a client walks leads where the broker's walk leads."""
    assert routed(router, exchange, keys, headers, how) == router.route(exchange, keys, headers)


def topic(bindings: int) -> Router:
    router = Router()
    router.add_exchange(ExchangeDefinition("a", "topic", other={"x-note": "not told"}))
    for number in range(bindings):
        router.bind(Binding(source="a", destination=f"q{number}", routing_key=f"k.{number}"))
    return router


def test_little_is_told_whole_and_holds_for_all_keys() -> None:
    whole = compile_whole(topic(2), "a")

    assert whole is not None
    assert (whole.any_key, whole.queues) == (True, {"q0", "q1"})
    assert whole.exchanges == (ExchangeDefinition("a", "topic"),)


def test_much_is_told_by_the_key() -> None:
    router = topic(WHOLE_BINDINGS_MAX + 1)

    assert compile_whole(router, "a") is None
    assert compile_route(router, "a", ("k.1",)) == (Route(("q1",)), False, (), ())


def test_where_nothing_is_read_a_route_holds_for_all_keys() -> None:
    router = Router()
    router.add_exchange(ExchangeDefinition("a", "fanout"))
    router.bind(Binding(source="a", destination="q", routing_key="k"))

    assert compile_whole(router, "a") == compile_route(router, "a", ("k",)) == (Route(("q",)), True, (), ())


def test_what_ends_at_queues_by_their_names_is_told_by_the_key() -> None:
    router = Router()
    router.add_exchange(ExchangeDefinition("a", "fanout", alternate_exchange=""))
    router.add_queue("q")

    assert compile_whole(router, "a") is None
    assert compile_route(router, "a", ("q",)) == (Route(("q",)), False, (), ())
