"""Names and modes of shared memory objects."""

import os
import secrets
import struct
from collections.abc import Iterator

import pytest

from shmq.core._core import LAYOUT
from shmq.errors import LayoutMismatch
from shmq_daemon import segments
from shmq_daemon.words import Words


@pytest.fixture
def instance() -> Iterator[str]:
    instance = "test" + secrets.token_hex(6)
    yield instance
    segments.unlink_all_but(instance, ())


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_an_object_is_its_owners_alone_whatever_the_umask(instance: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        fd = segments.create(segments.new_name(instance), 4096)
    finally:
        os.umask(before)
    status = os.fstat(fd)
    os.close(fd)

    assert (status.st_mode & 0o777, status.st_size) == (0o600, 4096)


def test_what_is_there_is_not_made_again(instance: str) -> None:
    name = segments.new_name(instance)
    os.close(segments.create(name, 4096))
    with pytest.raises(OSError, match="exist"):
        segments.create(name, 4096)


def test_a_missing_object_is_not_found(instance: str) -> None:
    with pytest.raises(FileNotFoundError):
        segments.open_existing(segments.new_name(instance))


def test_an_object_that_others_may_read_is_refused_and_left(instance: str) -> None:
    name = segments.new_name(instance)
    fd = segments.create(name, 4096)
    os.fchmod(fd, 0o644)
    os.close(fd)
    with pytest.raises(segments.ForeignSegment):
        segments.open_existing(name)

    assert (segments.SHM / name.removeprefix("/")).exists()


def test_only_what_has_the_prefix_and_no_name_is_removed(instance: str) -> None:
    kept, left_over = segments.new_name(instance), segments.new_name(instance)
    other = segments.new_name(instance + "x")
    for name in (kept, left_over, other):
        os.close(segments.create(name, 4096))
    removed = segments.unlink_all_but(instance, [kept])
    segments.unlink(other)

    assert removed == [left_over.removeprefix("/")]


def test_words_grow_are_shared_and_survive(instance: str) -> None:
    name = segments.new_name(instance)
    words = Words.open(name)
    words.bump(5)
    words.bump(5)
    words.close()
    again = Words.open(name)

    assert (again[5], again[4]) == (2, 0)
    again.close()


def test_why_a_segment_cannot_be_used_is_said_by_its_layout() -> None:
    name = segments.new_name("test-" + secrets.token_hex(4))
    fd = segments.create(name, 4096)
    try:
        os.pwrite(fd, struct.pack("<QQ", 1, 7), 0)
        assert f"has layout 7, this shmqd reads {LAYOUT}" in segments.explain(name, LayoutMismatch())
        os.pwrite(fd, struct.pack("<QQ", 1, LAYOUT), 0)
        assert "is not the one that was made for it" in segments.explain(name, LayoutMismatch())
        assert segments.explain(name, OSError("out of order")) == "out of order"
    finally:
        os.close(fd)
        segments.unlink(name)
    assert segments.explain(name, LayoutMismatch("as it was")) == "as it was"
