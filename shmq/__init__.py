"""What both sides of shmq share, and its front door: `shmq.connect` and `shmq.connect_async`, `shmq.local`, the errors,
the types of messages.

    with shmq.connect() as conn:                        # or of a private broker: with shmq.local() as url
        conn.declare_queue("jobs")
        conn.publish(b"body", routing_key="jobs")
        for message in conn.consume("jobs", prefetch=8):
            message.ack()

All calls are methods of `shmq.Connection`; it hands out `shmq.Message`, and every error is a `shmq.ShmqError`.
The client is loaded when it is first asked for, so that the daemon, which imports this package too, never loads it.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from shmq._version import __version__
from shmq.errors import (
    AccessRefused,
    AlreadyRunning,
    AlreadySettled,
    BodyReleased,
    BodyTooLarge,
    ConfigError,
    ConnectionClosed,
    ConnectionLost,
    DaemonNotRunning,
    DetachedQueue,
    DirectRefused,
    ForkedHandle,
    FrameError,
    FrameTooLarge,
    HandleError,
    InternalError,
    InvalidArgument,
    InvalidName,
    LayoutMismatch,
    LocalFrameError,
    NotAllowed,
    NotDurable,
    NotFound,
    NotShmqd,
    NotSupported,
    OperationTimeout,
    PreconditionFailed,
    ProtocolMismatch,
    PublishError,
    PublishRejected,
    QueueFull,
    QueueStopped,
    RemoteFrameError,
    ResourceLocked,
    SegmentDamaged,
    SessionError,
    ShmFull,
    ShmqError,
    StaleDelivery,
    Unroutable,
    ViewsInUse,
)
from shmq.message import AsyncMessage, Headers, Message, Properties, Sender

if TYPE_CHECKING:
    from shmq_clients.aio.connection import AsyncConnection, connect_async
    from shmq_clients.connection import Connection, connect
    from shmq_clients.local import local

__all__ = [
    "AccessRefused",
    "AlreadyRunning",
    "AlreadySettled",
    "AsyncConnection",
    "AsyncMessage",
    "BodyReleased",
    "BodyTooLarge",
    "ConfigError",
    "Connection",
    "ConnectionClosed",
    "ConnectionLost",
    "DaemonNotRunning",
    "DetachedQueue",
    "DirectRefused",
    "ForkedHandle",
    "FrameError",
    "FrameTooLarge",
    "HandleError",
    "Headers",
    "InternalError",
    "InvalidArgument",
    "InvalidName",
    "LayoutMismatch",
    "LocalFrameError",
    "Message",
    "NotAllowed",
    "NotDurable",
    "NotFound",
    "NotShmqd",
    "NotSupported",
    "OperationTimeout",
    "PreconditionFailed",
    "Properties",
    "ProtocolMismatch",
    "PublishError",
    "PublishRejected",
    "QueueFull",
    "QueueStopped",
    "RemoteFrameError",
    "ResourceLocked",
    "SegmentDamaged",
    "Sender",
    "SessionError",
    "ShmFull",
    "ShmqError",
    "StaleDelivery",
    "Unroutable",
    "ViewsInUse",
    "__version__",
    "connect",
    "connect_async",
    "local",
]

_CLIENT: Final = {
    "AsyncConnection": "shmq_clients.aio.connection",
    "Connection": "shmq_clients.connection",
    "connect": "shmq_clients.connection",
    "connect_async": "shmq_clients.aio.connection",
    "local": "shmq_clients.local",
}


if not TYPE_CHECKING:  # so that a type checker still finds misspelt names

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the client calls so
        """Load the client on first use (PEP 562)."""
        if name not in _CLIENT:
            raise AttributeError(f"module 'shmq' has no attribute {name!r}")
        value = getattr(importlib.import_module(_CLIENT[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
