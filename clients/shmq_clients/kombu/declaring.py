"""Queues, exchanges and bindings in AMQP's calls, as Kombu makes them.

Owns: AMQP's arguments and defaults (py-amqp's), what a redeclare with other arguments means here. Does not own: what
the arguments do. `nowait` is accepted everywhere: a call is answered before it returns, and then says nothing.
"""

from collections.abc import Mapping
from typing import Any, Protocol, cast

from amqp import exceptions as amqp
from amqp.protocol import queue_declare_ok_t
from kombu.log import get_logger
from kombu.transport.base import to_rabbitmq_queue_arguments

from shmq.definitions import EXCHANGE_TYPES
from shmq.errors import PreconditionFailed
from shmq_clients.connection import Connection as ShmqConnection
from shmq_clients.kombu.errors import closed, speaks
from shmq_clients.kombu.options import Options
from shmq_clients.topology import DeclaredQueue

logger = get_logger("kombu.transport.shmq")


class Owner(Protocol):
    """The low-level connection, as far as it matters here."""

    shmq: ShmqConnection
    options: Options


class Declaring:
    """The part of a channel that declares, binds and deletes."""

    connection: Any  # an Owner; None once closed

    def _shmq(self, method: str) -> ShmqConnection:
        if self.connection is None:
            raise closed(method)
        return cast("Owner", self.connection).shmq

    # -- exchanges ----------------------------------------------------------------------------------------------------

    @speaks("Exchange.declare")
    def exchange_declare(
        self,
        exchange: str,
        type: str = "direct",  # noqa: A002 - AMQP's word
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an exchange or check that it is the same. Raises PreconditionFailed, NotFound (passive)."""
        if type not in EXCHANGE_TYPES:
            raise amqp.InvalidCommand(
                f"unknown exchange type {type!r}: {', '.join(EXCHANGE_TYPES)}",
                method_name="Exchange.declare",
                reply_code=503,
            )
        flags = {"durable": bool(durable), "auto_delete": bool(auto_delete), "passive": bool(passive)}
        self._shmq("Exchange.declare").declare_exchange(exchange, type, arguments=arguments, **flags)  # type: ignore[arg-type] # flags only

    @speaks("Exchange.delete")
    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange; fine when there is none, as RabbitMQ has it."""
        self._shmq("Exchange.delete").delete_exchange(exchange, if_unused=bool(if_unused))

    @speaks("Exchange.bind")
    def exchange_bind(
        self,
        destination: str,
        source: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Let one exchange pass on to another."""
        self._shmq("Exchange.bind").bind_exchange(destination, source, routing_key, arguments=arguments)

    @speaks("Exchange.unbind")
    def exchange_unbind(
        self,
        destination: str,
        source: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take that back."""
        self._shmq("Exchange.unbind").unbind_exchange(destination, source, routing_key, arguments=arguments)

    # -- queues -------------------------------------------------------------------------------------------------------

    def prepare_queue_arguments(self, arguments: Mapping[str, Any], **keywords: Any) -> Any:  # noqa: ANN401 - Kombu's
        """Return RabbitMQ's `x-` arguments for Kombu's keywords (seconds become milliseconds)."""
        return to_rabbitmq_queue_arguments(arguments, **keywords)

    @speaks("Queue.declare")
    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - a queue_declare_ok_t, which has no types
        """Make a queue, or say what is in it. Raises NotFound (passive), ResourceLocked."""
        shmq = self._shmq("Queue.declare")
        if passive:
            declared = shmq.declare_queue(queue, passive=True)
        else:
            flags = {"durable": bool(durable), "exclusive": bool(exclusive), "auto_delete": bool(auto_delete)}
            declared = self._declare(shmq, queue, flags, arguments)
        return None if nowait else queue_declare_ok_t(*declared)

    def _declare(
        self, shmq: ShmqConnection, queue: str, flags: Mapping[str, bool], arguments: Mapping[str, Any] | None
    ) -> DeclaredQueue:
        """As asked for; else as it is: a channel error here would end a Celery worker."""
        try:
            return shmq.declare_queue(queue, arguments=arguments, **flags)  # type: ignore[arg-type] # flags only
        except PreconditionFailed as error:
            if type(error) is not PreconditionFailed or cast("Owner", self.connection).options.strict_declare:
                raise
            logger.warning("%s. It stays as it is, and is used so", error)
            return shmq.declare_queue(queue, passive=True)

    @speaks("Queue.bind")
    def queue_bind(
        self,
        queue: str,
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Let an exchange route this key to the queue."""
        self._shmq("Queue.bind").bind_queue(queue, exchange, routing_key, arguments=arguments)

    @speaks("Queue.unbind")
    def queue_unbind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take that back."""
        self._shmq("Queue.unbind").unbind_queue(queue, exchange, routing_key, arguments=arguments)

    @speaks("Queue.bind")
    def get_bindings(self) -> list[dict[str, Any]]:
        """Return all bindings, as RabbitMQ's management API has them."""
        return [
            {
                "source": one.source,
                "vhost": "/",
                "destination": one.destination,
                "destination_type": "exchange" if one.to_exchange else "queue",
                "routing_key": one.routing_key,
                "arguments": one.arguments,
            }
            for one in self._shmq("Queue.bind").bindings()
        ]

    @speaks("Queue.purge")
    def queue_purge(self, queue: str = "", nowait: bool = False) -> int | None:
        """Drop what is ready and say how many that were."""
        count = self._shmq("Queue.purge").purge_queue(queue)
        return None if nowait else count

    @speaks("Queue.delete")
    def queue_delete(
        self,
        queue: str = "",
        if_unused: bool = False,
        if_empty: bool = False,
        nowait: bool = False,
    ) -> int | None:
        """Delete a queue and say how many messages went with it; none where there is no such queue, as RabbitMQ."""
        shmq = self._shmq("Queue.delete")
        count = shmq.delete_queue(queue, if_unused=bool(if_unused), if_empty=bool(if_empty))
        return None if nowait else count
