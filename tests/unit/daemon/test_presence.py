"""The presence file outlives who made it, is told from another in its place, and gives nobody a way to write."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq_daemon import segments
from shmq_daemon.presence import Presence
from shmq_daemon.registry import Row


@pytest.fixture
def presence(name: str) -> Iterator[Presence]:
    one = Presence.open(name)
    yield one
    one.close()


def row(incarnation: int, presence: int = 0) -> Row:
    return Row(40, incarnation, 4711, 1000, 12345, 99, bytes(16), presence)


def test_a_client_is_there_for_the_next_broker_until_it_closes_its_descriptor(presence: Presence, name: str) -> None:
    fd = presence.enter(row(7))
    again = Presence.open(name)
    assert again.number == presence.number
    assert again.is_there(row(7))
    assert not again.is_there(row(8))
    os.close(fd)

    assert not again.is_there(row(7))
    assert again.is_clean(row(7))
    again.close()


def test_each_descriptor_is_a_read_only_one_of_its_own(presence: Presence) -> None:
    first, second = presence.enter(row(7)), presence.enter(row(8))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(first, b"x")
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(first, 1)
    os.close(first)

    assert presence.is_there(row(8))
    os.close(second)


def test_the_file_is_the_daemons_alone(presence: Presence, name: str) -> None:
    status = Path(f"{segments.SHM}{name}").stat()

    assert (stat.S_IMODE(status.st_mode), status.st_size, status.st_ino) == (0o600, 0, presence.number)


def test_another_file_in_its_place_knows_nobody_of_before(presence: Presence, name: str) -> None:
    of_before = row(7, presence.number)
    assert presence.is_known(of_before)
    segments.unlink(name)
    anew = Presence.open(name)

    assert not anew.is_known(of_before)
    assert not anew.is_known(row(7))
    anew.close()
