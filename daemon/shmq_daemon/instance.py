"""What makes an instance one: the lock on its data directory and the sockets it answers on.

Owns: the lock file's bytes, binding and taking over sockets. Does not own: accepting, the state behind the lock.
Invariants: a POSIX record lock belongs to a process, is not inherited by fork and ends with the process, so it never
outlives the master. Each process of the daemon locks its own byte: a new one waits until the old one is truly gone, and
a new master until both children of a killed one are. A socket file is replaced only if it is ours and nobody answers on
it, and by one process at a time.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final

from shmq.errors import AlreadyRunning, ConfigError
from shmq_daemon.config import group_id
from shmq_daemon.peer import is_dead, peer_of
from shmq_daemon.places import make_socket_directory
from shmq_daemon.principals import GROUP, group_id_or_none

BACKLOG: Final = 4096
PRIVATE: Final = 0o600  # of a socket
SHARED: Final = 0o660  # with a group
FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock, fcntl(2), where a long has 64 bits
LINK_SOCKET: Final = "supervisor.sock"  # in the data directory, which is the daemon's working directory
ALONE_SECONDS_MAX: Final = 2.0
ALONE_PAUSE_SECONDS: Final = 0.005
ORPHANS_SECONDS_MAX: Final = 5.0  # for children of a killed master, which end within 100 ms on a host that is not busy


class Byte(IntEnum):
    """Who locks which byte of the lock file."""

    MASTER = 0
    BROKER = 1
    SUPERVISOR = 2


def take_lock(path: Path) -> int:
    """Lock the data directory for this process. Returns the descriptor that must stay open. Raises AlreadyRunning."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, Byte.MASTER)
    except OSError as error:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise AlreadyRunning(path=str(path.parent), pid=int(holder) if holder.isdigit() else 0) from error
    try:
        for byte in (Byte.BROKER, Byte.SUPERVISOR):
            _wait_for_orphan(fd, byte, path)
    except AlreadyRunning:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _wait_for_orphan(fd: int, byte: Byte, path: Path) -> None:
    """A child of a killed master serves no more, but may not have ended yet. Raises AlreadyRunning."""
    deadline = time.monotonic() + ORPHANS_SECONDS_MAX
    while (pid := _holder(fd, byte)) is not None:
        if time.monotonic() > deadline:
            raise AlreadyRunning(path=str(path.parent), pid=pid)
        time.sleep(ALONE_PAUSE_SECONDS)  # nothing can be waited for that tells of it and has a deadline


def _holder(fd: int, byte: Byte) -> int | None:
    """Who has this byte locked; None: nobody."""
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind, _, _, _, pid = FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


def wait_for_predecessor(lock_fd: int, byte: Byte) -> None:
    """In a child: lock this role's byte, waiting for the one before to end. Its master knows that it has, or is about
    to.
    """
    fcntl.lockf(lock_fd, fcntl.LOCK_EX, 1, byte)


def bind_listener(path: Path, group: int | str | None = None, mode: int | None = None) -> socket.socket:
    """Listen for clients on `path`, with a group and a mode that say who may connect. Raises AlreadyRunning,
    ConfigError.
    """
    gid = _default_group() if group is None else _known_group(group)
    make_socket_directory(path)
    with _alone_in(path.parent):
        _remove_stale(path)
        listener = _bind(str(path), 0o177)
    try:
        _open_to(path, gid, mode)
    except OSError as error:
        listener.close()
        path.unlink()
        raise ConfigError(f"socket {path} can't be given to group {gid}: {error.strerror}; see socket_group") from error
    return listener


def _open_to(path: Path, gid: int | None, mode: int | None) -> None:
    if gid is not None:
        os.chown(path, -1, gid)
    path.chmod(mode or (PRIVATE if gid is None else SHARED))


def bind_link() -> socket.socket:
    """Listen for the broker on the supervisor's socket, in the working directory. Only under the lock."""
    Path(LINK_SOCKET).unlink(missing_ok=True)
    return _bind(LINK_SOCKET, 0o177, socket.SOCK_SEQPACKET)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other shmqd, with other data, removes or binds a socket there meanwhile: it might be ours, or not listen yet.

    Where the folder can't be read there is no lock, nor when somebody holds it too long: strangers may do so, too.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + ALONE_SECONDS_MAX
        while not _locked(fd) and time.monotonic() < deadline:
            time.sleep(ALONE_PAUSE_SECONDS)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _bind(path: str, umask: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(umask)
    try:
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise ConfigError(f"socket {path}: {error.strerror}; choose another with --socket") from error
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def _default_group() -> int | None:
    """The group shmq for the system's daemon. One of somebody who is just a member of it is nobody else's affair."""
    gid = group_id_or_none(GROUP)
    return gid if os.geteuid() == 0 or gid == os.getegid() else None


def _known_group(group: int | str) -> int:
    try:
        return group_id(group)
    except ValueError as error:
        raise ConfigError(key="socket_group", hint=str(error)) from error


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"{path} exists and is no socket; choose another path with --socket")
    deadline = time.monotonic() + ORPHANS_SECONDS_MAX
    while (listens := who_listens(path)) is not None:
        if _lives(listens) or time.monotonic() > deadline:
            raise AlreadyRunning(path=str(path), pid=listens)
        time.sleep(ALONE_PAUSE_SECONDS)  # as above: a dying child of a killed master has it open still
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"stale socket {path} belongs to uid {status.st_uid}; remove it or choose another with --socket"
        )
    path.unlink()


def _lives(pid: int) -> bool:
    """Also one that can't be seen, as in another pid namespace."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        return not is_dead(pidfd)
    finally:
        os.close(pidfd)


def who_listens(path: Path) -> int | None:
    """Return the pid of the process that listens on this socket, 0 if it can't be told; None: nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(str(path))
        return None if code in (errno.ECONNREFUSED, errno.ENOENT) else peer_of(probe)[0]
