"""One end of a session, sans-I/O: bytes and descriptors in, frames out; frames in, bytes out. The same for both ends.

Owns: which frame may be sent or received now (by the tables of `states`), the version of the protocol, whose fault an
error is. Does not own: sockets, time, the meaning of frames, sequence numbers.
Invariants: nothing illegal is ever written; what the peer does wrong raises one FrameError (before the welcome, at a
client: NotShmqd) and ends the session; a broker may then still send Closing.
"""

import enum
from collections.abc import Sequence
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

from shmq.errors import ConnectionClosed, FrameError, LocalFrameError, NotShmqd, ProtocolMismatch, RemoteFrameError
from shmq.limits import BODY_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX, PROTOCOL
from shmq.wire.fields import Frame
from shmq.wire.frames import BODY_FRAMES, Attached, Bells, BrokerFrame, ClientFrame, Hello, Welcome
from shmq.wire.framing import FrameReader, encode_into
from shmq.wire.states import MAY_SEND, TRANSITIONS, TURNING_FRAMES, Role, State, peer_of

SentT = TypeVar("SentT", bound=Frame)
ReceivedT = TypeVar("ReceivedT", bound=Frame)

_WITH_DESCRIPTORS: Final = frozenset({Attached, Bells, Welcome})
_LIMITS: Final = dict.fromkeys(BODY_FRAMES, BODY_FRAME_BYTES_MAX)


class Signal(enum.Enum):
    """What `next_event` returns when it has no frame."""

    NEED_DATA = "need data"
    END = "end"  # the peer has closed its end


class Connection(Generic[SentT, ReceivedT]):
    """One end of one session. Make it with `client_connection()` or `broker_connection()`."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.HELLO
        self.ended = False  # the peer has closed its end
        self._reader: FrameReader[Any] = FrameReader(
            ClientFrame if role is Role.BROKER else BrokerFrame, BODY_FRAMES, TURNING_FRAMES
        )
        if role is Role.BROKER:
            self._reader.limit = HELLO_FRAME_BYTES_MAX
        self._error: FrameError | NotShmqd | ProtocolMismatch | None = None
        self._enter(State.HELLO)

    @property
    def bytes_pending(self) -> int:
        """Bytes of a frame that is not yet complete: not 0 for too long is a peer that makes no progress."""
        return self._reader.bytes_pending

    # -- in -----------------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview, descriptors: Sequence[int] = ()) -> None:
        """What one recvmsg gave. No data: the peer has closed its end. Descriptors are ours from here on."""
        if not data:
            self.ended = True
        self._reader.feed(data, descriptors)

    def next_event(self) -> ReceivedT | Signal:
        """The next frame. Raises what is wrong with it: FrameError, NotShmqd, ProtocolMismatch."""
        frames = self._read(1)
        return frames[0] if frames else (Signal.END if self.ended else Signal.NEED_DATA)

    def next_events(self) -> list[ReceivedT]:
        """The frames that are complete, many at once. Call until the list is empty; raises as `next_event`.

        Descriptors, if any, belong to the last frame of a list.
        """
        return self._read()

    def take_descriptors(self) -> tuple[int, ...]:
        """Those of the last frame returned, for the caller to close. Not asked for before the next read: closed."""
        return self._reader.take_descriptors()

    def _read(self, frames_max: int = 1 << 30) -> list[ReceivedT]:
        if self.state is State.CLOSED:
            self._reader.close()  # what crossed with the last word
            return []
        if self._error is not None:
            self._fail(self._error)
        try:
            frames = self._reader.frames(frames_max)
        except FrameError as error:
            self._fail(self._blame(error))
        legal = self._may_receive
        for index, frame in enumerate(frames):
            if type(frame) not in legal:
                return self._stop_before(frames, index)
        if frames and type(frames[-1]) in self._moves:
            self._turn(frames[-1])
        return frames

    def _stop_before(self, frames: list[ReceivedT], index: int) -> list[ReceivedT]:
        """Hand out what was legal; the rest fails at the next call."""
        what = type(frames[index]).__name__
        error = RemoteFrameError(f"the peer sent {what} while the session was in state {self.state.value!r}")
        self._error = self._blame(error)
        if not index:
            self._fail(self._error)
        return frames[:index]

    # -- out ----------------------------------------------------------------------------------------------------------

    def send(self, frame: SentT, descriptors: Sequence[int] = ()) -> bytes:
        """The bytes to write. Descriptors are only counted: pass them with the first of these bytes.

        Raises LocalFrameError, FrameTooLarge, ConnectionClosed; then nothing has changed.
        """
        buffer = bytearray()
        self.send_into(frame, buffer, descriptors)
        return bytes(buffer)

    def send_into(self, frame: SentT, buffer: bytearray, descriptors: Sequence[int] = ()) -> None:
        """As `send`, appended to a buffer: one write for many frames. A frame with descriptors starts a new write."""
        kind = type(frame)
        if kind not in self._may_send:
            self._refuse(frame)
        if descriptors or kind in _WITH_DESCRIPTORS:
            _check_count(frame, descriptors)
        encode_into(frame, buffer, _LIMITS.get(kind, CONTROL_FRAME_BYTES_MAX))
        if kind in self._moves:
            self._enter(self._moves[kind])

    def close(self) -> None:
        """Forget what is half received and close descriptors nobody took. Idempotent."""
        self._enter(State.CLOSED)
        self._reader.close()

    # -- states -------------------------------------------------------------------------------------------------------

    def _enter(self, state: State) -> None:
        self.state = state
        self._moves = TRANSITIONS[state]
        self._may_send = MAY_SEND[self.role][state]
        self._may_receive = MAY_SEND[peer_of(self.role)][state]

    def _turn(self, frame: Frame) -> None:
        self._enter(self._moves[type(frame)])
        if isinstance(frame, Hello | Welcome):
            self._reader.limit = CONTROL_FRAME_BYTES_MAX
            if frame.protocol != PROTOCOL:
                self._fail(ProtocolMismatch(ours=PROTOCOL, theirs=frame.protocol))

    def _blame(self, error: FrameError) -> FrameError | NotShmqd:
        if self.role is Role.CLIENT and self.state is State.WELCOME:
            return NotShmqd(reason=str(error))
        return error

    def _fail(self, error: FrameError | NotShmqd | ProtocolMismatch) -> NoReturn:
        self._error = error
        self._enter(State.FAILED)
        self._reader.close()
        raise error from None

    def _refuse(self, frame: Frame) -> NoReturn:
        if self.state in {State.CLOSED, State.FAILED}:
            raise ConnectionClosed(f"the session is over: {type(frame).__name__} can't be sent")
        raise LocalFrameError(
            f"{type(frame).__name__} can't be sent while the session is in state {self.state.value!r}"
        )


def client_connection() -> Connection[ClientFrame, BrokerFrame]:
    """The client's end."""
    return cast("Connection[ClientFrame, BrokerFrame]", Connection(Role.CLIENT))


def broker_connection() -> Connection[BrokerFrame, ClientFrame]:
    """The broker's end."""
    return cast("Connection[BrokerFrame, ClientFrame]", Connection(Role.BROKER))


def _check_count(frame: Frame, descriptors: Sequence[int]) -> None:
    announced = getattr(frame, "descriptors", 0)
    if announced != len(descriptors):
        raise LocalFrameError(f"{type(frame).__name__} announces {announced} descriptors, {len(descriptors)} are given")
