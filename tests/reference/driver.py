"""What a case says to a broker, and what it hears: what RabbitMQ and shmq have in common, in AMQP's words.

Owns: the contract of the two drivers, and how long a case waits. Does not own: how a broker is spoken to (by_pika,
by_shmq), what is compared (record).
Invariants: a refusal is the reply code of AMQP 0-9-1, or "nack" where a publish was not confirmed; every wait ends.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from support.deadline import scaled

Table = Mapping[str, Any]

COMES: Final = 10.0  # seconds within which what must come has come
REPLY_TO: Final = "amq.rabbitmq.reply-to"
QUIET: Final = 0.25  # seconds after which nothing comes any more; what is compared is never shorter


class Refused(Exception):  # noqa: N818 - says what is the case
    """The broker said no, with this reply code."""

    def __init__(self, code: int | str, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class Declared(NamedTuple):
    """AMQP's declare-ok."""

    name: str
    messages: int
    consumers: int


@dataclass(frozen=True)
class Arrived:
    """A delivery. `settle` takes AMQP's word and its flags."""

    body: str
    exchange: str
    routing_key: str
    headers: dict[str, Any]
    redelivered: bool
    priority: int
    expiration: int | None
    tag: int
    reply_to: str
    settle: Callable[..., None] = field(compare=False, repr=False)

    def ack(self, *, multiple: bool = False) -> None:
        self.settle("ack", multiple=multiple)

    def nack(self, *, multiple: bool = False, requeue: bool = True) -> None:
        self.settle("nack", multiple=multiple, requeue=requeue)

    def reject(self, *, requeue: bool = False) -> None:
        self.settle("reject", requeue=requeue)


class Receiving(Protocol):
    """A consumer."""

    def take(self, count: int) -> list[Arrived]:
        """Wait for so many deliveries, and return what came until then."""

    def rest(self, at_least: int = 0) -> list[Arrived]:
        """Wait for so many, if they must come, and return all that comes until nothing comes any more."""

    def cancel(self) -> None: ...
    def is_cancelled(self) -> bool:
        """Wait for the broker to say that the consumer is no more; whether it did."""


class Made:
    """The names that a connection declared, so that a case leaves nothing behind."""

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self.exchanges: set[str] = set()

    def clean(self, broker: "Broker") -> None:
        """Delete them; what is gone, or was never there, is fine."""
        for name in self.queues:
            with suppress(Refused):
                broker.delete_queue(name)
        for name in self.exchanges:
            with suppress(Refused):
                broker.delete_exchange(name)


class Broker(Protocol):
    """A connection. Every call raises Refused, and one that was refused leaves the next ones as they were."""

    def declare_queue(
        self,
        name: str = "",
        arguments: Table | None = None,
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        passive: bool = False,
    ) -> Declared: ...
    def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> int: ...
    def purge_queue(self, name: str) -> int: ...
    def declare_exchange(
        self,
        name: str,
        kind: str = "direct",
        arguments: Table | None = None,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        passive: bool = False,
    ) -> None: ...
    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None: ...
    def bind_queue(self, queue: str, exchange: str, key: str = "", arguments: Table | None = None) -> None: ...
    def unbind_queue(self, queue: str, exchange: str, key: str = "", arguments: Table | None = None) -> None: ...
    def bind_exchange(self, destination: str, source: str, key: str = "", arguments: Table | None = None) -> None: ...
    def unbind_exchange(self, destination: str, source: str, key: str = "", arguments: Table | None = None) -> None: ...
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
        """Publish and wait for the confirm. Properties: priority, expiration (milliseconds)."""

    def request(self, body: str, key: str) -> None:
        """Publish what wants a direct reply, on the channel that consumes."""

    def get(self, queue: str, *, no_ack: bool = False) -> Arrived | None: ...
    def consume(
        self,
        queue: str,
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
        tag: str = "",
        priority: int = 0,
    ) -> Receiving: ...
    def consume_again(self, queue: str, tag: str) -> None:
        """Begin to consume with a tag that is in use."""

    def settle(self, tag: int, how: str, **flags: bool) -> None:
        """Settle by a tag, whosever it is: `how` is AMQP's word."""

    def recover(self, *, requeue: bool = True) -> None:
        """Give back all that is unacked on this channel."""

    def qos(self, prefetch: int, *, size: int = 0) -> None:
        """Set the window of this channel, over all its consumers."""

    def another(self) -> "Broker":
        """Return another connection to the same broker; it ends with the case."""

    def close(self) -> None:
        """Close it, with the others, and delete what they declared."""


def waits() -> float:
    """Seconds for what must come."""
    return scaled(COMES)
