"""Bodies that say which message they are and can be verified to the last byte.

Owns: message ids, the body of each id (length and bytes are pseudo-random, fixed by the id and the run's seed).
Does not own: who publishes what. Invariant: two different ids have different bodies, and a mixture of two bodies, a
truncated or a padded one is never the body of any id.
"""

import random
import struct
import zlib
from functools import cache
from typing import Final, NamedTuple

MAGIC: Final = b"shmq"
HEADER: Final = struct.Struct("<4sIHHII")  # magic, run, producer, incarnation, seq, length of the whole body
BODY_BYTES_MAX: Final = 1 << 20
LENGTHS: Final = (  # share of bodies in 1,000, shortest, longest: most fit into a slot, some need the arena
    (850, HEADER.size, 160),
    (120, 160, 4_096),
    (27, 4_096, 65_536),
    (3, 65_536, BODY_BYTES_MAX),
)


class MessageId(NamedTuple):
    """Who published it (a worker and which of its lives) and as which one."""

    producer: int
    incarnation: int
    seq: int


@cache
def _noise(run: int) -> bytes:
    """What all bodies of a run are cut from."""
    return random.Random(run).randbytes(2 * BODY_BYTES_MAX)


def prepare(run: int) -> None:
    """Make what `body_of` cuts from, before forking."""
    _noise(run)


def _dice(run: int, message: MessageId) -> int:
    """Return 64 bits that look random and depend on all of the id."""
    x = (run << 80) ^ (message.producer << 64) ^ (message.incarnation << 32) ^ message.seq
    low = zlib.crc32(x.to_bytes(16, "little"))
    return low << 32 | zlib.crc32(low.to_bytes(4, "little"), x & 0xFFFFFFFF)


def body_bytes(run: int, message: MessageId) -> int:
    """Return the length of a message's body."""
    dice = _dice(run, message)
    share = dice % 1_000
    for part, shortest, longest in LENGTHS:
        if share < part:
            return shortest + (dice // 1_000) % (longest - shortest + 1)
        share -= part
    raise AssertionError(LENGTHS)


def body_of(run: int, message: MessageId) -> bytes:
    """Return a message's body."""
    size = body_bytes(run, message)
    start = (_dice(run, message) >> 20) % BODY_BYTES_MAX
    return HEADER.pack(MAGIC, run & 0xFFFFFFFF, *message, size) + _noise(run)[start : start + size - HEADER.size]


def message_of(body: bytes | memoryview) -> MessageId | None:
    """Return which message this says it is; None: it is none of ours."""
    if len(body) < HEADER.size:
        return None
    magic, _run, producer, incarnation, seq, _length = HEADER.unpack_from(body)
    return MessageId(producer, incarnation, seq) if magic == MAGIC else None


def is_intact(run: int, body: bytes | memoryview) -> bool:
    """Whether this is, to the last byte, the body of the message it says it is."""
    message = message_of(body)
    return message is not None and body == body_of(run, message)
