"""Which permission each frame of a client needs: one table, asked before the frame is acted on.

Owns: that table. Does not own: who has which permission (permissions.py), what a frame does. Of a publish it is asked
where it is made (publishing.py calls `check_publish`), because its refusal has ways of its own.
Invariants: every frame of a client is in the table; whether a queue or an exchange exists is looked at only for a
client that may know it. What an exchange routes on, and where dead letters go, is not asked again, as in RabbitMQ.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from shmq import message
from shmq.errors import BodyTooLarge, DirectRefused, NotFound, PublishRejected, QueueFull, ShmFull, ShmqError
from shmq.message import decode_envelope
from shmq.names import GENERATED_PREFIX, REPLY_TO
from shmq.routing.addressing import address
from shmq.wire import frames as wire
from shmq_daemon.permissions import Access, Verb
from shmq_daemon.routing import KEYS_IN_HEADERS
from shmq_daemon.topology import Topology

USER_ID: Final = b"user_id"  # in the envelope of whatever has one

Check = Callable[[Access, Any], None]
QueueFrame = wire.DeleteQueue | wire.PurgeQueue | wire.InspectQueue | wire.Detach | wire.Get | wire.Consume


class Gate:
    """Asks for what a frame needs."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._checks: Final[Mapping[type, Check]] = {
            wire.DeclareQueue: self._declare_queue,
            wire.DeleteQueue: _on_queue("configure"),
            wire.PurgeQueue: _on_queue("read"),
            wire.InspectQueue: _sees_queue,
            wire.ListQueues: _nothing,  # these show what their client may see
            wire.ListExchanges: _nothing,
            wire.ListBindings: _nothing,
            wire.DeclareExchange: self._declare_exchange,
            wire.DeleteExchange: lambda access, frame: access.check("configure", "exchange", frame.exchange),
            wire.BindQueue: _bind,
            wire.UnbindQueue: _bind,
            wire.BindExchange: _bind_exchange,
            wire.UnbindExchange: _bind_exchange,
            wire.Attach: _direct,
            wire.RenewBells: _direct,
            wire.Detach: _sees_queue,
            wire.Route: _route,
            wire.Get: _on_queue("read"),
            wire.Consume: _consume,
            **dict.fromkeys(NEEDS_NOTHING, _nothing),
        }

    def check(self, access: Access, frame: wire.ClientFrame) -> None:
        """Raise AccessRefused, for direct mode DirectRefused."""
        if not access.full:
            self._checks[type(frame)](access, frame)

    def _declare_queue(self, access: Access, frame: wire.DeclareQueue) -> None:
        definition = frame.definition
        name = definition.name or GENERATED_PREFIX
        if frame.passive:
            access.check_sees("queue", name)
            return
        access.check("configure", "queue", name)
        exchange = definition.dead_letter_exchange
        if exchange is not None and name not in self._topology.queues:
            access.check_forward("queue", name, exchange, definition.dead_letter_routing_key)

    def _declare_exchange(self, access: Access, frame: wire.DeclareExchange) -> None:
        name, alternate = frame.definition.name, frame.definition.alternate_exchange
        if not name:
            return  # the default exchange is there for everybody, and can't be declared
        if frame.passive:
            access.check_sees("exchange", name)
            return
        access.check("configure", "exchange", name)
        if alternate is not None and name not in self._topology.exchanges:
            access.check_forward("exchange", name, alternate)


NEEDS_NOTHING: Final = (
    wire.Hello,
    wire.Goodbye,
    wire.Ping,
    wire.Status,  # shows the alarms of what its client may see
    wire.Publish,  # asked about in publishing.py
    wire.PublishMany,
    wire.Cancel,  # what follows is about deliveries and consumers that the client has
    wire.CancelGet,
    wire.SetPrefetch,
    wire.CloseChannel,
    wire.Ack,
    wire.Nack,
    wire.Reject,
    wire.Recover,
    wire.Touch,
)


def check_publish(access: Access, frame: wire.Publish | wire.PublishMany) -> None:
    """Raise AccessRefused, InvalidArgument. To the default exchange, keys in the headers CC and BCC name queues too."""
    if access.full:
        return
    keys: tuple[str, ...] = (frame.routing_key,)
    if not frame.exchange and KEYS_IN_HEADERS in frame.envelope:
        headers = decode_envelope(frame.envelope, frame.routing_key).headers
        keys = address(frame.routing_key, headers, frame.envelope).keys
    access.check_publish(frame.exchange, keys)


def check_user_id(uid: int, frame: wire.Publish | wire.PublishMany) -> None:
    """Raise PreconditionFailed for a message that says it is somebody else's; InvalidArgument."""
    if USER_ID in frame.envelope:
        properties = decode_envelope(frame.envelope, frame.routing_key).properties
        message.check_user_id(properties.user_id, str(uid))


def without_hidden(error: ShmqError, access: Access) -> ShmqError:
    """Return what a publisher is told, without names of queues that it may not know of: exchanges led there."""
    if isinstance(error, QueueFull | BodyTooLarge | ShmFull) and error.queue and not access.sees(error.queue):
        return replace(error, queue="")
    if isinstance(error, PublishRejected):
        return replace(error, queues=[name for name in error.queues if access.sees(name)])
    if isinstance(error, NotFound) and error.kind == "queue" and not access.sees(error.name):
        return NotFound("a queue that it was routed to is gone")
    return error


def _nothing(_access: Access, _frame: wire.ClientFrame) -> None:
    """Everybody may who was admitted."""


def _on_queue(verb: Verb) -> Check:
    def check(access: Access, frame: QueueFrame) -> None:
        access.check(verb, "queue", frame.queue)

    return check


def _sees_queue(access: Access, frame: QueueFrame) -> None:
    access.check_sees("queue", frame.queue)


def _consume(access: Access, frame: wire.Consume) -> None:
    if frame.queue != REPLY_TO:
        access.check("read", "queue", frame.queue)


def _bind(access: Access, frame: wire.BindQueue | wire.UnbindQueue) -> None:
    access.check("write", "queue", frame.queue)
    access.check("read", "exchange", frame.exchange)


def _bind_exchange(access: Access, frame: wire.BindExchange | wire.UnbindExchange) -> None:
    access.check("write", "exchange", frame.destination)
    access.check("read", "exchange", frame.source)


def _route(access: Access, frame: wire.Route) -> None:
    access.check_publish(frame.exchange, (frame.routing_key, *frame.more_keys))


def _direct(access: Access, frame: wire.Attach | wire.RenewBells) -> None:
    """Refused so, the client asks for the same over the socket, and hears there which permission it lacks."""
    reason = access.why_not_direct(frame.queue)
    if reason:
        raise DirectRefused(queue=frame.queue, reason=reason)
