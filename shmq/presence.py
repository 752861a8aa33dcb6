"""Presence: how a client is seen to be there while no daemon hears it, and to have left where none heard its goodbye.

    byte 2n, 2n + 1 of the instance's presence file, n being the client's incarnation; the first is its position
    2n              locked while the connection is open
    2n + 1          locked longer where something of it is half done in a segment (a goodbye that is not clean)

Owns: where these bytes are, how they are locked and looked at. Does not own: the file (the daemon's presence.py), when
a client leaves (the client's link.py), what follows from it (absent.py).
Invariants: the locks are those of an open file description, fcntl_locking(2), that the broker opens for each client,
locks, passes on and closes: they last as long as somebody has it, whatever becomes of the daemon. The client's
descriptor is read-only and so are the locks: a client can pretend that others are there, never that they are gone.
"""

import fcntl
import struct
from typing import Final

PER_CLIENT_BYTES: Final = 2
FLOCK: Final = struct.Struct("@hhqqi0q")  # struct flock: type, whence, start, length, pid
FROM_START: Final = 0  # SEEK_SET


def position_of(incarnation: int) -> int:
    """Return a client's position in the file. No incarnation comes twice, so no position does."""
    return incarnation * PER_CLIENT_BYTES


def enter(fd: int, position: int) -> None:
    """Lock both bytes for who has this descriptor. Raises OSError."""
    _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, position, PER_CLIENT_BYTES)


def leave(fd: int, position: int, *, clean: bool) -> None:
    """Let go of both bytes, or of the first alone; also for forked children that hold copies. Raises OSError."""
    _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, position, PER_CLIENT_BYTES if clean else 1)


def is_there(fd: int, position: int) -> bool:
    """Whether somebody has the first byte. `fd` is of another open file description than theirs."""
    return _ask(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, position, 1) != fcntl.F_UNLCK


def is_clean(fd: int, position: int) -> bool:
    """Whether who has left has left nothing half done."""
    return not is_there(fd, position + 1)


def _ask(fd: int, command: int, kind: int, start: int, length: int) -> int:
    """Return the type of lock that the kernel answers with."""
    answer = fcntl.fcntl(fd, command, FLOCK.pack(kind, FROM_START, start, length, 0))
    return int(FLOCK.unpack(answer)[0])
