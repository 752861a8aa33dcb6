"""The walk of a message through exchanges."""

from collections.abc import Mapping
from typing import Any

import pytest

from shmq.definitions import ExchangeDefinition
from shmq.errors import NotFound
from shmq.routing.bindings import Binding, encode_arguments
from shmq.routing.router import NO_HEADERS, Route, Router


@pytest.fixture
def router() -> Router:
    made = Router()
    for name in ("jobs", "logs", "rest"):
        made.add_queue(name)
    return made


def exchange(router: Router, name: str, kind: str = "direct", **arguments: Any) -> None:
    router.add_exchange(ExchangeDefinition(name, kind, **arguments))


def binding(source: str, destination: str, key: str = "", **arguments: Any) -> Binding:
    """To an exchange where the destination is written >name."""
    return Binding(
        source=source,
        destination=destination.removeprefix(">"),
        to_exchange=destination.startswith(">"),
        routing_key=key,
        arguments=encode_arguments(arguments),
    )


def bind(router: Router, source: str, destination: str, key: str = "", **arguments: Any) -> None:
    router.bind(binding(source, destination, key, **arguments))


def queues(router: Router, exchange: str, *keys: str, headers: Mapping[str, Any] = NO_HEADERS) -> list[str]:
    return list(router.route(exchange, keys, headers).queues)


def test_the_default_exchange_routes_to_the_queue_of_that_name(router: Router) -> None:
    assert queues(router, "", "jobs", "logs", "nothing") == ["jobs", "logs"]


@pytest.mark.parametrize(
    ("kind", "found"), [("direct", ["jobs"]), ("fanout", ["jobs", "logs", "rest"]), ("topic", ["jobs", "logs"])]
)
def test_each_type_matches_in_its_way(router: Router, kind: str, found: list[str]) -> None:
    exchange(router, "e", kind)
    bind(router, "e", "jobs", "a.b")
    bind(router, "e", "logs", "a.*")
    bind(router, "e", "rest", "b.#")

    assert queues(router, "e", "a.b") == found


def test_a_headers_exchange_looks_at_the_headers_and_at_no_key(router: Router) -> None:
    exchange(router, "e", "headers")
    bind(router, "e", "jobs", "a", kind="image")
    bind(router, "e", "logs", "b")

    assert queues(router, "e", "x", headers={"kind": "image"}) == ["jobs", "logs"]
    assert queues(router, "e", "x", headers={"kind": "text"}) == ["logs"]


def test_a_queue_gets_one_copy_whatever_matches(router: Router) -> None:
    exchange(router, "e", "topic")
    for key in ("#", "a.*", "a.b"):
        bind(router, "e", "jobs", key)

    assert queues(router, "e", "a.b", "a.c") == ["jobs"]


def test_a_binding_that_goes_leaves_another_to_the_same_queue(router: Router) -> None:
    for kind in ("direct", "fanout", "topic", "headers"):
        exchange(router, kind, kind)
        bind(router, kind, "jobs", "a", n=1)
        bind(router, kind, "jobs", "a", n=2)
        router.unbind(binding(kind, "jobs", "a", n=1))

        assert queues(router, kind, "a", headers={"n": 2}) == ["jobs"]
        router.unbind(binding(kind, "jobs", "a", n=2))
        assert queues(router, kind, "a", headers={"n": 2}) == []


def test_exchanges_pass_on_and_a_cycle_ends(router: Router) -> None:
    for name in ("a", "b"):
        exchange(router, name, "topic")
    bind(router, "a", ">b", "#")
    bind(router, "b", ">a", "#")
    bind(router, "b", "logs", "k")

    assert queues(router, "a", "k") == ["logs"]


def test_each_exchange_matches_the_message_anew(router: Router) -> None:
    exchange(router, "a", "fanout")
    exchange(router, "b", "direct")
    bind(router, "a", ">b", "whatever")
    bind(router, "b", "jobs", "k")

    assert queues(router, "a", "k") == ["jobs"]
    assert queues(router, "a", "other") == []


def test_what_matches_nothing_goes_to_the_alternate_exchange(router: Router) -> None:
    exchange(router, "a", alternate_exchange="rest")
    exchange(router, "rest", "fanout")
    bind(router, "a", "jobs", "k")
    bind(router, "rest", "rest")

    assert queues(router, "a", "k") == ["jobs"]
    assert queues(router, "a", "other") == ["rest"]


def test_a_key_of_several_that_matches_is_enough_to_need_no_alternate(router: Router) -> None:
    exchange(router, "a", alternate_exchange="rest")
    exchange(router, "rest", "fanout")
    bind(router, "a", "jobs", "k")
    bind(router, "rest", "rest")

    assert queues(router, "a", "k", "other") == ["jobs"]


