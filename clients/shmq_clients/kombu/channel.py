"""A channel as Kombu uses it: publish, consume, get, settle.

Owns: callbacks by consumer tag, what is given back to a publisher, which of py-amqp's errors a call raises. Does not
own: tags and windows (shmq_clients.channel), topology (declaring.py), waiting (connection.py).
Invariants: an error leaves the channel usable; acks that come late or twice do nothing; `connection` is None once it is
closed, and nothing is written then.
"""

import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kombu.transport import base

from shmq.errors import AlreadySettled, InvalidArgument, NotFound, SessionError, ShmqError, StaleDelivery, Unroutable
from shmq_clients.kombu.batch import PublishBatch
from shmq_clients.kombu.declaring import Declaring
from shmq_clients.kombu.errors import cancelled, closed, speaks, translated
from shmq_clients.kombu.eta import held_for
from shmq_clients.kombu.message import Message, Prepared, plain, prepare
from shmq_clients.watch import Watched

if TYPE_CHECKING:
    from shmq_clients.kombu.connection import Connection

PUSHED_MAX: Final = 64  # handed out when a consumer is cancelled


class Consuming(NamedTuple):
    """What `basic_consume` was told, and the consumer it made."""

    consumer: Watched
    queue: str
    keywords: Mapping[str, Any]  # of `shmq.Channel.consume`


