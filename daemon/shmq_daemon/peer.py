"""Who is at the other end of a socket, and how we learn of its death.

Owns: SO_PEERCRED, SO_PEERGROUPS, SO_PEERPIDFD, start times, pidfds. Does not own: what a peer may do.
Invariants: a pid alone identifies nobody; a pidfd does, or a pid with its start time. A peer whose pid reads 0
(another pid namespace) and has no pidfd is known only by its socket.
"""

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

SO_PEERGROUPS: Final = 59  # socket(7), Linux 4.13; likewise
GROUPS_BYTES: Final = 1024  # the most that getsockopt of the standard library takes: 256 groups
GROUPS_BYTES_MAX: Final = 4 * 65_536  # NGROUPS_MAX, limits.h
SO_PEERPIDFD: Final = 77  # socket(7), Linux 6.5; the standard library does not name it yet
UCRED: Final = struct.Struct("iII")
FLAGS_FIELD: Final = 9 - 3  # of proc_pid_stat(5), counted after the command in brackets
START_TIME_FIELD: Final = 22 - 3  # likewise
PF_EXITING: Final = 0x4  # linux/sched.h: it has begun to end, and its descriptors may be closed already


class Peer(NamedTuple):
    """A client's process. `pidfd` is -1 where the kernel gives none. `groups`: the supplementary ones."""

    pid: int
    uid: int
    gid: int
    start_time: int
    pidfd: int
    groups: tuple[int, ...] = ()


_libc = ctypes.CDLL(None, use_errno=True)


def identify(connection: socket.socket) -> Peer:
    """Ask the kernel who connected, as it was at that moment. Raises OSError."""
    pid, uid, gid = peer_of(connection)
    groups = _peer_groups(connection)
    pidfd = _peer_pidfd(connection, pid)
    return Peer(pid, uid, gid, start_time(pid), pidfd, groups)


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of who connected, or of who listens where we did; zeros while there is nobody."""
    pid, uid, gid = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return pid, uid, gid


def _peer_groups(connection: socket.socket) -> tuple[int, ...]:
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        found = _many_peer_groups(connection)
    return tuple(memoryview(found).cast("I"))


def _many_peer_groups(connection: socket.socket) -> bytes:
    found = ctypes.create_string_buffer(GROUPS_BYTES_MAX)
    size = ctypes.c_uint(GROUPS_BYTES_MAX)
    answer = _libc.getsockopt(connection.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, found, ctypes.byref(size))
    if answer != 0:
        raise OSError(ctypes.get_errno(), "getsockopt(SO_PEERGROUPS)")
    return found.raw[: size.value]


def _peer_pidfd(connection: socket.socket, pid: int) -> int:
    with contextlib.suppress(OSError):
        return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4), "little")
    with contextlib.suppress(OSError):
        return os.pidfd_open(pid) if pid > 0 else -1
    return -1


def reopen(pid: int, started: int) -> int:
    """Return a pidfd of the process that had this pid and start time, -1 when it is gone."""
    if pid <= 0:
        return -1
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    if start_time(pid) == started and not is_dead(pidfd):
        return pidfd
    os.close(pidfd)
    return -1


def is_dead(pidfd: int) -> bool:
    """Whether the process behind a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of a process, 0 when it cannot be read."""
    return _stat(pid, START_TIME_FIELD)


def is_ending(pid: int, pidfd: int) -> bool:
    """Whether a process has ended or begun to, when its descriptors are closed and its pidfd does not say so yet. Of
    one that can't be seen (another pid namespace), whether it has ended.
    """
    return bool(_stat(pid, FLAGS_FIELD) & PF_EXITING) or is_dead(pidfd)


def _stat(pid: int, field: int) -> int:
    """A number of proc_pid_stat(5), 0 when it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return int(fields[field]) if len(fields) > field else 0