def test_a_chain_of_alternates_stops_on_a_loop(router: Router) -> None:
    exchange(router, "a", alternate_exchange="b")
    exchange(router, "b", alternate_exchange="a")

    assert not router.route("a", ("k",))


def test_an_alternate_that_is_not_there_counts_once_it_is(router: Router) -> None:
    exchange(router, "a", alternate_exchange="late")
    assert not router.route("a", ("k",))
    exchange(router, "late", "fanout")
    bind(router, "late", "jobs")

    assert queues(router, "a", "k") == ["jobs"]


def test_the_default_exchange_may_be_the_alternate(router: Router) -> None:
    exchange(router, "a", alternate_exchange="")
    assert queues(router, "a", "new") == []
    router.add_queue("new")
    assert queues(router, "a", "new") == ["new"]
    router.remove_queue("new")

    assert queues(router, "a", "new") == []


def test_what_leads_only_through_an_exchange_that_delays_is_told_apart(router: Router) -> None:
    exchange(router, "a", "fanout")
    exchange(router, "later", "x-delayed-message", delayed_type="topic")
    bind(router, "a", ">later")
    bind(router, "a", "logs")
    for name in ("jobs", "logs"):
        bind(router, "later", name, "k.*")

    assert router.route("a", ("k.1",)) == Route(("logs",), ("jobs",))
    assert router.route("later", ("k.1",)) == Route((), ("jobs", "logs"))
    assert not router.route("later", ("other",))


def test_a_missing_exchange_is_not_found(router: Router) -> None:
    with pytest.raises(NotFound):
        router.route("nowhere", ("k",))
    exchange(router, "gone")
    router.remove_exchange("gone")
    with pytest.raises(NotFound):
        router.route("gone", ("k",))


def test_what_is_remembered_follows_every_change_behind_it(router: Router) -> None:
    for name in ("a", "b", "c"):
        exchange(router, name, "fanout")
    assert queues(router, "a", "k") == []
    bind(router, "a", ">b")
    assert queues(router, "a", "k") == []
    bind(router, "b", ">c")
    bind(router, "c", "jobs")
    assert queues(router, "a", "k") == ["jobs"]
    router.unbind(binding("b", ">c"))

    assert queues(router, "a", "k") == []


def test_what_is_remembered_is_not_dropped_by_a_change_elsewhere(router: Router) -> None:
    for name in ("a", "b"):
        exchange(router, name)
    bind(router, "a", "jobs", "k")
    route = router.route("a", ("k",))
    bind(router, "b", "logs", "k")
    router.add_queue("reply")

    assert router.route("a", ("k",)) is route


def test_nothing_is_left_of_what_was_taken_back(router: Router) -> None:
    for kind in ("direct", "fanout", "topic", "headers"):
        exchange(router, kind, kind, alternate_exchange="topic")
        for number in range(3):
            bind(router, kind, "jobs", f"k.{number}", n=number)
            bind(router, kind, ">topic", f"k.{number}", n=number)
        router.route(kind, ("k.1",))
    for one in list(router.bindings()):
        router.unbind(one)
    assert router.upstream("topic") == {"topic", "direct", "fanout", "headers"}
    for kind in ("direct", "fanout", "topic", "headers"):
        router.remove_exchange(kind)

    left = (router._nodes, router._leading_to, router._fed_by, router._alternate_of)
    assert [len(one) for one in left] == [0, 0, 0, 0]


def test_what_is_remembered_has_an_end(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmq.routing.router.REMEMBERED_MAX", 5)
    for name in ("a", "b"):
        exchange(router, name, "topic")
        bind(router, name, "jobs", "k.#")
        for number in range(8):
            assert queues(router, name, f"k.{number}") == ["jobs"]
            assert queues(router, name, *(f"k.{part}" for part in range(9 + number))) == ["jobs"]

    assert sum(len(router.node(name).remembered) for name in ("a", "b")) <= 5


def test_headers_are_read_where_an_exchange_on_the_way_compares_or_delays(router: Router) -> None:
    exchange(router, "plain", "topic")
    exchange(router, "b", "headers")
    exchange(router, "c", "x-delayed-message", delayed_type="direct")
    assert [router.reads_headers(name) for name in ("", "plain", "b", "c")] == [False, False, True, True]
    bind(router, "plain", ">b", "k")

    assert router.reads_headers("plain")


def test_upstream_follows_bindings_and_alternates(router: Router) -> None:
    exchange(router, "a", alternate_exchange="b")
    exchange(router, "b")
    exchange(router, "c")
    bind(router, "b", ">c")

    assert router.upstream("c") == {"a", "b", "c"}
    assert router.downstream("a") == {"a", "b", "c"}
    assert router.upstream("") == {""}
