"""What a client sends, one struct a frame; each says how it is answered. The rules are those of `shmq.wire.frames`."""

from typing import Final, Literal

from msgspec import field

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.limits import PROTOCOL
from shmq.wire.fields import (
    U32,
    Arguments,
    BatchSize,
    BindingInfo,
    Bodies,
    Body,
    ConfirmLevel,
    Count,
    DeliveryTags,
    EnvelopeBytes,
    Flags,
    Frame,
    Name,
    Names,
    Prefetch,
    Priority,
    Resume,
    Seq,
    Signed,
    TimeNs,
    TtlNs,
)

MAGIC: Final = "shmq"

# Confirm levels of Publish and PublishMany.
CONFIRM_NONE: Final = 0  # never answered, refusals are not told
CONFIRM_SENT: Final = 1  # answered only by an Error, when refused
CONFIRM_MEMORY: Final = 2  # answered when every queue has it
CONFIRM_DISK: Final = 3  # answered when it is committed to disk


# -- the session ------------------------------------------------------------------------------------


class Hello(Frame, tag=1, frozen=True):
    """The first frame. Its first two fields are the same in every protocol."""

    magic: Literal["shmq"] = MAGIC
    protocol: U32 = PROTOCOL
    layout: U32 = 0  # of segments that this client can map; 0: none
    client: Name = ""
    version: Name = ""
    pid: U32 = 0  # as the client sees itself; the broker asks the kernel
    mode: Literal["auto", "direct", "socket"] = "auto"
    resume: Resume | None = None
    presence: Count | None = None  # its position in the presence file, 0: it has none yet; None: it will keep none


class Goodbye(Frame, tag=2, frozen=True):
    """The last frame of a client. Clean: nothing half written and no view of a body is left in any segment."""

    clean: bool = False


class Ping(Frame, tag=3, frozen=True):
    """Ok when everything sent before was done, publishes that wait for room too."""

    seq: Seq


class Status(Frame, tag=4, frozen=True):
    """StatusReport."""

    seq: Seq


# -- topology ---------------------------------------------------------------------------------------


class DeclareQueue(Frame, tag=8, frozen=True):
    """QueueDeclared. Passive: only the name counts."""

    seq: Seq
    definition: QueueDefinition
    passive: bool = False


class DeleteQueue(Frame, tag=9, frozen=True):
    """Counted: the messages that went with it."""

    seq: Seq
    queue: Name
    if_unused: bool = False
    if_empty: bool = False


class PurgeQueue(Frame, tag=10, frozen=True):
    """Counted: the messages that went."""

    seq: Seq
    queue: Name


class InspectQueue(Frame, tag=11, frozen=True):
    """QueueInspected."""

    seq: Seq
    queue: Name


class ListQueues(Frame, tag=12, frozen=True):
    """QueuesListed: queues whose names sort behind `after`, at most `limit` (0: as many as a frame takes)."""

    seq: Seq
    after: Name = ""
    limit: Count = 0


class ListExchanges(Frame, tag=19, frozen=True):
    """ExchangesListed: as ListQueues."""

    seq: Seq
    after: Name = ""
    limit: Count = 0


class ListBindings(Frame, tag=20, frozen=True):
    """BindingsListed: those that sort behind `after`. With a source, or a destination: of these alone."""

    seq: Seq
    source: Name = ""
    destination: Name = ""
    after: BindingInfo | None = None
    limit: Count = 0


class DeclareExchange(Frame, tag=13, frozen=True):
    """Ok. Passive: only the name counts."""

    seq: Seq
    definition: ExchangeDefinition
    passive: bool = False


class DeleteExchange(Frame, tag=14, frozen=True):
    """Ok."""

    seq: Seq
    exchange: Name
    if_unused: bool = False


class BindQueue(Frame, tag=15, frozen=True):
    """Ok."""

    seq: Seq
    queue: Name
    exchange: Name
    routing_key: Name = ""
    arguments: Arguments = field(default_factory=dict)


class UnbindQueue(Frame, tag=16, frozen=True):
    """Ok, also when there was no such binding."""

    seq: Seq
    queue: Name
    exchange: Name
    routing_key: Name = ""
    arguments: Arguments = field(default_factory=dict)


class BindExchange(Frame, tag=17, frozen=True):
    """Ok. What the source routes by this key goes to the destination, which routes it by its own bindings."""

    seq: Seq
    destination: Name
    source: Name
    routing_key: Name = ""
    arguments: Arguments = field(default_factory=dict)


class UnbindExchange(Frame, tag=18, frozen=True):
    """Ok, also when there was no such binding."""

    seq: Seq
    destination: Name
    source: Name
    routing_key: Name = ""
    arguments: Arguments = field(default_factory=dict)


# -- direct mode ------------------------------------------------------------------------------------


