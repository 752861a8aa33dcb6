"""One connected socket and the protocol's state on it: frames out, frames and descriptors in.

Owns: the socket, what is not yet written, the lock that keeps frames whole. Does not own: what frames mean
(session.py), when to connect again (link.py).
Invariants: the socket never blocks, waiting is done with poll(2) so that signals are honoured; a frame that was begun
is finished by the next writer if its own was interrupted; while a writer waits for room it reads, or both ends might
wait for each other for ever.
"""

import array
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType
from typing import Final

from shmq.errors import ConnectionClosed, ConnectionLost, FrameError, NotShmqd, OperationTimeout, ProtocolMismatch
from shmq.limits import PENDING_DESCRIPTORS_MAX
from shmq.wire.connection import Connection, client_connection
from shmq.wire.frames import BrokerFrame, ClientFrame

READ_BYTES: Final = 64 * 1024
READ_BYTES_MAX: Final = 1024 * 1024
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(PENDING_DESCRIPTORS_MAX * array.array("i").itemsize)
SEND_TIMEOUT: Final = 30.0  # for a broker that reads nothing
POLLIN: Final = select.POLLIN  # eventlet takes the names away from the module
POLLOUT: Final = select.POLLOUT
POLLNVAL: Final = select.POLLNVAL


class Stream:
    """A socket connected to `path`. Raises OSError from connect(2)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wire: Connection[ClientFrame, BrokerFrame] = client_connection()
        self._out = bytearray()
        self._writing = threading.RLock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # the sockets that gevent and eventlet put in place want to hear it
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""
        return self._socket.fileno()

    # -- out ----------------------------------------------------------------------------------------------------------

    def send(self, frame: ClientFrame, read: Callable[[], object]) -> None:
        """Write a frame; call `read` when the broker waits for us to take what it has for us. Raises ConnectionLost."""
        with self._writing:
            try:
                self.wire.send_into(frame, self._out)
            except ConnectionClosed as error:  # another thread has seen its end
                raise self._lost("it ended") from error
            self._flush(read)

    def _flush(self, read: Callable[[], object]) -> None:
        deadline = time.monotonic() + SEND_TIMEOUT
        while not self._write():
            self._wait_for_room(read, deadline)

    def _write(self) -> bool:
        """Write what goes without waiting; False: there is more. Raises ConnectionLost."""
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        return True

    def _wait_for_room(self, read: Callable[[], object], deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise OperationTimeout(operation="writing to shmqd", timeout=SEND_TIMEOUT)
        events = poll(self.fileno(), POLLOUT | POLLIN, remaining)
        if events & POLLIN:
            read()

    # -- in -----------------------------------------------------------------------------------------------------------

    def receive(self) -> list[BrokerFrame]:
        """Take what has come, without waiting. Raises ConnectionLost at its end, NotShmqd, FrameError.

        Descriptors belong to the last frame: `wire.take_descriptors`. Call until the list is empty.
        """
        try:
            frames = self.wire.next_events()
            return frames or self._receive_more()
        except NotShmqd as error:
            raise NotShmqd(path=str(self.path), reason=error.reason) from None
        except (FrameError, ProtocolMismatch):
            self.close()
            raise

    def _receive_more(self) -> list[BrokerFrame]:
        size = min(max(READ_BYTES, self.wire.bytes_pending), READ_BYTES_MAX)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(size, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return []
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        descriptors = _descriptors(ancillary)
        if flags & socket.MSG_CTRUNC:
            close_all(descriptors)
            raise self._lost("this process may open no more files (ulimit -n)")
        if not data:
            raise self._lost("the daemon closed it")
        self.wire.receive_data(data, descriptors)
        return self.wire.next_events()

    def _lost(self, reason: str) -> ConnectionLost:
        return ConnectionLost(path=str(self.path), reason=reason)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()
        self.wire.close()

    def forked(self) -> None:
        """In a forked child: let go of the descriptor; the connection is the parent's."""
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())


def poll(fd: int, events: int, timeout: float) -> int:
    """Wait for events on one descriptor; 0 when time is up. Signals are honoured, and so is who replaced the calls of
    `select` by those of an event loop (gevent; eventlet leaves nothing but select(2) itself).
    """
    if fd < 0:  # closed by another thread
        return POLLNVAL
    if not hasattr(select, "poll"):
        return _select(fd, events, timeout)
    poller = select.poll()
    poller.register(fd, events)
    ready = poller.poll(max(0.0, timeout) * 1000)
    return ready[0][1] if ready else 0


def is_green() -> bool:
    """Whether Python's waits are those of gevent or eventlet, so that waiting in C would hold up all greenlets."""
    return not isinstance(time.sleep, BuiltinFunctionType)


def _select(fd: int, events: int, timeout: float) -> int:
    """As `poll`."""
    readers, writers, _ = select.select(
        [fd] * bool(events & POLLIN), [fd] * bool(events & POLLOUT), [], max(0.0, timeout)
    )
    return POLLIN * bool(readers) | POLLOUT * bool(writers)


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close descriptors that nobody else will."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return tuple(found)
