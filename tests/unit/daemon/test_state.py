"""What an instance remembers over the death of its processes."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.errors import ConfigError
from shmq_daemon.events import (
    Binding,
    Bound,
    Event,
    Exchange,
    ExchangeDeclared,
    ExchangeDeleted,
    Queue,
    QueueDeclared,
    QueueDeleted,
    Unbound,
)
from shmq_daemon.state import SCHEMA, State, instance_of

QUEUE = Queue(
    queue_id=7,
    definition=QueueDefinition("jobs", durable=True, max_priority=9, other={"x-team": "vision"}),
    geometry=(10, 64, 64, 4, 0),
    segment="/shmq-a-b",
    number=3,
)
EXCHANGE = Exchange(definition=ExchangeDefinition("images"), word=1)
BINDING = Binding(source="images", destination="jobs", routing_key="a")
MADE: list[Event] = [ExchangeDeclared(EXCHANGE), QueueDeclared(QUEUE), Bound(BINDING)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def state(path: Path) -> Iterator[State]:
    opened = State(path, "boot-1")
    yield opened
    opened.close()


def reopened(path: Path, boot: str = "boot-1") -> list[Event]:
    again = State(path, boot)
    found = list(again.events())
    again.close()
    return found


def test_what_was_made_is_remembered_in_its_order(state: State, path: Path) -> None:
    for event in MADE:
        state.record(event)
    state.close()

    assert reopened(path) == MADE


def test_what_ended_is_forgotten(state: State, path: Path) -> None:
    for event in [*MADE, Unbound(BINDING), QueueDeleted(7), ExchangeDeleted("images")]:
        state.record(event)
    state.close()

    assert reopened(path) == []


def test_the_instance_keeps_its_id(state: State, path: Path) -> None:
    instance = state.instance
    state.close()

    assert len(instance) == 16
    assert instance_of(path) == instance


def test_a_reboot_begins_anew_and_sets_the_old_state_aside(state: State, path: Path) -> None:
    for event in MADE:
        state.record(event)
    state.close()

    assert reopened(path, "boot-2") == []
    assert path.with_name("state.db.old").exists()


def test_a_state_of_a_newer_daemon_is_refused_and_left(state: State, path: Path) -> None:
    state.close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={SCHEMA + 1}")
    db.close()
    with pytest.raises(ConfigError, match="newer"):
        State(path, "boot-1")

    assert path.exists()


def test_no_file_has_no_instance(path: Path) -> None:
    assert instance_of(path) is None


def test_what_is_no_database_has_no_instance(path: Path) -> None:
    path.write_bytes(b"scribble" * 100)

    assert instance_of(path) is None
