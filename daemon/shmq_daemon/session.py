"""One socket of one client: bytes in and frames out, never blocking on the peer.

Owns: the socket, what is still to be written, the time a peer may take to say hello or to finish a frame. Does not
own: what frames mean (broker.py), the client, who outlives its socket (clients.py).
Invariants: what waits to be written is bounded, descriptors too: beyond the bound nothing more is read from this peer,
no frame of it that is here already is acted on, and nothing is delivered to it; a frame with descriptors starts a write
of its own, and its descriptors are ours until it is sent.
"""

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from shmq.errors import ConnectionLost, FrameError, RemoteFrameError, ShmqError
from shmq.limits import FRAME_PROGRESS_SECONDS
from shmq.wire.codes import to_wire
from shmq.wire.connection import broker_connection
from shmq.wire.frames import BrokerFrame, ClientFrame, Closing
from shmq.wire.states import State
from shmq_daemon.loop import HUNG_UP, READ, WRITE, Loop, Timers
from shmq_daemon.peer import Peer

if TYPE_CHECKING:
    from shmq_daemon.clients import Client

READ_BYTES: Final = 256 * 1024
WRITE_BYTES_MAX: Final = 4 * 1024 * 1024  # beyond this a session gets nothing more until it has read
WRITE_DESCRIPTORS_MAX: Final = 16  # likewise: they are open here until it has
DRAIN_READS_MAX: Final = 64
NO_ROOM: Final = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)  # in the kernel, for now: no hang-up
NO_ROOM_REST_NS: Final = 10_000_000  # its poll says that we may write, so it is the time that is waited for
PROGRESS_NS: Final = int(FRAME_PROGRESS_SECONDS * 1e9)


class Chunk:
    """Bytes to write, and the descriptors that go with the first of them."""

    __slots__ = ("data", "descriptors")

    def __init__(self, descriptors: Sequence[int] = ()) -> None:
        self.data = bytearray()
        self.descriptors = tuple(descriptors)

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = ()


class Owner(Protocol):
    """Who keeps sessions. Those in `unflushed` go on before its loop waits."""

    unflushed: set["Session"]

    def on_frame(self, session: "Session", frame: ClientFrame) -> None: ...
    def on_session_end(self, session: "Session") -> None: ...
    def on_room(self, client: "Client") -> None: ...


