"""What the broker sends, one struct a frame. The rules are those of `shmq.wire.frames`."""

from typing import Literal

from msgspec import field

from shmq.definitions import QueueDefinition
from shmq.wire.fields import (
    U32,
    Alarms,
    BindingPage,
    Code,
    Count,
    Deliveries,
    Descriptors,
    ErrorData,
    ExchangePage,
    Frame,
    Geometry,
    Identity,
    Name,
    Names,
    Owner,
    Processes,
    QueueInfo,
    QueuePage,
    RoutedBindings,
    RoutedExchanges,
    Secret,
    Seq,
    Signed,
    Text,
    Totals,
    TtlNs,
    Words,
)

# -- the session ------------------------------------------------------------------------------------


class Welcome(Frame, tag=64, frozen=True):
    """Answers Hello. Descriptors, if any: the supervisor's bell, the segment of generation words."""

    protocol: U32
    layout: U32
    version: Name
    instance: Name
    connection_id: Name
    secret: Secret
    client_index: Owner
    durability: Literal["memory", "disk"] = "memory"
    resumed: bool = False
    direct: bool = False
    reason: Text = ""  # why not direct
    words: Count = 0  # generation words in that segment
    descriptors: Descriptors = 0
    sender: Identity | None = None  # who this client is to the kernel: signs what it publishes


class Closing(Frame, tag=65, frozen=True):
    """The last frame of the broker: the answer to Goodbye (code 200), or why the session ends. Never changes."""

    code: Code
    text: Text = ""
    data: ErrorData = field(default_factory=dict)


class Error(Frame, tag=66, frozen=True):
    """The request `seq` failed (0: one that wanted no answer). The session goes on."""

    seq: Seq
    code: Code
    text: Text = ""
    data: ErrorData = field(default_factory=dict)


class Blocked(Frame, tag=67, frozen=True):
    """An alarm holds up publishers."""

    reason: Text = ""


class Unblocked(Frame, tag=68, frozen=True):
    """All alarms are clear."""


class Presence(Frame, tag=69, frozen=True):
    """Comes behind the Welcome of a new session, for a client that keeps it. Descriptors: the presence file, in which
    two bytes from `position` on are locked: let go of both at the end, or of the first where the end is not clean.
    """

    position: Count
    descriptors: Descriptors = 1


# -- answers ----------------------------------------------------------------------------------------


class Ok(Frame, tag=72, frozen=True):
    """Done."""

    seq: Seq


class Counted(Frame, tag=73, frozen=True):
    """Done, with a number of messages."""

    seq: Seq
    count: Count


class QueueDeclared(Frame, tag=74, frozen=True):
    """AMQP's declare-ok."""

    seq: Seq
    queue: Name
    messages: Count
    consumers: Count


class QueueInspected(Frame, tag=75, frozen=True):
    """Answers InspectQueue."""

    seq: Seq
    queue: QueueInfo


class QueuesListed(Frame, tag=76, frozen=True):
    """Answers ListQueues. More: ask again, after the last name of this one."""

    seq: Seq
    queues: QueuePage
    more: bool = False


class ExchangesListed(Frame, tag=78, frozen=True):
    """Answers ListExchanges, as QueuesListed."""

    seq: Seq
    exchanges: ExchangePage
    more: bool = False


class BindingsListed(Frame, tag=79, frozen=True):
    """Answers ListBindings. More: ask again, after the last one."""

    seq: Seq
    bindings: BindingPage
    more: bool = False


class StatusReport(Frame, tag=77, frozen=True):
    """Answers Status. `totals`: counters and gauges of the instance by name."""

    seq: Seq
    version: Name
    protocol: U32
    layout: U32
    instance: Name
    durability: Name
    uptime_ns: Count
    processes: Processes
    alarms: Alarms
    totals: Totals


class Attached(Frame, tag=80, frozen=True):
    """Answers Attach. Descriptors: the segment, the consumers' bell, the producers' bell."""

    seq: Seq
    definition: QueueDefinition
    queue_id: Count
    geometry: Geometry
    epoch: Count
    delivery_limit: Signed  # effective; -1: none
    message_ttl_ns: TtlNs  # effective; -1: none
    descriptors: Descriptors = 3


class Bells(Frame, tag=81, frozen=True):
    """Answers RenewBells. Descriptors: the consumers' bell, the producers' bell."""

    seq: Seq
    queue_id: Count
    epoch: Count
    descriptors: Descriptors = 2


class Routed(Frame, tag=82, frozen=True):
    """Answers Route. Valid while each of the words has its value; not direct: publish through the broker. With
    exchanges each message is to be routed by them (shmq.routing.compiled).
    """

    seq: Seq
    queues: Names
    words: Words
    direct: bool = True
    delayed: Names = field(default_factory=list)  # only through an exchange that delays
    exchanges: RoutedExchanges = field(default_factory=list)
    bindings: RoutedBindings = field(default_factory=list)
    any_key: bool = False  # it is the same for all keys


class Consuming(Frame, tag=83, frozen=True):
    """Answers Consume."""

    seq: Seq
    consumer_tag: Name
    queue: Name = ""  # where it is another one than was asked for: that of direct replies


class Got(Frame, tag=84, frozen=True):
    """Answers Get."""

    seq: Seq
    deliveries: Deliveries


# -- unasked ----------------------------------------------------------------------------------------


class Deliver(Frame, tag=96, frozen=True):
    """Messages for one consumer."""

    consumer_tag: Name
    deliveries: Deliveries


class Cancelled(Frame, tag=97, frozen=True):
    """This consumer gets no more: its queue is gone."""

    consumer_tag: Name
    reason: Text = ""
