"""shmq, spoken to through its blocking client.

Owns: connections, and a thread for each consumer, which takes what its prefetch allows as if it were pushed. Errors
become the reply codes that AMQP 0-9-1 has for them.
"""

import functools
import queue as queues
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

import shmq
from reference.driver import QUIET, REPLY_TO, Arrived, Declared, Made, Refused, Table, waits
from shmq_clients.channel import Channel

Mode = Literal["auto", "socket"]
FIRST_OF_OURS: Final = 600
REFUSED_BY_A_QUEUE: Final = "nack"


def reply_code(error: shmq.ShmqError) -> int | str:
    """The code of the class, or where that is our own, of the nearest class above that AMQP knows."""
    if isinstance(error, shmq.PublishRejected):
        return REFUSED_BY_A_QUEUE
    codes = [vars(kind).get("code") or FIRST_OF_OURS for kind in type(error).__mro__]
    return next((code for code in codes if code < FIRST_OF_OURS), type(error).__name__)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except shmq.ShmqError as error:
        raise Refused(reply_code(error), str(error)) from None


class ShmqReceiving:
    """Deliveries of one consumer, in the order they came."""

    def __init__(self, consumer: Any, channel: Channel, connection: shmq.Connection) -> None:
        self._consumer = consumer
        self._channel = channel
        self._connection = connection
        self._came: queues.SimpleQueue[Arrived] = queues.SimpleQueue()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        try:
            for message in self._consumer:
                self._came.put(_arrived(message, self._channel, self._connection))
        except shmq.NotFound:
            self._cancelled.set()
        except (shmq.ConnectionClosed, shmq.DetachedQueue):
            return

    def take(self, count: int) -> list[Arrived]:
        return list(self._until(time.monotonic() + waits(), count))

    def rest(self, at_least: int = 0) -> list[Arrived]:
        return [*self.take(at_least), *self._until(time.monotonic() + QUIET, 1 << 20)]

    def _until(self, end: float, count: int) -> Iterator[Arrived]:
        with suppress(queues.Empty):
            for _ in range(count):
                yield self._came.get(timeout=max(end - time.monotonic(), 0.001))

    def cancel(self) -> None:
        self._consumer.cancel()
        self._thread.join(waits())

    def is_cancelled(self) -> bool:
        return self._cancelled.wait(QUIET)


class ShmqBroker:
    """One connection to a private shmqd."""

    def __init__(self, url: str, mode: Mode) -> None:
        self._url = url
        self._mode: Mode = mode
        self._others: list[ShmqBroker] = []
        self._made = Made()
        self._connection = shmq.connect(url, mode=mode, timeout=waits())
        self._channel = self._connection.channel()

    # -- topology -----------------------------------------------------------------------------------------------------

    def declare_queue(self, name: str = "", arguments: Table | None = None, **flags: bool) -> Declared:
        self._made.queues.add(name)
        with _refusals():
            return Declared(*self._connection.declare_queue(name, arguments=arguments, **flags))  # type: ignore[arg-type] # flags all

    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        with _refusals():
            return self._connection.delete_queue(name, if_unused=if_unused, if_empty=if_empty)

    def purge_queue(self, name: str) -> int:
        with _refusals():
            return self._connection.purge_queue(name)

    def declare_exchange(self, name: str, kind: str = "direct", arguments: Table | None = None, **flags: bool) -> None:
        self._made.exchanges.add(name)
        with _refusals():
            self._connection.declare_exchange(name, kind, arguments=arguments, **flags)  # type: ignore[arg-type] # as above

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        with _refusals():
            self._connection.delete_exchange(name, if_unused=if_unused)

    def bind_queue(self, queue: str, exchange: str, key: str = "", arguments: Table | None = None) -> None:
        with _refusals():
            self._connection.bind_queue(queue, exchange, key, arguments=arguments)

    def unbind_queue(self, queue: str, exchange: str, key: str = "", arguments: Table | None = None) -> None:
        with _refusals():
            self._connection.unbind_queue(queue, exchange, key, arguments=arguments)

    def bind_exchange(self, destination: str, source: str, key: str = "", arguments: Table | None = None) -> None:
        with _refusals():
            self._connection.bind_exchange(destination, source, key, arguments=arguments)

    def unbind_exchange(self, destination: str, source: str, key: str = "", arguments: Table | None = None) -> None:
        with _refusals():
            self._connection.unbind_exchange(destination, source, key, arguments=arguments)

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
        with _refusals():
            self._connection.publish(
                body.encode(),
                exchange=exchange,
                routing_key=key,
                headers=headers,
                mandatory=mandatory,
                confirm="memory",
                timeout=waits(),
                **properties,
            )

    def request(self, body: str, key: str) -> None:
        with _refusals():
            self._channel.publish(body.encode(), routing_key=key, reply_to=REPLY_TO, confirm="memory")

    def get(self, queue: str, *, no_ack: bool = False) -> Arrived | None:
        with _refusals():
            message = self._channel.get(queue, no_ack=no_ack)
        return None if message is None else _arrived(message, self._channel, self._connection)

    def consume(
        self,
        queue: str,
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
        tag: str = "",
        priority: int = 0,
    ) -> ShmqReceiving:
        with _refusals():
            consumer = self._channel.consume(
                queue, prefetch=prefetch, no_ack=no_ack, exclusive=exclusive, consumer_tag=tag, priority=priority
            )
        return ShmqReceiving(consumer, self._channel, self._connection)

    def consume_again(self, queue: str, tag: str) -> None:
        self.consume(queue, tag=tag)

    def settle(self, tag: int, how: str, **flags: bool) -> None:
        with _refusals():
            getattr(self._channel, how)(tag, **flags)
            self._connection.wait_for_confirms(waits())

    def recover(self, *, requeue: bool = True) -> None:
        with _refusals():
            self._channel.recover(requeue=requeue)

    def qos(self, prefetch: int, *, size: int = 0) -> None:
        with _refusals():
            self._channel.qos(prefetch, size)

    def another(self) -> "ShmqBroker":
        self._others.append(ShmqBroker(self._url, self._mode))
        return self._others[-1]

    def close(self) -> None:
        for other in self._others:
            other.close()
        self._made.clean(self)
        self._connection.close()


def _arrived(message: shmq.Message, channel: Channel, connection: shmq.Connection) -> Arrived:
    return Arrived(
        body=bytes(message.body).decode(),
        exchange=message.exchange,
        routing_key=message.routing_key,
        headers=dict(message.headers),
        redelivered=message.redelivered,
        priority=message.priority,
        expiration=message.expiration,
        tag=message.delivery_tag,
        reply_to=message.reply_to or "",
        settle=functools.partial(_settle, message, channel, connection),
    )


def _settle(message: shmq.Message, channel: Channel, connection: shmq.Connection, how: str, **flags: bool) -> None:
    """Settle, several by their tags, and wait until it has taken effect."""
    several = flags.pop("multiple", False)
    with _refusals():
        if several:
            getattr(channel, how)(message.delivery_tag, multiple=True, **flags)
        else:
            getattr(message, how)(**flags)
        connection.wait_for_confirms(waits())
