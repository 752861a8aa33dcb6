"""shmq_clients.present: one descriptor is kept, let go of once, and closed in a forked child."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq import presence
from shmq_clients.present import Present

POSITION = presence.position_of(7)


class File:
    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path
        self._ours = os.open(path, os.O_RDONLY)

    def give(self, position: int = POSITION) -> int:
        """What a broker passes."""
        fd = os.open(self._path, os.O_RDONLY)
        presence.enter(fd, position)
        return fd

    def state(self, position: int = POSITION) -> tuple[bool, bool]:
        return presence.is_there(self._ours, position), presence.is_clean(self._ours, position)

    def close(self) -> None:
        os.close(self._ours)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path / "presence")
    yield file
    file.close()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_it_is_kept_until_the_end(file: File) -> None:
    present, fd = Present(), file.give()
    present.enter(fd, POSITION)
    assert file.state() == (True, False)
    present.leave(clean=True)
    present.leave(clean=True)

    assert file.state() == (False, True)
    assert not is_open(fd)


def test_what_is_half_done_is_left_to_the_end_of_the_process(file: File) -> None:
    present, fd = Present(), file.give()
    present.enter(fd, POSITION)
    present.leave(clean=False)

    assert file.state() == (False, False)
    os.close(fd)


def test_a_new_session_has_its_own(file: File) -> None:
    present, other = Present(), presence.position_of(8)
    assert present.position == 0
    present.enter(file.give(), POSITION)
    assert present.position == POSITION
    present.enter(file.give(other), other)

    assert (file.state(), file.state(other)) == ((False, True), (True, False))
    present.leave(clean=True)
    assert present.position == 0


def test_what_comes_behind_the_end_is_closed(file: File) -> None:
    present, fd = Present(), file.give()
    present.leave(clean=False)
    present.enter(fd, POSITION)

    assert not is_open(fd)
    assert file.state() == (False, True)


def test_without_one_all_is_well() -> None:
    present = Present()
    present.leave(clean=True)
    present.forked()

    assert present.position == 0


@pytest.mark.parametrize("position", [(1 << 63) - 1, 1 << 62])
def test_a_position_that_can_not_be_is_no_error(file: File, position: int) -> None:
    present, fd = Present(), file.give()
    present.enter(fd, position)
    present.leave(clean=True)

    assert not is_open(fd)


def test_a_forked_child_closes_its_copy_and_the_parent_is_still_there(file: File) -> None:
    present, fd = Present(), file.give()
    present.enter(fd, POSITION)
    pid = os.fork()
    if pid == 0:
        present.forked()
        os._exit(1 if is_open(fd) else 0)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert file.state() == (True, False)
    present.leave(clean=True)
