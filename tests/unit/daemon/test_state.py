"""What an instance remembers over the death of its processes."""

import collections
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.errors import ConfigError, InternalError
from shmq.routing.bindings import Binding
from shmq_daemon.events import (
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


@pytest.mark.parametrize("content", [b"scribble" * 100, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_damaged_state_is_refused_and_left_and_its_instance_known_all_the_same(
    state: State, path: Path, content: bytes
) -> None:
    instance = state.instance
    state.close()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"can't be read.*shmqd --discard"):
        State(path, "boot-1")

    assert path.read_bytes() == content
    assert instance_of(path) == instance
    path.with_name("instance").unlink()
    with pytest.raises(ConfigError, match="can't be read"):
        instance_of(path)


def test_an_emptied_state_is_refused_as_a_damaged_one_is(state: State, path: Path) -> None:
    state.close()
    path.write_bytes(b"")

    with pytest.raises(ConfigError, match="it is empty, and was not"):
        State(path, "boot-1")


def test_a_state_that_was_never_finished_begins_anew(state: State, path: Path) -> None:
    state.close()
    path.write_bytes(b"")
    path.with_name("instance").unlink()
    fresh = State(path, "boot-1")

    assert fresh.fresh == "there was none"
    fresh.close()


def test_an_event_that_cannot_be_read_is_a_damaged_state(state: State, path: Path) -> None:
    state.record(ExchangeDeclared(EXCHANGE))
    state.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE events SET event = x'c1'")
    with pytest.raises(ConfigError, match="can't be read"):
        reopened(path)


@pytest.mark.parametrize("content", [b"", None])
def test_a_state_that_was_only_begun_is_begun_anew(path: Path, content: bytes | None) -> None:
    if content is None:
        sqlite3.connect(path).executescript("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)").close()
    else:
        path.write_bytes(content)

    assert reopened(path) == []
    assert instance_of(path)


def test_a_write_that_a_death_cut_off_is_taken_back_and_all_else_is_there(state: State, path: Path) -> None:
    for event in MADE:
        state.record(event)
    state.close()
    script = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size=1')\n"
        "db.execute('BEGIN')\n"
        "for n in range(5000):\n"
        "    db.execute('INSERT INTO meta VALUES (?, ?)', (str(n), 'x' * 100))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.with_name("state.db-journal").exists()

    assert instance_of(path)
    assert reopened(path) == MADE


def test_a_full_disk_is_an_error_of_one_change_and_nothing_is_changed(state: State, path: Path) -> None:
    for event in MADE:
        state.record(event)
    state._db.execute("PRAGMA max_page_count=1")
    many = [Bound(Binding(source="images", destination=f"{number}", routing_key="k" * 250)) for number in range(1000)]
    with pytest.raises(InternalError, match=r"state.db can't be written: database or disk is full"):
        collections.deque(map(state.record, many), maxlen=0)
    known = list(state.events())
    state.close()

    assert reopened(path) == known
    assert known[:3] == MADE
