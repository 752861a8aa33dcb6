"""Shared memory objects of an instance by name: made, opened, removed.

Owns: names, modes, sizes. Does not own: what is inside (the core lays out queues, registry.py and words.py theirs).
Invariants: a name carries the instance's prefix and 128 random bits and was recorded before it is made; an object is
0600 and ours whatever the umask; nothing is looked up that our state does not name, except to remove what has our
prefix.
"""

import contextlib
import errno
import os
import secrets
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import posix_ipc

from shmq.core._core import LAYOUT
from shmq.errors import LayoutMismatch

SHM: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory, shm_overview(7)
MODE: Final = 0o600
LAYOUT_AT: Final = struct.Struct("<8xQ")  # in every layout: the magic, then the layout's number


class ForeignSegment(OSError):  # noqa: N818 - says what it is
    """An object under our name that is not ours: other owner, other mode."""


def prefix(instance: str) -> str:
    """What the names of an instance begin with."""
    return f"/shmq-{instance}-"


def new_name(instance: str) -> str:
    """A name that nobody guesses."""
    return prefix(instance) + secrets.token_hex(16)


def create(name: str, size: int) -> int:
    """Make a zeroed, sparse object. Returns its descriptor. Raises OSError, ForeignSegment."""
    try:
        shared = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=MODE)
    except posix_ipc.Error as error:  # a name that is there already, and what else is no OSError yet
        raise OSError(errno.EEXIST, f"{error}", name) from error
    fd: int = shared.fd
    try:
        os.set_inheritable(fd, False)
        os.fchmod(fd, MODE)
        os.ftruncate(fd, size)
        _verify(fd, name)
    except BaseException:
        os.close(fd)
        unlink(name)
        raise
    return fd


def open_existing(name: str, *, read_only: bool = False) -> int:
    """Return a descriptor of an object that our state names. Raises FileNotFoundError, ForeignSegment."""
    try:
        shared = posix_ipc.SharedMemory(name, 0, read_only=read_only)
    except posix_ipc.ExistentialError as error:
        raise FileNotFoundError(errno.ENOENT, "no such shared memory object", name) from error
    except posix_ipc.PermissionsError as error:
        raise ForeignSegment(f"{name}: {error}, left untouched") from error
    fd: int = shared.fd
    os.set_inheritable(fd, False)
    try:
        _verify(fd, name)
    except ForeignSegment:
        os.close(fd)
        raise
    return fd


def _verify(fd: int, name: str) -> None:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != MODE:
        raise ForeignSegment(f"{name}: uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}, left untouched")


def unlink(name: str) -> None:
    """Remove a name; one that is gone is fine."""
    with contextlib.suppress(posix_ipc.ExistentialError):
        posix_ipc.unlink_shared_memory(name)


def unlink_all_but(instance: str, kept: Iterable[str]) -> list[str]:
    """Remove every object with the instance's prefix that is not in `kept`. Returns the names removed."""
    known = {name.removeprefix("/") for name in kept}
    start = prefix(instance).removeprefix("/")
    left_over = [entry.name for entry in os.scandir(SHM) if entry.name.startswith(start) and entry.name not in known]
    for name in left_over:
        unlink("/" + name)
    return left_over


def explain(name: str, error: Exception) -> str:
    """Say in a person's words why a queue's segment can't be used."""
    if not isinstance(error, LayoutMismatch):
        return str(error)
    try:
        fd = open_existing(name, read_only=True)
    except OSError:
        return str(error)
    header = os.pread(fd, LAYOUT_AT.size, 0)
    os.close(fd)
    (layout,) = LAYOUT_AT.unpack(header.ljust(LAYOUT_AT.size, b"\0"))
    if layout == LAYOUT:
        return "its segment is not the one that was made for it; it is left untouched"
    return (
        f"its segment has layout {layout}, this shmqd reads {LAYOUT}; it is left untouched, for the shmqd that wrote it"
    )
