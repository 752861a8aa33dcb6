"""What direct clients are told decides as the router it comes from."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from shmq.definitions import ExchangeDefinition, Scalar
from shmq.routing.bindings import Binding, encode_arguments
from shmq.routing.compiled import compile_route, router_of
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


def routed(router: Router, exchange: str, keys: tuple[str, ...], headers: dict[str, Any], *, other_keys: bool) -> Route:
    """Route as a direct client does; with other keys than it asked with, where it was told that any will do."""
    compiled = compile_route(router, exchange, keys)
    if compiled.any_key and other_keys:
        compiled = compile_route(router, exchange, ("something.else",))
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
    st.booleans(),
)
def test_a_compiled_route_routes_as_its_router(
    router: Router,
    exchange: str,
    keys: tuple[str, ...],
    headers: dict[str, Any],
    other_keys: bool,  # noqa: FBT001 - drawn
) -> None:
    """Invariant: for any headers, the graph that a client walks leads where the broker's walk leads."""
    assert routed(router, exchange, keys, headers, other_keys=other_keys) == router.route(exchange, keys, headers)


def test_a_route_that_reads_no_headers_is_no_graph() -> None:
    router = Router()
    router.add_exchange(ExchangeDefinition("a", "topic"))
    router.bind(Binding(source="a", destination="q", routing_key="#"))

    assert compile_route(router, "a", ("k",)) == (Route(("q",)), False, (), ())
