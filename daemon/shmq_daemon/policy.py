"""What a queue effectively does, where its definition leaves it open or asks for what is not kept yet.

Owns: defaults that depend on other arguments, the geometry of a segment, which known arguments this version refuses.
Does not own: what may stand in an argument (`shmq.definitions`), the queue.
Invariant: an argument that is known and not kept is refused, never ignored.
"""

from typing import Final, NamedTuple

import msgspec

from shmq.definitions import QueueDefinition
from shmq.errors import AccessRefused, NotSupported
from shmq.limits import BODY_BYTES_MAX
from shmq.names import RESERVED_PREFIX
from shmq_daemon.events import Geometry

ARENA_UNIT: Final = 1 << 20
INLINE_UNIT: Final = 64
RING_ENTRIES: Final = 256  # of a first ring; rings grow, and a thousand idle queues must stay small
DELIVERY_LIMIT_DEFAULT: Final = 20  # where dead letters have somewhere to go
NO_LIMIT: Final = -1
NS_PER_MS: Final = 1_000_000

LATER: Final = {
    "max_length": "x-max-length",
    "max_length_bytes": "x-max-length-bytes",
    "overflow": "x-overflow",
    "expires_ms": "x-expires",
    "single_active_consumer": "x-single-active-consumer",
}
LATER_BY_ARGUMENT: Final = ("x-delayed-retry-type", "x-delayed-retry-min", "x-delayed-retry-max")


class Sizes(NamedTuple):
    """Of a queue that asks for none."""

    capacity: int
    capacity_bytes: int
    inline_bytes: int


def check_unreserved(kind: str, name: str) -> None:
    """Raise AccessRefused for a name that only the broker gives."""
    if name.startswith(RESERVED_PREFIX):
        reason = f"names that begin with {RESERVED_PREFIX!r} are the broker's"
        text = f"access to {kind} {name!r} refused: {reason}. Choose another name"  # no other user could have this one
        raise AccessRefused(text, what=f"{kind} {name!r}", reason=reason)


def check_kept(definition: QueueDefinition) -> None:
    """Raise NotSupported for an argument that changes what a queue does and that we do not keep yet."""
    asked = [argument for field, argument in LATER.items() if getattr(definition, field) is not None]
    asked += [argument for argument in LATER_BY_ARGUMENT if argument in definition.other]
    if asked:
        raise NotSupported(f"the queue argument {asked[0]} is not kept by this version of shmqd; leave it out")


def geometry_of(definition: QueueDefinition, default: Sizes) -> Geometry:
    """The segment that a queue needs."""
    slots = definition.capacity_messages or default.capacity
    arena = default.capacity_bytes if definition.capacity_bytes is None else definition.capacity_bytes
    levels = (definition.max_priority or 0) + 1
    return levels, slots, _up(default.inline_bytes, INLINE_UNIT), RING_ENTRIES, _up(arena, ARENA_UNIT)


def delivery_limit_of(definition: QueueDefinition) -> int:
    """-1: none."""
    if definition.delivery_limit is not None:
        return definition.delivery_limit
    return NO_LIMIT if definition.dead_letter_exchange is None else DELIVERY_LIMIT_DEFAULT


def ttl_ns_of(definition: QueueDefinition, ttl_ns: int) -> int:
    """The lower of a queue's and a message's time to live; -1: none."""
    if definition.message_ttl_ms is None:
        return ttl_ns
    queue_ns = definition.message_ttl_ms * NS_PER_MS
    return queue_ns if ttl_ns < 0 else min(queue_ns, ttl_ns)


def renamed(definition: QueueDefinition, name: str) -> QueueDefinition:
    """The same under another name."""
    return msgspec.structs.replace(definition, name=name)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def body_bytes_max(geometry: Geometry) -> int:
    """The largest body that can ever fit, envelope not counted."""
    _, _, inline_bytes, _, arena_bytes = geometry
    return min(BODY_BYTES_MAX, arena_bytes) or inline_bytes


def consumer_needs_broker(definition: QueueDefinition) -> str:
    """Why a queue can't be worked in directly, "" if it can: somebody must count its consumers."""
    return "an auto_delete queue needs the broker to see its consumers" if definition.auto_delete else ""
