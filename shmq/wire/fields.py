"""Types of the fields of frames: each number with its bounds, each text and list with its longest length.

Bounds here keep a decoder small; whether a name, an argument or a number makes sense is checked by who uses it, so that
a mistake is an answer and not the end of a session. Structs here are parts of frames, not frames.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, field

from shmq.definitions import ExchangeDefinition, Other, QueueDefinition
from shmq.limits import (
    BATCH_MESSAGES_MAX,
    BODY_BYTES_MAX,
    COUNT_MAX,
    DELIVERY_TAG_MAX,
    ENVELOPE_BYTES_MAX,
    FRAME_DESCRIPTORS_MAX,
    NAME_BYTES_MAX,
    OWNERS_MAX,
    PAGE_ENTRIES_MAX,
    PREFETCH_MAX,
    PRIORITY_MAX,
    SEQ_MAX,
    TEXT_BYTES_MAX,
    TIME_NS_MAX,
)

Seq = Annotated[int, Meta(ge=0, le=SEQ_MAX)]  # of a request; 0: no answer wanted
Name = Annotated[str, Meta(max_length=NAME_BYTES_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_BYTES_MAX)]
Secret = Annotated[bytes, Meta(min_length=16, max_length=64)]
Code = Annotated[int, Meta(ge=100, le=999)]
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
U32 = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
Signed = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Owner = Annotated[int, Meta(ge=0, le=OWNERS_MAX)]
TimeNs = Annotated[int, Meta(ge=0, le=TIME_NS_MAX)]
TtlNs = Annotated[int, Meta(ge=-1, le=TIME_NS_MAX)]  # -1: none
Priority = Annotated[int, Meta(ge=0, le=PRIORITY_MAX)]
Prefetch = Annotated[int, Meta(ge=0, le=PREFETCH_MAX)]  # 0: unlimited
ConfirmLevel = Annotated[int, Meta(ge=0, le=3)]  # NONE, SENT, MEMORY, DISK of shmq.wire.frames
Flags = Annotated[int, Meta(ge=0, le=0xFF)]
DeliveryTag = Annotated[int, Meta(ge=1, le=DELIVERY_TAG_MAX)]
DeliveryTags = Annotated[list[DeliveryTag], Meta(max_length=BATCH_MESSAGES_MAX)]
BatchSize = Annotated[int, Meta(ge=1, le=BATCH_MESSAGES_MAX)]
Descriptors = Annotated[int, Meta(ge=0, le=FRAME_DESCRIPTORS_MAX)]
EnvelopeBytes = Annotated[bytes, Meta(max_length=ENVELOPE_BYTES_MAX)]
Body = Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)]
Bodies = Annotated[list[Body], Meta(max_length=BATCH_MESSAGES_MAX)]
Geometry = tuple[Count, Count, Count, Count, Count]  # as in the core: levels, slots, inline_bytes, ring_entries, arena
Arguments = Other
Names = Annotated[list[Name], Meta(max_length=BATCH_MESSAGES_MAX)]
ErrorData = Annotated[dict[Name, bool | int | float | str | list[str] | None], Meta(max_length=64)]
Totals = Annotated[dict[Name, int], Meta(max_length=256)]
Pid = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Identity = tuple[U32, U32, Pid]  # (uid, gid, pid) of who publishes
Word = tuple[U32, Count]  # (index, value) of a generation word
Words = Annotated[list[Word], Meta(max_length=4096)]


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all frames."""


class Part(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of what is not a frame by itself."""


class Resume(Part, frozen=True):
    """A lost session that its client wants back."""

    connection_id: Name
    secret: Secret


class Delivery(Part, frozen=True):
    """One message handed out. Times are CLOCK_MONOTONIC nanoseconds."""

    delivery_tag: DeliveryTag
    priority: Priority  # as published
    flags: Flags  # as in the core: PERSISTENT
    delivery_count: Count  # this delivery included
    failure_count: Count
    sequence: Count
    expires_ns: Count  # 0: never
    envelope: EnvelopeBytes
    body: Body
    sender: Identity | None = None  # unknown


class Latency(Part, frozen=True):
    """How long something took, since the queue was made: upper bounds, known to an eighth of a power of two."""

    count: Count = 0  # 0: nothing was measured, and the rest means nothing
    p50_ns: Count = 0
    p99_ns: Count = 0


class QueueInfo(Part, frozen=True):
    """What a person or a program may want to know about one queue."""

    definition: QueueDefinition
    queue_id: Count
    messages: Count  # ready
    unacked: Count
    consumers: Count  # of all connections, in both modes
    capacity_messages: Count  # effective
    capacity_bytes: Count
    mode: Name  # what this connection would use: "direct" or "socket"
    reason: Text  # why not direct, else empty
    totals: Totals  # `Queue.stats` of the core
    time_in_queue: Latency = Latency()  # from publish to delivery, of each delivery
    time_to_ack: Latency = Latency()  # from delivery to ack


class ProcessInfo(Part, frozen=True):
    """One process of the daemon."""

    role: Name
    pid: Count
    restarts: Count
    started_ns: Count


class Alarm(Part, frozen=True):
    """Something that a person should look at."""

    kind: Name
    text: Text
    raised_ns: Count


class BindingInfo(Part, frozen=True):
    """A binding, from an exchange to a queue, or to an exchange."""

    source: Name
    destination: Name
    to_exchange: bool = False
    routing_key: Name = ""
    arguments: Arguments = field(default_factory=dict)


QueuePage = Annotated[list[QueueInfo], Meta(max_length=PAGE_ENTRIES_MAX)]
ExchangePage = Annotated[list[ExchangeDefinition], Meta(max_length=PAGE_ENTRIES_MAX)]
BindingPage = Annotated[list[BindingInfo], Meta(max_length=PAGE_ENTRIES_MAX)]
Processes = Annotated[list[ProcessInfo], Meta(max_length=64)]
Alarms = Annotated[list[Alarm], Meta(max_length=1024)]
RoutedExchanges = Annotated[list[ExchangeDefinition], Meta(max_length=4096)]
RoutedBindings = Annotated[list[BindingInfo], Meta(max_length=16_384)]
Deliveries = Annotated[list[Delivery], Meta(max_length=BATCH_MESSAGES_MAX)]