class Channel(Declaring, base.StdChannel):  # type: ignore[misc] # kombu has no types
    """Made by `Connection.channel`."""

    Message = Message
    supports_batch_publish = True

    def __init__(self, connection: "Connection", channel_id: int) -> None:
        self.connection: Connection | None = connection
        self.channel_id: int | None = channel_id
        self.events: defaultdict[str, set[Callable[..., object]]] = defaultdict(set)
        self.no_ack_consumers: set[str] = set()
        self.callbacks: dict[str, Callable[[Any], object] | None] = {}
        self.cancel_callbacks: dict[str, Callable[[str], object]] = {}
        self.active = True  # AMQP's flow
        self._prefetch = 0  # of each consumer
        self._consuming: dict[str, Consuming] = {}
        self._channel = connection.shmq.channel()

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self.connection is not None and self._channel.is_open

    def _check(self, method: str) -> "Connection":
        if self.connection is None:
            raise closed(method)
        return self.connection

    # -- publishing ---------------------------------------------------------------------------------------------------

    @speaks("Basic.publish")
    def prepare_message(
        self,
        body: Any,  # noqa: ANN401 - any buffer, or a str
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Prepared:
        """Return what `basic_publish` takes."""
        return prepare(body, priority, content_type, content_encoding, headers, properties or {})

    @speaks("Basic.publish")
    def basic_publish(
        self,
        msg: Prepared,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **_unknown: Any,  # noqa: ANN401 - what a later Kombu may say
    ) -> None:
        """Publish; the broker has it when this returns. `timeout`: seconds to wait for room, then the error says in
        which queue there is none. A task of Celery's that is due later is held by the broker until shortly before.
        """
        connection = self._check("Basic.publish")
        keywords = self._keywords(connection, msg, exchange, routing_key, timeout, confirm_timeout)
        if mandatory:
            keywords["mandatory"] = True
        try:
            _publish(connection.shmq.publish, msg.body, keywords)
        except Unroutable as error:
            self._return(translated(error, "Basic.return"), exchange, routing_key, msg)

    basic_publish_confirm = basic_publish

    def _keywords(
        self,
        connection: "Connection",
        message: Prepared,
        exchange: str = "",
        routing_key: str = "",
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **_unknown: Any,  # noqa: ANN401 - as basic_publish
    ) -> dict[str, Any]:
        """Return those of `shmq.Connection.publish`."""
        options = connection.options
        keywords = {
            **message.keywords,
            "exchange": str(exchange or ""),
            "routing_key": str(routing_key or ""),
            "timeout": timeout or confirm_timeout or options.publish_timeout,
            "confirm": options.confirm,
        }
        held = held_for(keywords["headers"], options.eta_lead, time.time())
        if held:
            keywords["delay"] = held
        return keywords

    def _return(self, error: Exception, exchange: str, routing_key: str, message: Prepared) -> None:
        handlers = self.events.get("basic_return")
        if not handlers:
            raise error
        for handle in list(handlers):
            handle(error, exchange, routing_key, message)

    @speaks("Basic.publish")
    def publish_together(self, messages: list[Prepared], how: Mapping[str, Any]) -> None:
        """Publish messages that differ in their bodies alone, with the arguments of `basic_publish`, in one call."""
        if len(messages) == 1 or how.get("mandatory"):
            for message in messages:
                self.basic_publish(message, **how)
            return
        connection = self._check("Basic.publish")
        keywords = self._keywords(connection, messages[0], **how)
        _publish(connection.shmq.publish_many, [message.body for message in messages], keywords)

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """For `Producer.batch()`: what is published in it goes together."""
        return PublishBatch(self, max_size)

    # -- consuming ----------------------------------------------------------------------------------------------------

    @speaks("Basic.consume")
    def basic_consume(
        self,
        queue: str = "",
        consumer_tag: str = "",
        no_local: bool = False,
        no_ack: bool = False,
        exclusive: bool = False,
        nowait: bool = False,
        callback: Callable[[Any], object] | None = None,
        arguments: Mapping[str, Any] | None = None,
        on_cancel: Callable[[str], object] | None = None,
    ) -> str:
        """Have messages of this queue given to `callback` while somebody drains events; returns the consumer tag."""
        self._check("Basic.consume")
        keywords = {"no_ack": bool(no_ack), "exclusive": bool(exclusive), "arguments": arguments}
        tag = self._consume(queue, consumer_tag, keywords)
        self.callbacks[tag] = callback
        if no_ack:
            self.no_ack_consumers.add(tag)
        if on_cancel is not None:
            self.cancel_callbacks[tag] = on_cancel
        if not self.active:
            self._channel.cancel(tag)
        return tag

    def _consume(self, queue: str, consumer_tag: str, keywords: Mapping[str, Any]) -> str:
        consumer: Any = self._channel.consume(queue, consumer_tag=consumer_tag, prefetch=self._prefetch, **keywords)
        tag: str = consumer.consumer_tag
        self._consuming[tag] = Consuming(consumer, queue, keywords)
        self._check("Basic.consume").watch(consumer, self)
        return tag

    @speaks("Basic.cancel")
    def basic_cancel(self, consumer_tag: str, nowait: bool = False) -> None:
        """End a consumer. RabbitMQ has pushed what was ready by then, and py-amqp hands it out first: so do we."""
        consuming = self._consuming.get(consumer_tag)
        if self.connection is None or consuming is None:
            return
        try:
            with contextlib.suppress(NotFound):  # its queue is gone, and it with it
                if self.active:
                    self._hand_out(consuming.consumer, no_ack=consumer_tag in self.no_ack_consumers)
        finally:
            self._forget(consumer_tag)
            with contextlib.suppress(NotFound):
                self._channel.cancel(consumer_tag)

    def _hand_out(self, consumer: Watched, *, no_ack: bool) -> None:
        """Up to PUSHED_MAX that are ready, but to who needs no ack only what the broker has pushed, which is all that
        would be lost.
        """
        is_pushed = consumer.queue is None
        if no_ack and not is_pushed:
            return
        for _ in itertools.repeat(None) if no_ack else itertools.repeat(None, PUSHED_MAX):
            message = consumer.take() if self.is_open else None
            if message is None:
                return
            self.deliver(consumer.consumer_tag, message)

    def deliver(self, consumer_tag: str, message: Any) -> None:  # noqa: ANN401 - a shmq.Message
        """Give a message to who consumes under this tag; back to its queue where nobody does any more."""
        callback = self.callbacks.get(consumer_tag)
        if callback is None:
            message.nack(requeue=True)
        else:
            callback(Message(message, self, {"consumer_tag": consumer_tag}))

    def end(self, consumer_tag: str, error: ShmqError) -> None:
        """The broker has ended this consumer: its queue is gone. Raises ConsumerCancelled where nobody is told."""
        on_cancel = self.cancel_callbacks.get(consumer_tag)
        self._forget(consumer_tag)
        if on_cancel is None:
            raise cancelled(consumer_tag, error)
        on_cancel(consumer_tag)

    def _forget(self, consumer_tag: str) -> None:
        consuming = self._consuming.pop(consumer_tag, None)
        if consuming is not None and self.connection is not None:
            self.connection.unwatch(consuming.consumer)
        self.no_ack_consumers.discard(consumer_tag)
        self.callbacks.pop(consumer_tag, None)
        self.cancel_callbacks.pop(consumer_tag, None)

    @speaks("Channel.flow")
    def flow(self, active: bool) -> None:
        """Stop or resume deliveries to the consumers of this channel."""
        self._check("Channel.flow")
        if active is self.active:
            return
        self.active = active
        for tag, consuming in list(self._consuming.items()):
            if active:
                self._consume(consuming.queue, tag, consuming.keywords)
            else:
                self._channel.cancel(tag)

    @speaks("Basic.qos")
    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool) -> None:
        """Set how many may be unacked, at once, also for consumers that are there: on the channel or (`a_global`
        false) of each consumer. 0: any number.
        """
        self._check("Basic.qos")
        if a_global:
            self._channel.qos(prefetch_count, prefetch_size)
            return
        self._prefetch = prefetch_count
        for consuming in self._consuming.values():
            consuming.consumer.set_prefetch(prefetch_count)

    @speaks("Basic.get")
    def basic_get(self, queue: str = "", no_ack: bool = False) -> base.Message | None:
        """Return a message that is there, or None."""
        connection = self._check("Basic.get")
        message = self._channel.get(queue, no_ack=bool(no_ack))
        if message is None:
            return None
        told = {"message_count": 0}
        try:
            told["message_count"] = connection.shmq.declare_queue(queue, passive=True).messages
        except ShmqError as error:  # the daemon may be away, and the message is the caller's already
            connection.shmq._link.failures.put_back(error)  # noqa: SLF001 - our own: nobody was told of it
        return Message(message, self, told)

    # -- settling -----------------------------------------------------------------------------------------------------

    @speaks("Basic.ack")
    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Ack this one, with `multiple` and all before it; what was settled before, or has gone back, is let be."""
        self._check("Basic.ack")
        with contextlib.suppress(AlreadySettled, StaleDelivery):
            self._channel.ack(delivery_tag, multiple)

    @speaks("Basic.nack")
    def basic_nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """Give back, or dead-letter; as `basic_ack`."""
        self._check("Basic.nack")
        with contextlib.suppress(AlreadySettled, StaleDelivery):
            self._channel.nack(delivery_tag, multiple, requeue)

    @speaks("Basic.reject")
    def basic_reject(self, delivery_tag: int, requeue: bool) -> None:
        """Dead-letter, or give back, counted as a failure; as `basic_ack`."""
        self._check("Basic.reject")
        with contextlib.suppress(AlreadySettled, StaleDelivery):
            self._channel.reject(delivery_tag, requeue)

    @speaks("Basic.recover")
    def basic_recover(self, requeue: bool = False) -> None:
        """Have all that is unacked here delivered again. `requeue` false is refused, as RabbitMQ does."""
        self._check("Basic.recover")
        self._channel.recover(requeue)

    basic_recover_async = basic_recover

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End its consumers, give back what is unacked. Idempotent; nothing is written for a parent process."""
        connection = self.connection
        if connection is None:
            return
        self.collect()
        if connection.connected:
            with contextlib.suppress(SessionError):  # then it is all given back anyway
                self._channel.close()

    def collect(self) -> None:
        """Let go of everything here, without telling the broker."""
        for tag in list(self._consuming):
            self._forget(tag)
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.forget(self.channel_id)
        self.channel_id = None
        for kept in (self.callbacks, self.cancel_callbacks, self.events, self.no_ack_consumers):
            kept.clear()


def _publish(publish: Callable[..., None], body: Any, keywords: dict[str, Any]) -> None:  # noqa: ANN401 - any buffer
    """Publish, once more with plain headers where ours have types of somebody's own."""
    try:
        publish(body, **keywords)
    except InvalidArgument as error:
        if error.argument != "headers":
            raise
        publish(body, **{**keywords, "headers": plain(keywords["headers"])})
