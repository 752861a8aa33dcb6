"""The topology made real: a death between any two steps leaves what was before a request, or what is behind it."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.errors import InternalError, NotAllowed
from shmq.routing.bindings import Binding, encode_arguments
from shmq_daemon import segments
from shmq_daemon.catalog import Catalog
from shmq_daemon.events import Queue
from shmq_daemon.loop import Loop
from shmq_daemon.opened import Bells
from shmq_daemon.policy import Sizes
from shmq_daemon.state import State

BINDING = Binding(source="images", destination="jobs", routing_key="key")
Start = Callable[[], Catalog]


class Died(BaseException):
    """The broker got no further."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a broker's catalog; what an earlier one had open is left to the garbage, as after a death."""
    state = State(tmp_path / "state.db", "boot")
    instance = state.instance
    state.close()

    def adopted() -> Catalog:
        sizes = Sizes(capacity=64, capacity_bytes=1 << 20, inline_bytes=320)
        catalog = Catalog(State(tmp_path / "state.db", "boot"), sizes, Loop(), structlog.get_logger(), 1000)
        catalog.adopt({}, None)
        return catalog

    yield adopted
    segments.unlink_all_but(instance, ())


def die(*_arguments: Any) -> None:
    raise Died


def declare(catalog: Catalog, name: str, **definition: Any) -> Queue:
    queue = catalog.new_queue(QueueDefinition(name, **definition), 1)
    catalog.declare_queue(queue)
    return queue


def bound(catalog: Catalog) -> Queue:
    queue = declare(catalog, "jobs")
    catalog.commit(catalog.topology.declare_exchange(ExchangeDefinition("images")))
    catalog.commit(catalog.topology.bind(BINDING, 1))
    return queue


def test_a_queue_whose_maker_died_before_it_had_its_limits_gets_them(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "_prepare", die)
        with pytest.raises(Died):
            declare(start(), "jobs", delivery_limit=0)

    core = start().opened("jobs", 1).core
    core.publish(b"poison")
    message = core.take()
    assert message is not None
    message.reject(requeue=True)
    assert core.stats()["ready"] == 0


@pytest.mark.parametrize("recorded", [True, False])
def test_a_queue_is_deleted_with_its_bindings_or_not_at_all(
    start: Start, monkeypatch: pytest.MonkeyPatch, *, recorded: bool
) -> None:
    catalog = start()
    queue = bound(catalog)
    with monkeypatch.context() as patch:
        if recorded:
            patch.setattr(catalog.topology, "apply", die)
        else:
            patch.setattr(catalog, "_mark_deleted", die)
        with pytest.raises(Died):
            catalog.delete_queue(queue)

    topology = start().topology
    assert ("jobs" in topology.queues) == (not recorded)
    assert bool(topology.router.outgoing("images")) == (not recorded)


def test_a_queue_that_finds_no_descriptors_for_its_bells_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_arguments: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    catalog = start()
    with monkeypatch.context() as patch:
        patch.setattr(os, "eventfd", none_left)
        with pytest.raises(NotAllowed, match="as many files open as it may"):
            declare(catalog, "jobs")

    assert list(catalog.state.events()) == []


def test_bells_that_can_be_made_by_half_leave_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def one(*arguments: int) -> int:
        if made:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(eventfd(*arguments))
        return made[0]

    eventfd = os.eventfd
    monkeypatch.setattr(os, "eventfd", one)
    with pytest.raises(OSError, match="Too many open files"):
        Bells.make(1)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0])


def test_no_compiled_route_outlives_a_change_behind_whose_record_the_broker_died(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = start()
    bound(catalog)
    before = catalog.words[catalog.topology.exchange("images").word]
    with monkeypatch.context() as patch:
        patch.setattr(catalog.topology, "apply", die)
        with pytest.raises(Died):
            catalog.commit(catalog.topology.unbind(BINDING, 1))

    catalog = start()
    assert not catalog.topology.router.outgoing("images")
    assert catalog.words[catalog.topology.exchange("images").word] > before


def test_a_deletion_that_cannot_be_remembered_leaves_the_queue_at_work(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    catalog = start()
    queue = bound(catalog)
    with monkeypatch.context() as patch:
        patch.setattr(catalog.state, "_record", full)
        with pytest.raises(InternalError, match="Nothing was changed"):
            catalog.delete_queue(queue)

    assert not catalog.opened("jobs", 1).core.deleted
    assert catalog.topology.router.outgoing("images")


def word(catalog: Catalog, exchange: str) -> int:
    return catalog.words[catalog.topology.exchange(exchange).word]


def test_a_change_bumps_the_words_of_all_that_feed_it_and_no_other(start: Start) -> None:
    catalog = start()
    bound(catalog)
    for definition in (ExchangeDefinition("feeds"), ExchangeDefinition("falls", alternate_exchange="images")):
        catalog.commit(catalog.topology.declare_exchange(definition))
    catalog.commit(catalog.topology.bind(Binding(source="feeds", destination="images", to_exchange=True), 1))
    names = ("images", "feeds", "falls", "amq.topic")
    before = [word(catalog, name) for name in names]
    catalog.commit(catalog.topology.unbind(BINDING, 1))

    changed = [word(catalog, name) > earlier for name, earlier in zip(names, before, strict=True)]
    assert changed == [True, True, True, False]


def test_a_queue_declared_elsewhere_leaves_all_words_as_they_are(start: Start) -> None:
    catalog = start()
    bound(catalog)
    before = [word(catalog, name) for name in catalog.topology.exchanges]
    catalog.delete_queue(declare(catalog, "reply"))

    assert [word(catalog, name) for name in catalog.topology.exchanges] == before


def test_a_queue_bumps_the_words_of_exchanges_that_end_at_queues_by_their_names(start: Start) -> None:
    catalog = start()
    catalog.commit(catalog.topology.declare_exchange(ExchangeDefinition("named", alternate_exchange="")))
    before = word(catalog, "named")
    reply = declare(catalog, "reply")
    between = word(catalog, "named")
    catalog.delete_queue(reply)

    assert before < between < word(catalog, "named")


def test_an_exchange_bumps_the_words_of_those_that_name_it_as_alternate(start: Start) -> None:
    catalog = start()
    catalog.commit(catalog.topology.declare_exchange(ExchangeDefinition("first", alternate_exchange="late")))
    before = word(catalog, "first")
    catalog.commit(catalog.topology.declare_exchange(ExchangeDefinition("late")))

    assert word(catalog, "first") > before


def test_bindings_are_there_again_with_their_arguments(start: Start) -> None:
    catalog = start()
    declare(catalog, "jobs")
    bindings = {
        Binding(source="amq.match", destination="jobs", arguments=encode_arguments({"n": n})) for n in (1, 1.0, True)
    }
    for binding in bindings:
        catalog.commit(catalog.topology.bind(binding, 1))
    gone = bindings.pop()
    catalog.commit(catalog.topology.unbind(gone, 1))

    assert start().topology.router.outgoing("amq.match") == bindings
