"""Frames to bytes and back: four bytes of length, big-endian, then that many bytes of MessagePack.

Owns: cutting a stream into frames, the limits, which descriptors belong to which frame, closing those nobody takes.
Does not own: who may send what when (`states`, `connection`), sockets.
Invariants: a length is compared with its limit before anything is kept for it; memory is taken for bytes that came,
never for a length that was announced; garbage is a frame or raises FrameError, once, and then for ever.
"""

import contextlib
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from shmq.errors import FrameError, FrameTooLarge, LocalFrameError, RemoteFrameError
from shmq.limits import (
    BODY_FRAME_BYTES_MAX,
    CONTROL_FRAME_BYTES_MAX,
    LENGTH_BYTES,
    PENDING_DESCRIPTORS_MAX,
)
from shmq.wire.fields import Frame

FrameT = TypeVar("FrameT", bound=Frame)

_LENGTH: Final = struct.Struct(">I")
_NO_LENGTH: Final = bytes(LENGTH_BYTES)
_HEAD_BYTES: Final = LENGTH_BYTES + 2  # up to and with the tag
_ARRAY: Final = 0x90  # MessagePack's fixarray: all our frames have fewer than 16 fields
_ARRAY_MASK: Final = 0xF0
_DECODE_ERRORS: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_ENCODE_ERRORS: Final = (TypeError, ValueError, OverflowError, RecursionError, BufferError)

_encode_into = msgspec.msgpack.Encoder().encode_into


def encode_into(frame: Frame, buffer: bytearray, limit: int) -> None:
    """Append a frame to what is to be written. LocalFrameError, FrameTooLarge, anything leaves the buffer as it was."""
    start = len(buffer)
    buffer += _NO_LENGTH
    try:
        _encode_into(frame, buffer, start + LENGTH_BYTES)
    except BaseException as error:  # also interrupted: half a frame must not stay
        del buffer[start:]
        if not isinstance(error, _ENCODE_ERRORS):
            raise
        raise LocalFrameError(f"{type(frame).__name__} can't be encoded: {error}") from None
    length = len(buffer) - start - LENGTH_BYTES
    if length > limit:
        del buffer[start:]
        raise FrameTooLarge(size=length, limit=limit)
    _LENGTH.pack_into(buffer, start, length)


class FrameReader(Generic[FrameT]):
    """Bytes and descriptors in, frames out.

    `union` is what to read; `body_frames` are those of it that may be as large as a body; `turning` are those that end
    a batch, because what follows may be read differently. `limit` may be lowered for a peer not yet known.
    """

    def __init__(self, union: object, body_frames: Sequence[type], turning: frozenset[type]) -> None:
        types = get_args(union)
        self.limit = CONTROL_FRAME_BYTES_MAX
        self._decode: Callable[[memoryview], FrameT] = msgspec.msgpack.Decoder(union).decode
        self._body_tags = frozenset(_tag(frame) for frame in types if frame in body_frames)
        self._stops = turning | {frame for frame in types if "descriptors" in frame.__struct_fields__}
        self._buffer = bytearray()
        self._needed = LENGTH_BYTES  # before it makes sense to look
        self._pending: deque[int] = deque()  # descriptors whose frame is not complete
        self._claimed: tuple[int, ...] = ()  # descriptors of the frame that was returned last
        self._error: FrameError | None = None

    @property
    def bytes_pending(self) -> int:
        """Bytes received that are not yet a frame."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview, descriptors: Sequence[int] = ()) -> None:
        """Take what came with one recvmsg. The descriptors are ours from here on."""
        if self._error is not None:
            _close(descriptors)
            return
        self._buffer += data
        self._pending.extend(descriptors)

    def frames(self, frames_max: int = 1 << 30) -> list[FrameT]:
        """The complete frames, in order; an empty list: more bytes are needed.

        Ends early behind a frame that carries descriptors or is one of `turning`, and before a bad one, whose error the
        next call raises. So call until the list is empty.
        """
        self._drop_claimed()
        if self._error is not None:
            raise self._error
        if len(self._buffer) < self._needed:
            if self._pending:
                self._check_pending()
            return []
        found: list[FrameT] = []
        try:
            self._cut(found, frames_max)
        except FrameError as error:
            if not found:
                self._fail(error)
        if not found and self._pending:
            self._check_pending()
        return found

    def take_descriptors(self) -> tuple[int, ...]:
        """Those of the last frame returned, for the caller to close. Not asked for before the next read: closed."""
        claimed, self._claimed = self._claimed, ()
        return claimed

    def close(self) -> None:
        """Forget everything; close descriptors that nobody took."""
        self._drop_claimed()
        _close(self._pending)
        self._pending.clear()
        self._buffer = bytearray()
        self._needed = LENGTH_BYTES

    def _cut(self, found: list[FrameT], frames_max: int) -> None:
        buffer, decode, limit, stops = self._buffer, self._decode, self.limit, self._stops
        have, position, self._needed = len(buffer), 0, LENGTH_BYTES
        view = memoryview(buffer)
        try:
            while have - position >= LENGTH_BYTES and len(found) < frames_max:
                (length,) = _LENGTH.unpack_from(buffer, position)
                if length > limit:
                    self._check_large(length, bytes(view[position + LENGTH_BYTES : position + _HEAD_BYTES]))
                start = position + LENGTH_BYTES
                end = start + length
                if end > have:
                    checked = length <= limit or have - position >= _HEAD_BYTES
                    self._needed = LENGTH_BYTES + length if checked else _HEAD_BYTES
                    break
                frame = decode(view[start:end])
                if type(frame) in stops:
                    self._claim(frame)
                    found.append(frame)
                    position = end
                    break
                found.append(frame)
                position = end
        except _DECODE_ERRORS as error:
            raise RemoteFrameError(f"the peer sent a frame that can't be read: {error}") from None
        finally:
            view.release()
            del buffer[:position]

    def _check_large(self, length: int, head: bytes) -> None:
        """Only frames with bodies may be larger than the limit, once the peer is known. The tag comes first."""
        limit = BODY_FRAME_BYTES_MAX if self._body_tags and self.limit >= CONTROL_FRAME_BYTES_MAX else self.limit
        if len(head) == _HEAD_BYTES - LENGTH_BYTES and not (
            head[0] & _ARRAY_MASK == _ARRAY and head[1] in self._body_tags
        ):
            limit = self.limit
        if length > limit:
            raise FrameTooLarge(size=length, limit=limit)

    def _claim(self, frame: FrameT) -> None:
        count: int = getattr(frame, "descriptors", 0)
        if count > len(self._pending):
            raise RemoteFrameError(
                f"{type(frame).__name__} announces {count} descriptors, {len(self._pending)} came with it"
            )
        self._claimed = tuple(self._pending.popleft() for _ in range(count))

    def _check_pending(self) -> None:
        if not self._buffer or len(self._pending) > PENDING_DESCRIPTORS_MAX:
            self._fail(RemoteFrameError(f"the peer sent {len(self._pending)} descriptors that no frame announced"))

    def _fail(self, error: FrameError) -> None:
        self._error = error
        self.close()
        raise error

    def _drop_claimed(self) -> None:
        if self._claimed:
            _close(self.take_descriptors())


def _tag(frame: type[Any]) -> int:
    tag = frame.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def _close(descriptors: Sequence[int] | deque[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
