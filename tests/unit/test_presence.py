"""shmq.presence: locks that last as long as somebody has the descriptor, and no longer than their owner wishes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmq import presence

HERE, NEXT = presence.position_of(7), presence.position_of(8)
Open = Callable[[], int]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Open the file anew, read-only."""
    path, opened = tmp_path / "presence", list[int]()
    path.touch()

    def one() -> int:
        opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return opened[-1]

    yield one
    for fd in opened:
        os.close(fd)


def state(fd: int, position: int = HERE) -> tuple[bool, bool]:
    return presence.is_there(fd, position), presence.is_clean(fd, position)


def test_who_has_entered_is_there_until_it_leaves(opened: Open) -> None:
    ours, theirs = opened(), opened()
    assert state(ours) == (False, True)
    presence.enter(theirs, HERE)
    assert state(ours) == (True, False)
    presence.leave(theirs, HERE, clean=True)

    assert state(ours) == (False, True)


def test_who_leaves_something_half_done_is_gone_and_not_clean(opened: Open) -> None:
    ours, theirs = opened(), opened()
    presence.enter(theirs, HERE)
    presence.leave(theirs, HERE, clean=False)

    assert state(ours) == (False, False)


def test_neighbours_do_not_meet(opened: Open) -> None:
    ours, theirs, others = opened(), opened(), opened()
    presence.enter(theirs, HERE)
    presence.enter(others, NEXT)
    presence.leave(others, NEXT, clean=False)

    assert state(ours, HERE) == (True, False)
    assert state(ours, NEXT) == (False, False)


def test_a_copy_of_the_descriptor_keeps_it_and_does_not_outlast_a_goodbye(opened: Open) -> None:
    ours, theirs = opened(), opened()
    presence.enter(theirs, HERE)
    first, second = os.dup(theirs), os.dup(theirs)
    os.close(first)
    assert presence.is_there(ours, HERE)
    presence.leave(theirs, HERE, clean=True)

    assert not presence.is_there(ours, HERE)
    os.close(second)


def test_others_can_not_make_one_leave(opened: Open) -> None:
    ours, theirs, strangers = opened(), opened(), opened()
    presence.enter(theirs, HERE)
    presence.enter(strangers, HERE)
    presence.leave(strangers, HERE, clean=True)

    assert state(ours) == (True, False)


def test_it_ends_with_its_process(opened: Open) -> None:
    ours, theirs = opened(), opened()
    pid = os.fork()
    if pid == 0:
        presence.enter(os.open(f"/proc/self/fd/{theirs}", os.O_RDONLY), HERE)
        os._exit(0 if presence.is_there(ours, HERE) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert state(ours) == (False, True)
