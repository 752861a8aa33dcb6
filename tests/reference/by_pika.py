"""RabbitMQ, spoken to through pika.

Owns: connections and channels. Messages are got and consumed on one channel, as the calls of one shmq connection are;
what may be refused is asked on a channel of its own, because a refusal closes it.
"""

import functools
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pika
from pika import data, exceptions, spec

from reference.driver import QUIET, REPLY_TO, Arrived, Declared, Made, Refused, Table, waits

T = TypeVar("T")
SLICE = 0.02
_encode_value = data.encode_value


def _encode_double_too(pieces: list[bytes], value: Any) -> int:
    """pika reads doubles in tables (AMQP 0-9-1, section 4.2.1, type "d"), and can't write them."""
    if not isinstance(value, float):
        size: int = _encode_value(pieces, value)
        return size
    pieces.append(struct.pack(">cd", b"d", value))
    return len(pieces[-1])


data.encode_value = _encode_double_too


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as closed:
        raise Refused(closed.reply_code, closed.reply_text) from None
    except exceptions.UnroutableError as returned:
        raise Refused(returned.messages[0].method.reply_code, "returned") from None
    except exceptions.NackError:
        raise Refused("nack", "not confirmed") from None


class PikaReceiving:
    """Deliveries of one consumer, in the order they came."""

    def __init__(self, broker: "PikaBroker", channel: Any) -> None:
        self._broker = broker
        self._channel = channel
        self._came: list[Arrived] = []
        self._cancelled = False
        self.tag = ""

    def on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._came.append(_arrived(channel, method, properties, body))

    def on_cancel(self, _frame: Any) -> None:
        self._cancelled = True

    def take(self, count: int) -> list[Arrived]:
        self._broker.pump(lambda: len(self._came) >= count, waits())
        return self._all(count)

    def rest(self, at_least: int = 0) -> list[Arrived]:
        self._broker.pump(lambda: len(self._came) >= at_least, waits())
        self._broker.pump(lambda: False, QUIET)
        return self._all(len(self._came))

    def _all(self, count: int) -> list[Arrived]:
        taken, self._came = self._came[:count], self._came[count:]
        return taken

    def cancel(self) -> None:
        self._channel.basic_cancel(self.tag)

    def is_cancelled(self) -> bool:
        self._broker.pump(lambda: self._cancelled, QUIET)
        return self._cancelled


