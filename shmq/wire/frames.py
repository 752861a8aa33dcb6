"""Every frame of the protocol, and the two unions: what a client sends, what the broker sends.

A frame is a MessagePack array: its tag, then its fields in the order of its struct. Within one protocol number a field
may be added at the end, with a default; readers ignore what stands behind the last field they know. Tags 1 to 63 are
the client's, 64 to 127 the broker's; a tag is never used again. What each frame means and how it is answered is in
docs/PROTOCOL.md; framing, limits and states are not here.
"""

from typing import Final

from shmq.wire.answers import (
    Attached,
    Bells,
    BindingsListed,
    Blocked,
    Cancelled,
    Closing,
    Consuming,
    Counted,
    Deliver,
    Error,
    ExchangesListed,
    Got,
    Ok,
    Presence,
    QueueDeclared,
    QueueInspected,
    QueuesListed,
    Routed,
    StatusReport,
    Unblocked,
    Welcome,
)
from shmq.wire.fields import Alarm, BindingInfo, Delivery, Frame, Latency, ProcessInfo, QueueInfo, Resume
from shmq.wire.requests import (
    CONFIRM_DISK,
    CONFIRM_MEMORY,
    CONFIRM_NONE,
    CONFIRM_SENT,
    MAGIC,
    Ack,
    Attach,
    BindExchange,
    BindQueue,
    Cancel,
    CancelGet,
    CloseChannel,
    Consume,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    Detach,
    Get,
    Goodbye,
    Hello,
    InspectQueue,
    ListBindings,
    ListExchanges,
    ListQueues,
    Nack,
    Ping,
    Publish,
    PublishMany,
    PurgeQueue,
    Recover,
    Reject,
    RenewBells,
    Route,
    SetPrefetch,
    Status,
    Touch,
    UnbindExchange,
    UnbindQueue,
)

__all__ = [
    "BODY_FRAMES",
    "CONFIRM_DISK",
    "CONFIRM_MEMORY",
    "CONFIRM_NONE",
    "CONFIRM_SENT",
    "MAGIC",
    "Ack",
    "Alarm",
    "Attach",
    "Attached",
    "Bells",
    "BindExchange",
    "BindQueue",
    "BindingInfo",
    "BindingsListed",
    "Blocked",
    "BrokerFrame",
    "Cancel",
    "CancelGet",
    "Cancelled",
    "ClientFrame",
    "CloseChannel",
    "Closing",
    "Consume",
    "Consuming",
    "Counted",
    "DeclareExchange",
    "DeclareQueue",
    "DeleteExchange",
    "DeleteQueue",
    "Deliver",
    "Delivery",
    "Detach",
    "Error",
    "ExchangesListed",
    "Frame",
    "Get",
    "Goodbye",
    "Got",
    "Hello",
    "InspectQueue",
    "Latency",
    "ListBindings",
    "ListExchanges",
    "ListQueues",
    "Nack",
    "Ok",
    "Ping",
    "Presence",
    "ProcessInfo",
    "Publish",
    "PublishMany",
    "PurgeQueue",
    "QueueDeclared",
    "QueueInfo",
    "QueueInspected",
    "QueuesListed",
    "Recover",
    "Reject",
    "RenewBells",
    "Resume",
    "Route",
    "Routed",
    "SetPrefetch",
    "Status",
    "StatusReport",
    "Touch",
    "UnbindExchange",
    "UnbindQueue",
    "Unblocked",
    "Welcome",
]

ClientFrame = (
    Hello
    | Goodbye
    | Ping
    | Status
    | DeclareQueue
    | DeleteQueue
    | PurgeQueue
    | InspectQueue
    | ListQueues
    | ListExchanges
    | ListBindings
    | DeclareExchange
    | DeleteExchange
    | BindQueue
    | UnbindQueue
    | BindExchange
    | UnbindExchange
    | Attach
    | RenewBells
    | Detach
    | Route
    | Publish
    | PublishMany
    | Get
    | Consume
    | Cancel
    | CancelGet
    | SetPrefetch
    | CloseChannel
    | Ack
    | Nack
    | Reject
    | Recover
    | Touch
)
BrokerFrame = (
    Welcome
    | Closing
    | Error
    | Blocked
    | Unblocked
    | Presence
    | Ok
    | Counted
    | QueueDeclared
    | QueueInspected
    | QueuesListed
    | ExchangesListed
    | BindingsListed
    | StatusReport
    | Attached
    | Bells
    | Routed
    | Consuming
    | Got
    | Deliver
    | Cancelled
)
BODY_FRAMES: Final = (Publish, PublishMany, Got, Deliver)
"""These may be as large as a body; all others are control frames."""