class Attach(Frame, tag=24, frozen=True):
    """Attached. The broker has noted the client's index for this queue before it answers."""

    seq: Seq
    queue: Name


class RenewBells(Frame, tag=25, frozen=True):
    """Bells of the current epoch."""

    seq: Seq
    queue: Name


class Detach(Frame, tag=26, frozen=True):
    """Ok. The client has nothing in this queue any more."""

    seq: Seq
    queue: Name


class Route(Frame, tag=27, frozen=True):
    """Routed: where messages with these keys go, for a client that publishes directly."""

    seq: Seq
    exchange: Name
    routing_key: Name
    more_keys: Names = field(default_factory=list)  # of CC and BCC


# -- publishing -------------------------------------------------------------------------------------


class Publish(Frame, tag=32, frozen=True):
    """Ok, by the confirm level; `seq` is 0 exactly where the level asks for no answer."""

    seq: Seq
    exchange: Name
    routing_key: Name
    envelope: EnvelopeBytes  # begins with exchange and routing_key, or is empty
    body: Body
    priority: Priority = 0
    flags: Flags = 0  # as in the core: PERSISTENT
    confirm: ConfirmLevel = CONFIRM_MEMORY
    mandatory: bool = False
    ttl_ns: TtlNs = -1
    delay_ns: TimeNs = 0
    timeout_ns: TimeNs = 0  # how long the broker may wait for room


class PublishMany(Frame, tag=33, frozen=True):
    """Counted, by the confirm level: how many were published, in order, before the first that was not."""

    seq: Seq
    exchange: Name
    routing_key: Name
    envelope: EnvelopeBytes
    bodies: Bodies
    priority: Priority = 0
    flags: Flags = 0
    confirm: ConfirmLevel = CONFIRM_MEMORY
    mandatory: bool = False
    ttl_ns: TtlNs = -1
    delay_ns: TimeNs = 0
    timeout_ns: TimeNs = 0


# -- consuming --------------------------------------------------------------------------------------


class Get(Frame, tag=40, frozen=True):
    """Got: as soon as there is one message, or none when max_wait_ns is over."""

    seq: Seq
    queue: Name
    max_messages: BatchSize = 1
    max_wait_ns: TimeNs = 0
    no_ack: bool = False
    channel: U32 = 0


class Consume(Frame, tag=41, frozen=True):
    """Consuming, then Deliver frames; direct: none, this client takes from the segment itself and is only counted."""

    seq: Seq
    queue: Name
    consumer_tag: Name = ""  # empty: the broker makes one
    prefetch: Prefetch = 0
    no_ack: bool = False
    exclusive: bool = False
    priority: Signed = 0
    ack_timeout_ns: TimeNs = 0  # 0: the queue's
    direct: bool = False
    channel: U32 = 0  # whose window holds beside the prefetch
    shares: Name = ""  # one prefetch for all consumers of this channel that give the same name


class Cancel(Frame, tag=42, frozen=True):
    """Ok. What was delivered stays unacked."""

    seq: Seq
    consumer_tag: Name


class CancelGet(Frame, tag=44, frozen=True):
    """A Get that waits, by its seq, is answered now, empty; one that has been answered stays so."""

    seq: Seq
    get: Seq


class SetPrefetch(Frame, tag=43, frozen=True):
    """Ok. One consumer's, or with an empty tag what all consumers of a channel may have unacked together."""

    seq: Seq
    prefetch: Prefetch
    consumer_tag: Name = ""
    channel: U32 = 0


class CloseChannel(Frame, tag=45, frozen=True):
    """Counted: its consumers end, its unacked go back to their places, its window is forgotten."""

    seq: Seq
    channel: U32


class Ack(Frame, tag=48, frozen=True):
    """Ok where seq is not 0. Multiple: these and all before the largest of them."""

    seq: Seq
    delivery_tags: DeliveryTags
    multiple: bool = False


class Nack(Frame, tag=49, frozen=True):
    """Ok where seq is not 0. Requeue: back in place, or after a delay; no failure is counted."""

    seq: Seq
    delivery_tags: DeliveryTags
    multiple: bool = False
    requeue: bool = True
    delay_ns: TimeNs = 0


class Reject(Frame, tag=50, frozen=True):
    """Ok where seq is not 0. Requeue counts a failure."""

    seq: Seq
    delivery_tags: DeliveryTags
    requeue: bool = False


class Recover(Frame, tag=51, frozen=True):
    """Counted: all unacked of a channel, or with 0 of the whole session, go back to their places."""

    seq: Seq
    channel: U32 = 0


class Touch(Frame, tag=52, frozen=True):
    """Ok where seq is not 0. The ack timeout ends extend_ns from now."""

    seq: Seq
    delivery_tags: DeliveryTags
    extend_ns: TimeNs
