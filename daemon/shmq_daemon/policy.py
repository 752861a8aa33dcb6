"""What a queue effectively does, where its definition leaves it open or asks for what is not kept yet.

Owns: defaults that depend on other arguments, the geometry of a segment, what the core is told, which exchanges this
version refuses.
Does not own: what may stand in an argument (`shmq.definitions`), the queue.
Invariant: an argument that is known and not kept is refused, never ignored.
"""

import bisect
from typing import Final, NamedTuple

import msgspec

from shmq.core import _core
from shmq.definitions import QueueDefinition
from shmq.errors import AccessRefused
from shmq.limits import BODY_BYTES_MAX, SLOTS_MAX
from shmq.names import RESERVED_PREFIX
from shmq_daemon.events import Geometry

ARENA_UNIT: Final = 1 << 20
INLINE_UNIT: Final = 64
RING_ENTRIES: Final = 256  # of a first ring; rings grow, and a thousand idle queues must stay small
DELIVERY_LIMIT_DEFAULT: Final = 20  # where dead letters have somewhere to go
NO_LIMIT: Final = -1
INLINE: Final = 0  # beside the tiers of an arena
TIER_BYTES_MAX: Final = (64 << 10, 8 << 20)  # of the first two; as in the core (arena.c)
NS_PER_MS: Final = 1_000_000

OVERFLOWS: Final = {
    "drop-head": (_core.DROPS, _core.DROPS_DEAD),
    "reject-publish": (_core.REFUSES, _core.REFUSES),
    "reject-publish-dlx": (_core.REFUSES, _core.REFUSES_DEAD),
}  # without and with a dead-letter exchange
RETRIES: Final = {
    "all": _core.RETRY_FAILED | _core.RETRY_RETURNED,
    "failed": _core.RETRY_FAILED,
    "returned": _core.RETRY_RETURNED,
}
ROOM_BESIDE_LENGTH: Final = (
    4096  # messages of a queue that are not ready, where its length is beyond the usual capacity
)
TOO_LONG: Final = "it is as long as it may be (x-max-length, x-max-length-bytes; x-overflow)"
ONE_ACTIVE: Final = "the broker decides which of its consumers is active"
DECIDES: Final = "the broker decides who gets its messages, for an exclusive or prioritised consumer"


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


def geometry_of(definition: QueueDefinition, default: Sizes) -> Geometry:
    """The segment that a queue needs."""
    slots = definition.capacity_messages or _capacity_for(definition.max_length, default.capacity)
    arena = default.capacity_bytes if definition.capacity_bytes is None else definition.capacity_bytes
    levels = (definition.max_priority or 0) + 1
    return levels, slots, _up(default.inline_bytes, INLINE_UNIT), RING_ENTRIES, _up(arena, ARENA_UNIT)


def _capacity_for(max_length: int | None, default: int) -> int:
    """Enough for what may be ready and some that is not: a length, not the capacity, is to be the limit."""
    if max_length is None or 2 * max_length <= default:
        return default
    return min(max(default, max_length + ROOM_BESIDE_LENGTH), SLOTS_MAX)


def delivery_limit_of(definition: QueueDefinition) -> int:
    """-1: none."""
    if definition.delivery_limit is not None:
        return definition.delivery_limit
    return NO_LIMIT if definition.dead_letter_exchange is None else DELIVERY_LIMIT_DEFAULT


def overflow_of(definition: QueueDefinition) -> int:
    """What the core does beyond a length; 0: there is none."""
    if definition.max_length is None and definition.max_length_bytes is None:
        return 0
    kinds = OVERFLOWS[definition.overflow or "drop-head"]
    overflow = kinds[definition.dead_letter_exchange is not None]
    drops = overflow in (_core.DROPS, _core.DROPS_DEAD)
    return overflow | _core.DROPS_HIGHEST if drops and definition.overflow_victim == "highest" else overflow


def limits_of(definition: QueueDefinition) -> dict[str, int]:
    """What the core is told of a queue: keywords of `Queue.set_limits`."""
    limit = delivery_limit_of(definition)
    return {
        "delivery_limit": limit,
        "max_length": _or(definition.max_length, -1),
        "max_length_bytes": _or(definition.max_length_bytes, -1),
        "overflow": overflow_of(definition),
        "retry": RETRIES.get(definition.delayed_retry_type or "disabled", 0),
        "retry_min_ns": _or(definition.delayed_retry_min_ms, 0) * NS_PER_MS,
        "retry_max_ns": _or(definition.delayed_retry_max_ms, 0) * NS_PER_MS,
        "ageing_ns": _or(definition.priority_ageing_ms, 0) * NS_PER_MS,
        "warn": int(limit == NO_LIMIT and definition.delivery_limit is None),
    }


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def has_one_active(definition: QueueDefinition) -> bool:
    """Whether only one of its consumers is served at a time."""
    return bool(definition.single_active_consumer)


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


def place_of(geometry: Geometry, body_bytes: int, envelope_bytes: int) -> tuple[int, int]:
    """Where a message lies: INLINE, or the number of a tier from 1, and the bytes that it needs there."""
    _, _, inline_bytes, _, _ = geometry
    size = _up(body_bytes, 8) + envelope_bytes
    return (INLINE, 0) if size <= inline_bytes else (1 + bisect.bisect_left(TIER_BYTES_MAX, size), size)


def consumer_needs_broker(definition: QueueDefinition) -> str:
    """Why nobody takes from a queue directly, "" if they may. Publishing into it is another matter."""
    return ONE_ACTIVE if definition.single_active_consumer else ""