class Session:
    """A connected peer. `client` is None before hello."""

    def __init__(self, connection: socket.socket, peer: Peer, loop: Loop, timers: Timers, owner: Owner) -> None:
        connection.setblocking(False)
        self._socket = connection
        self.peer = peer
        self.client: Client | None = None
        self.wire = broker_connection()
        self.open = True
        self._loop = loop
        self._timers = timers
        self._owner = owner
        self._out: deque[Chunk] = deque()
        self.bytes_waiting = 0
        self._descriptors_waiting = 0
        self._frames: deque[ClientFrame] = deque()  # read, and not acted on
        self._held_up = False  # by what is still to be written, or by `pause`: frames may be here
        self._grown_ns = 0  # when half a frame was last seen to grow
        self._progress_watched = False
        self._mask = READ
        self._paused = False
        self._draining = False
        self._resting = False  # until the kernel may have room
        self._parked = False  # hung up while paused: not in the loop, which would tell it again and again
        loop.add(connection.fileno(), self._on_ready)

    # -- in ---------------------------------------------------------------------------------------------------

    def _on_ready(self, events: int) -> None:
        if events & HUNG_UP:
            self._on_hung_up()
        elif events & WRITE:
            self.flush()
        if self.open and events & ~WRITE and not (self._held_up or self._paused or self.is_full):
            self._read()

    def _on_hung_up(self) -> None:
        """Nobody reads any more, but what was written before may still be here: it is read when its turn comes."""
        self._drop_out()
        if self._paused and not self._parked:
            self._parked = True
            self._loop.remove(self._socket.fileno())
        elif self._held_up:
            self._owner.unflushed.add(self)

    def _read(self) -> bool:
        """Take what has come. False: nothing has."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self.wire.receive_data(data)
        return self._act()

    def _act(self) -> bool:
        """Act on the frames that are here, as far as this peer may have more under way. False: the session is over."""
        try:
            while self.open and not self._is_held_up():
                if not self._frames:
                    self._frames.extend(self.wire.next_events())
                    if not self._frames:
                        break
                self._owner.on_frame(self, self._frames.popleft())
        except ShmqError as error:
            self.end(error)
            return False
        if self.wire.bytes_pending and not self._held_up:
            self._grown_ns = self._timers.now_ns()
            if not self._progress_watched:
                self._check_progress(self._grown_ns)
        self.flush()
        return self.open

    def _is_held_up(self) -> bool:
        self._held_up = self._paused or self.is_full
        return self._held_up

    def go_on(self) -> None:
        """Write what the peer takes now; when that was what held us up, act on what is here."""
        self.flush()
        if self.open and self._held_up and not (self._paused or self.is_full):
            self._act()

    def drain(self) -> None:
        """Read what a dead peer has left; it can't be more than the kernel holds. Nothing of that waits for room."""
        self._draining, self._paused = True, False
        for _ in range(DRAIN_READS_MAX):
            if self._held_up:
                self.go_on()
            if self.open and not self._held_up and not self._read():
                return

    def _check_progress(self, now_ns: int) -> None:
        """Half a frame that has not grown for too long ends the session, unless it is we who do not read."""
        self._progress_watched = False
        if not self.open or not self.wire.bytes_pending or self._held_up or self._paused or self.is_full:
            return
        due_ns = self._grown_ns + PROGRESS_NS
        if now_ns >= due_ns:
            self.end(RemoteFrameError(f"half a frame did not grow within {FRAME_PROGRESS_SECONDS:g} s"))
            return
        self._progress_watched = True
        self._timers.at(due_ns, self._check_progress)

    def pause(self) -> None:
        """Read nothing more for now: this peer has more under way than we keep."""
        self._paused = not self._draining
        self._watch()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._parked and self.open:
                self._parked = False
                self._mask = READ
                self._loop.add(self._socket.fileno(), self._on_ready)
            self._owner.unflushed.add(self)
            self._watch()

    def postpone(self, frame: ClientFrame) -> bool:
        """Act on this frame once more after `resume`, and on nothing before. False: there is no after."""
        if self._draining:
            return False
        self._frames.appendleft(frame)
        self.pause()
        return True

    # -- out --------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        return self.bytes_waiting > WRITE_BYTES_MAX or self._descriptors_waiting > WRITE_DESCRIPTORS_MAX

    def send(self, frame: BrokerFrame, descriptors: Sequence[int] = ()) -> None:
        """Queue a frame; it is written before the loop waits. The descriptors become ours, whatever happens."""
        if not self.open:
            Chunk(descriptors).close()
            return
        if descriptors or not self._out or self._out[-1].descriptors:
            self._out.append(Chunk(descriptors))
        data = self._out[-1].data
        before = len(data)
        self.wire.send_into(frame, data, descriptors)
        self.bytes_waiting += len(data) - before
        self._descriptors_waiting += len(descriptors)
        self._owner.unflushed.add(self)

    def flush(self) -> None:
        """Write what the peer takes now."""
        was_full = self.is_full
        self._owner.unflushed.discard(self)
        try:
            while self._out:
                self._write(self._out[0])
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in NO_ROOM:  # the loop tells us of the hang-up, and what was said before it is read
                self._on_hung_up()
                return
            self._rest()
        if self.open and self._held_up and not (self._paused or self.is_full):
            self._owner.unflushed.add(self)
        self._watch()
        if was_full and not self.is_full and self.client is not None:
            self._owner.on_room(self.client)

    def _rest(self) -> None:
        if not self._resting:
            self._resting = True
            self._timers.after(NO_ROOM_REST_NS, self._on_rested)

    def _on_rested(self, _now_ns: int) -> None:
        self._resting = False
        if self.open:
            self._owner.unflushed.add(self)

    def _write(self, chunk: Chunk) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", chunk.descriptors))]
        while chunk.data or chunk.descriptors:
            if chunk.descriptors:
                sent = self._socket.sendmsg([chunk.data], rights, socket.MSG_NOSIGNAL)
                self._descriptors_waiting -= len(chunk.descriptors)
                chunk.close()
            else:
                sent = self._socket.send(chunk.data, socket.MSG_NOSIGNAL)
            del chunk.data[:sent]
            self.bytes_waiting -= sent
        self._out.popleft()

    def _drop_out(self) -> None:
        while self._out:
            self._out.popleft().close()
        self.bytes_waiting = self._descriptors_waiting = 0

    def _watch(self) -> None:
        if not self.open or self._parked:
            return
        reading = 0 if self._held_up or self._paused or self.is_full else READ
        mask = reading | (WRITE if self._out and not self._resting else 0)
        if mask != self._mask:
            self._mask = mask
            self._loop.change(self._socket.fileno(), mask)

    # -- end --------------------------------------------------------------------------------------------------

    def end(self, error: ShmqError) -> None:
        """Say why, as far as the peer still reads, and close."""
        if not error.ends_session and not isinstance(error, FrameError):
            error = ConnectionLost(reason=str(error)) if self.client is not None else error
        self.say_last(Closing(*to_wire(error)))

    def say_last(self, frame: Closing) -> None:
        if self.open and self.wire.state is not State.CLOSED:
            self.send(frame)
            self.flush()
        self.close()

    def close(self) -> None:
        if not self.open:
            return
        self.open = self._held_up = False
        self._owner.unflushed.discard(self)
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        self.wire.close()
        self._frames.clear()
        self._drop_out()
        if self.client is None and self.peer.pidfd >= 0:
            os.close(self.peer.pidfd)  # with a client it is the client's
        self._owner.on_session_end(self)