class PikaBroker:
    """One connection to a RabbitMQ on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._others: list[PikaBroker] = []
        self._made = Made()
        self._open()

    def _open(self) -> None:
        parameters = pika.ConnectionParameters(
            "127.0.0.1", self._port, heartbeat=0, blocked_connection_timeout=waits(), socket_timeout=waits()
        )
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        self._confirming = self._confirms()

    @contextmanager
    def _on_channel(self) -> Iterator[Any]:
        """The channel of messages; one that a refusal closed is opened again, and what it held is in its queues."""
        if self._channel.is_closed:
            self._channel = self._connection.channel()
        with _refusals():
            yield self._channel

    def _confirms(self) -> Any:
        channel = self._connection.channel()
        channel.confirm_delivery()
        return channel

    def _ask(self, request: Callable[[Any], Any]) -> Any:
        """Ask on a channel of its own; a connection that a refusal closed is opened again."""
        try:
            with _refusals():
                channel = self._connection.channel()
                answer = request(channel)
                channel.close()
                return answer
        finally:
            if self._connection.is_closed:
                self._open()

    def pump(self, ended: Callable[[], bool], seconds: float) -> None:
        """Take what comes in, until the end or so long."""
        end = time.monotonic() + seconds
        while not ended() and time.monotonic() < end:
            self._connection.process_data_events(SLICE)

    # -- topology -----------------------------------------------------------------------------------------------------

    def declare_queue(self, name: str = "", arguments: Table | None = None, **flags: bool) -> Declared:
        self._made.queues.add(name)
        flags.setdefault("durable", True)
        if flags.get("passive"):
            flags = {"passive": True}
        answer = self._ask(lambda channel: channel.queue_declare(name, arguments=arguments, **flags)).method
        return Declared(answer.queue, answer.message_count, answer.consumer_count)

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        count: int = self._ask(lambda channel: channel.queue_delete(name, if_unused, if_empty)).method.message_count
        return count

    def purge_queue(self, name: str) -> int:
        count: int = self._ask(lambda channel: channel.queue_purge(name)).method.message_count
        return count

    def declare_exchange(self, name: str, kind: str = "direct", arguments: Table | None = None, **flags: bool) -> None:
        self._made.exchanges.add(name)
        flags.setdefault("durable", True)
        self._ask(lambda channel: channel.exchange_declare(name, kind, arguments=arguments, **flags))

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        self._ask(lambda channel: channel.exchange_delete(name, if_unused))

    def bind_queue(self, queue: str, exchange: str, key: str = "", arguments: Table | None = None) -> None:
        self._ask(lambda channel: channel.queue_bind(queue, exchange, key, arguments))

    def unbind_queue(self, queue: str, exchange: str, key: str = "", arguments: Table | None = None) -> None:
        self._ask(lambda channel: channel.queue_unbind(queue, exchange, key, arguments))

    def bind_exchange(self, destination: str, source: str, key: str = "", arguments: Table | None = None) -> None:
        self._ask(lambda channel: channel.exchange_bind(destination, source, key, arguments))

    def unbind_exchange(self, destination: str, source: str, key: str = "", arguments: Table | None = None) -> None:
        self._ask(lambda channel: channel.exchange_unbind(destination, source, key, arguments))

    # -- messages -----------------------------------------------------------------------------------------------------

    def publish(
        self,
        body: str,
        key: str = "",
        exchange: str = "",
        headers: Table | None = None,
        *,
        mandatory: bool = False,
        **properties: Any,
    ) -> None:
        if "expiration" in properties:
            properties["expiration"] = str(properties["expiration"])
        given = pika.BasicProperties(headers=None if headers is None else dict(headers), **properties)
        try:
            with _refusals():
                self._confirming.basic_publish(exchange, key, body.encode(), given, mandatory)
        finally:
            if not self._confirming.is_open:
                self._confirming = self._confirms()

    def request(self, body: str, key: str) -> None:
        with self._on_channel() as channel:
            channel.basic_publish("", key, body.encode(), pika.BasicProperties(reply_to=REPLY_TO))
            channel.flow(active=True)

    def get(self, queue: str, *, no_ack: bool = False) -> Arrived | None:
        with self._on_channel() as channel:
            method, properties, body = channel.basic_get(queue, no_ack)
        return None if method is None else _arrived(channel, method, properties, body)

    def consume(
        self,
        queue: str,
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
        tag: str = "",
        priority: int = 0,
    ) -> PikaReceiving:
        arguments = {"x-priority": priority} if priority else None
        with self._on_channel() as channel:
            receiving = PikaReceiving(self, channel)
            channel.add_on_cancel_callback(receiving.on_cancel)
            channel.basic_qos(prefetch_count=prefetch)
            receiving.tag = channel.basic_consume(
                queue, receiving.on_message, no_ack, exclusive, tag or None, arguments
            )
        return receiving

    def consume_again(self, queue: str, tag: str) -> None:
        """Said by hand, because pika itself would refuse."""
        with self._on_channel() as channel:
            channel._impl._send_method(spec.Basic.Consume(queue=queue, consumer_tag=tag))
            self.pump(lambda: False, waits())

    def settle(self, tag: int, how: str, **flags: bool) -> None:
        with self._on_channel() as channel:
            _settle(channel, tag, how, **flags)

    def recover(self, *, requeue: bool = True) -> None:
        with self._on_channel() as channel:
            channel.basic_recover(requeue)

    def qos(self, prefetch: int, *, size: int = 0) -> None:
        try:
            with self._on_channel() as channel:
                channel.basic_qos(size, prefetch, global_qos=True)
        finally:
            if self._connection.is_closed:
                self._open()

    def another(self) -> "PikaBroker":
        self._others.append(PikaBroker(self._port))
        return self._others[-1]

    def close(self) -> None:
        for other in self._others:
            other.close()
        if self._connection.is_closed:
            self._open()
        self._made.clean(self)
        self._connection.close()


def _arrived(channel: Any, method: Any, properties: Any, body: bytes) -> Arrived:
    return Arrived(
        body=body.decode(),
        exchange=method.exchange,
        routing_key=method.routing_key,
        headers=dict(properties.headers or {}),
        redelivered=method.redelivered,
        priority=properties.priority or 0,
        expiration=None if properties.expiration is None else int(properties.expiration),
        tag=method.delivery_tag,
        reply_to=properties.reply_to or "",
        settle=functools.partial(_settle, channel, method.delivery_tag),
    )


def _settle(channel: Any, delivery_tag: int, how: str, **flags: bool) -> None:
    """A refusal closes the channel; it comes as the answer to the next request there."""
    with _refusals():
        getattr(channel, f"basic_{how}")(delivery_tag, **flags)
        channel.flow(active=True)
