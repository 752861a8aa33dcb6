"""Rows and bitmaps of the registry survive who wrote them."""

import os
from collections.abc import Iterator

import pytest

from shmq.errors import ConfigError
from shmq_daemon import segments
from shmq_daemon.peer import Peer
from shmq_daemon.registry import BROKERS, BYTES, CLIENTS_FIRST, HEADER, MAGIC, SUPERVISORS, Registry, brokers_before

PEER = Peer(4711, 1000, 1000, 12345, -1)
SECRET = bytes(range(16))


@pytest.fixture
def registry(name: str) -> Iterator[Registry]:
    opened = Registry.open(name)
    yield opened
    opened.close()


def test_a_row_is_there_for_the_next_process(registry: Registry, name: str) -> None:
    row = registry.add(CLIENTS_FIRST, PEER, 99, SECRET)
    again = Registry.open(name)
    found = list(again.rows())
    again.close()

    assert found == [row]
    assert (row.pid, row.start_time, row.connection_id, row.secret) == (4711, 12345, 99, SECRET)


def test_that_a_client_has_a_presence_is_there_for_the_next_process(registry: Registry, name: str) -> None:
    row = registry.enter(registry.add(CLIENTS_FIRST, PEER, 99, SECRET), 1 << 40)
    again = Registry.open(name)
    found = list(again.rows())
    again.close()

    assert found == [row]
    assert (row.presence, row.secret) == (1 << 40, SECRET)


def test_indices_are_given_once_and_again_only_when_freed(registry: Registry) -> None:
    first = registry.free_index()
    assert first is not None
    registry.add(first, PEER, 1, SECRET)
    assert registry.free_index() != first
    registry.free(first)

    assert list(registry.rows()) == []


def test_a_goodbye_is_there_for_the_next_process(registry: Registry, name: str) -> None:
    registry.add(CLIENTS_FIRST, PEER, 99, SECRET)
    registry.leave(CLIENTS_FIRST)
    again = Registry.open(name)
    (row,) = again.rows()
    index = again.free_index()
    again.close()

    assert row.left
    assert index != CLIENTS_FIRST


def test_incarnations_grow(registry: Registry) -> None:
    first = registry.add(40, PEER, 1, SECRET)
    registry.free(40)

    assert registry.add(40, PEER, 2, SECRET).incarnation > first.incarnation


def test_an_index_of_a_broker_to_come_is_not_taken_for_one_of_before(registry: Registry) -> None:
    given = [registry.next_broker_index() for _ in range(3 * len(BROKERS))]

    for number in range(8, len(given) - 7):
        before = brokers_before(given[number])
        assert before == given[number - 1 : number - 8 : -1]
        assert not set(before) & set(given[number : number + 8])


def test_every_start_has_another_index_and_epoch(registry: Registry) -> None:
    brokers = [registry.next_broker_index() for _ in BROKERS]

    assert sorted(brokers) == list(BROKERS)
    assert registry.next_supervisor_index() in SUPERVISORS
    assert registry.next_epoch() < registry.next_epoch()


def test_marks_are_per_queue_and_client(registry: Registry) -> None:
    registry.open_bitmap(0)
    registry.open_bitmap(5)
    registry.mark(5, 1000)

    assert registry.had(5, 1000)
    assert not registry.had(5, 1001)
    assert not registry.had(0, 1000)
    registry.unmark(5, 1000)
    assert not registry.had(5, 1000)


def test_a_new_queue_begins_unmarked(registry: Registry) -> None:
    registry.open_bitmap(3)
    registry.mark(3, 50)
    registry.open_bitmap(3)

    assert not registry.had(3, 50)


def test_the_supervisor_sees_what_the_broker_marks(registry: Registry) -> None:
    registry.open_bitmap(1)
    seen = Registry(os.dup(registry.fd), read_only=True)
    registry.mark(1, 77)

    assert seen.had(1, 77)
    seen.close()


@pytest.mark.parametrize(
    ("header", "size", "what"),
    [
        (HEADER.pack(MAGIC, 7, 0, 0, 0, 0), BYTES, "layout 7, ours is 1"),
        (b"\x01" * HEADER.size, BYTES, "no registry"),
        (b"", BYTES // 2, "no registry"),
    ],
)
def test_a_foreign_layout_is_refused_by_name_and_left_untouched(name: str, header: bytes, size: int, what: str) -> None:
    fd = segments.create(name, size)
    os.pwrite(fd, header, 0)
    before = os.fstat(fd)
    with pytest.raises(ConfigError) as refused:
        Registry.open(name)

    assert name in str(refused.value)
    assert what in str(refused.value)
    after = os.fstat(fd)
    assert (after.st_size, after.st_blocks, after.st_mtime_ns) == (before.st_size, before.st_blocks, before.st_mtime_ns)
    os.close(fd)


def test_one_whose_maker_died_before_it_had_a_size_is_finished(name: str) -> None:
    os.close(segments.create(name, 0))
    registry = Registry.open(name)

    assert list(registry.rows()) == []
    registry.close()
