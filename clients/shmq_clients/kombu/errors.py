"""Our errors as those that Kombu and Celery know: py-amqp's, and OSError where nobody answers.

Owns: which is which. Kombu retries what is recoverable, so what another try would not change must not look so; a
channel stays usable after a channel error. Does not own: texts, which stay ours.
"""

import errno
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar, cast

from amqp import exceptions as amqp
from kombu.exceptions import OperationalError

from shmq.errors import (
    AccessRefused,
    BodyTooLarge,
    DaemonNotRunning,
    DirectRefused,
    HandleError,
    InternalError,
    InvalidArgument,
    LayoutMismatch,
    NotAllowed,
    NotDurable,
    NotFound,
    NotSupported,
    OperationTimeout,
    PreconditionFailed,
    ProtocolMismatch,
    PublishRejected,
    QueueFull,
    ResourceLocked,
    SessionError,
    ShmFull,
    ShmqError,
    Unroutable,
)

P = ParamSpec("P")
T = TypeVar("T")


class TaskTooLargeError(amqp.PreconditionFailed, OperationalError):  # type: ignore[misc] # neither has types
    """406, as RabbitMQ has it (311 is for consumers' limits), and what callers of `apply_async` are told to expect."""


class NoRoomError(amqp.IrrecoverableChannelError, OperationalError):  # type: ignore[misc] # neither has types
    """506 after having waited; the 506 of py-amqp would connect again. For callers of `apply_async`, too."""


_AMQP: Final[Mapping[type[ShmqError], tuple[type[amqp.AMQPError], int]]] = {
    ProtocolMismatch: (amqp.IrrecoverableConnectionError, 0),
    LayoutMismatch: (amqp.IrrecoverableConnectionError, 0),
    SessionError: (amqp.RecoverableConnectionError, 0),
    HandleError: (amqp.RecoverableConnectionError, 0),
    AccessRefused: (amqp.AccessRefused, 403),
    DirectRefused: (amqp.AccessRefused, 403),
    NotFound: (amqp.NotFound, 404),
    ResourceLocked: (amqp.ResourceLocked, 405),
    PreconditionFailed: (amqp.PreconditionFailed, 406),
    BodyTooLarge: (TaskTooLargeError, 406),
    Unroutable: (amqp.ChannelError, 312),
    QueueFull: (NoRoomError, 506),
    ShmFull: (NoRoomError, 506),
    NotAllowed: (amqp.NotAllowed, 530),
    NotDurable: (amqp.AMQPNotImplementedError, 540),
    NotSupported: (amqp.AMQPNotImplementedError, 540),
    InternalError: (amqp.InternalError, 541),
}


def translated(error: ShmqError, method: str = "") -> Exception:
    """Return what to raise instead. `method`: AMQP's name of what was asked for, as `Queue.declare`."""
    if isinstance(error, PublishRejected):
        return cast("Exception", amqp.MessageNacked(str(error)))
    for kind in type(error).__mro__:
        if kind in _AMQP:
            as_amqp, code = _AMQP[kind]
            break
    else:
        as_amqp, code = amqp.ChannelError, error.code or 0
    return cast("Exception", as_amqp(str(error), method_name=method, reply_code=code))


def unreachable(error: ShmqError) -> Exception:
    """Return what to raise where no connection comes about: an OSError, except for what trying again can't change."""
    if isinstance(error, DaemonNotRunning):
        return ConnectionRefusedError(errno.ECONNREFUSED, str(error))
    if isinstance(error, OperationTimeout):
        return TimeoutError(errno.ETIMEDOUT, str(error))
    if isinstance(error, AccessRefused | DirectRefused):
        return PermissionError(errno.EACCES, str(error))
    if isinstance(error, InvalidArgument):
        return ValueError(str(error))
    if isinstance(error, ProtocolMismatch | LayoutMismatch):
        return translated(error)
    return ConnectionError(errno.ECONNABORTED, str(error))


def speaks(method: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a method of a channel raise py-amqp's errors; `method` is its name in AMQP."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(call)
        def spoken(*args: P.args, **keywords: P.kwargs) -> T:
            try:
                return call(*args, **keywords)
            except ShmqError as error:
                raise translated(error, method) from error

        return spoken

    return decorate


def closed(method: str = "") -> amqp.RecoverableConnectionError:
    """Return the error for a channel or connection that is no longer ours to use."""
    return amqp.RecoverableConnectionError("connection already closed", method_name=method)


def cancelled(consumer_tag: str, error: Any) -> amqp.ConsumerCancelled:  # noqa: ANN401 - a ShmqError or None
    """Return the error for a consumer that the broker has ended and nobody asked to be told of."""
    return amqp.ConsumerCancelled(f"{consumer_tag}: {error}", method_name="Basic.cancel")
