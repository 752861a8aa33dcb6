"""One delivery in either mode: what the envelope says, and in socket mode the settling by frames.

Owns: the two message classes. Does not own: the segment (core.Message does the work of the direct one), the session.
Invariants: envelopes come from other processes and are decoded at each use, never trusted, never cached; a socket
delivery is settled once, and only in the session that handed it out.
"""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from shmq.core._core import PERSISTENT, Ledger
from shmq.core._core import Message as CoreMessage
from shmq.errors import AlreadySettled, InvalidArgument, StaleDelivery
from shmq.message import Envelope, Headers, Properties, Sender, decode_envelope
from shmq.wire.fields import Delivery
from shmq_clients.durations import SECOND_NS, nanoseconds
from shmq_clients.flags import check_flags

DELIVERY_COUNT_HEADER: Final = "x-delivery-count"  # as RabbitMQ's quorum queues: absent until something failed


def _sender(known: tuple[int, int, int] | None) -> Sender | None:
    return known and Sender._make(known)


class Enveloped:
    """What follows from the envelope and the fixed fields; the same in both modes."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def envelope(self) -> bytes: ...
        @property
        def flags(self) -> int: ...
        @property
        def failure_count(self) -> int: ...
        @property
        def sequence(self) -> int: ...

    @property
    def queue_name(self) -> str:
        """The queue that this delivery came from."""
        raise NotImplementedError

    def _decoded(self) -> Envelope:
        return decode_envelope(self.envelope, self.queue_name)

    @property
    def exchange(self) -> str:
        return self._decoded().exchange

    @property
    def routing_key(self) -> str:
        return self._decoded().routing_key

    @property
    def properties(self) -> Properties:
        return self._decoded().properties

    @property
    def headers(self) -> Headers:
        """As published, and `x-delivery-count` once a delivery of this message has failed."""
        headers = self._decoded().headers
        if self.failure_count:
            headers[DELIVERY_COUNT_HEADER] = self.failure_count
        return headers

    @property
    def persistent(self) -> bool:
        return bool(self.flags & PERSISTENT)

    @property
    def message_id(self) -> str | None:
        return self.properties.message_id

    @property
    def correlation_id(self) -> str | None:
        return self.properties.correlation_id

    @property
    def reply_to(self) -> str | None:
        return self.properties.reply_to

    @property
    def content_type(self) -> str | None:
        return self.properties.content_type

    @property
    def content_encoding(self) -> str | None:
        return self.properties.content_encoding

    @property
    def type(self) -> str | None:
        return self.properties.type

    @property
    def user_id(self) -> str | None:
        return self.properties.user_id

    @property
    def app_id(self) -> str | None:
        return self.properties.app_id

    @property
    def expiration(self) -> int | None:
        """Milliseconds, as published."""
        return self.properties.expiration

    @property
    def timestamp(self) -> datetime | None:
        """As published, with time zone UTC."""
        stamp = self.properties.timestamp
        return None if stamp is None else datetime.fromtimestamp(stamp, UTC)

    @property
    def published_at(self) -> datetime:
        """When the message was published: the monotonic stamp it carries, read against today's wall clock."""
        return datetime.fromtimestamp(time.time() - (time.monotonic_ns() - self.sequence) / SECOND_NS, UTC)


class DirectMessage(CoreMessage, Enveloped):
    """A delivery whose settling is one compare-and-swap in the segment."""

    __slots__ = ()

    @property
    def queue_name(self) -> str:
        name: str = self.queue.context
        return name

    @property
    def sender(self) -> Sender | None:
        return _sender(super().sender)

    def nack(self, requeue: bool = True, delay: float | None = None) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        check_given_back(requeue, delay)
        CoreMessage.nack(self, requeue, delay)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        check_flags(requeue=requeue)
        CoreMessage.reject(self, requeue)

    def touch(self, extend: float) -> None:
        nanoseconds(extend, "extend")
        CoreMessage.touch(self, extend)


def check_given_back(requeue: bool, delay: float | None) -> int:  # noqa: FBT001 - as nack takes it
    """Return the delay in nanoseconds. Raises InvalidArgument."""
    check_flags(requeue=requeue)
    delay_ns = 0 if delay is None else nanoseconds(delay, "delay")
    if delay_ns and not requeue:
        raise InvalidArgument(argument="delay", value=delay, allowed="only with requeue=True: the dead are not delayed")
    return delay_ns


class Settling(Protocol):
    """What a socket delivery needs of the session that handed it out. Of one: raises also what an earlier call was
    refused for, when it is said.
    """

    def ack(self, delivery_tag: int) -> None: ...
    def ack_all(self, delivery_tags: list[int]) -> None: ...
    def nack(self, delivery_tag: int, requeue: bool, delay_ns: int) -> None: ...  # noqa: FBT001 - AMQP's form
    def nack_all(self, delivery_tags: list[int], *, requeue: bool, delay_ns: int) -> None: ...
    def reject(self, delivery_tag: int, requeue: bool) -> None: ...  # noqa: FBT001 - AMQP's form
    def reject_all(self, delivery_tags: list[int], *, requeue: bool) -> None: ...
    def touch(self, delivery_tag: int, extend: float) -> None: ...
    def hands_out(self) -> bool:
        """Whether deliveries of this session can still be settled."""

    def is_of(self, session: object) -> bool:
        """Whether it is this session's."""

    def check(self) -> None:
        """Raise ForkedHandle in a forked child, ConnectionClosed after close()."""


class SocketMessage(Enveloped):
    """A delivery that came in a frame and is settled by one."""

    __slots__ = ("_counted", "_delivery", "_ledger", "_queue_name", "_session", "_state", "_tag")

    def __init__(self, delivery: Delivery, queue_name: str, session: Settling, *, no_ack: bool) -> None:
        self._delivery = delivery
        self._queue_name = queue_name
        self._session = session
        self._state = "auto" if no_ack else "unacked"
        self._ledger: Ledger | None = None  # until it is settled
        self._tag = 0
        self._counted = False

    def enter(self, ledger: Ledger, *, counted: bool) -> None:
        """It is handed out on a channel: `counted`: against its prefetch."""
        is_unacked = self._state == "unacked"
        self._tag = ledger.enter(self if is_unacked else None, counted)
        if is_unacked:
            self._ledger, self._counted = ledger, counted

    def __repr__(self) -> str:
        return f"<SocketMessage {self.broker_tag} of {self._queue_name!r}, {self.body_bytes} bytes, {self._state}>"

    @property
    def queue_name(self) -> str:
        return self._queue_name

    @property
    def session(self) -> Settling:
        """Where it is settled."""
        return self._session

    def is_of(self, session: object) -> bool:
        """Whether it came in this session."""
        return self._session.is_of(session)

    @property
    def delivery_tag(self) -> int:
        return self._tag

    @property
    def broker_tag(self) -> int:
        """What it is called in frames."""
        return self._delivery.delivery_tag

    @property
    def body(self) -> bytes:
        return self._delivery.body

    @property
    def body_bytes(self) -> int:
        return len(self._delivery.body)

    @property
    def envelope(self) -> bytes:
        return self._delivery.envelope

    @property
    def priority(self) -> int:
        return self._delivery.priority

    @property
    def sender(self) -> Sender | None:
        return _sender(self._delivery.sender)

    @property
    def flags(self) -> int:
        return self._delivery.flags

    @property
    def redelivered(self) -> bool:
        return self._delivery.delivery_count > 1

    @property
    def delivery_count(self) -> int:
        return self._delivery.delivery_count

    @property
    def failure_count(self) -> int:
        return self._delivery.failure_count

    @property
    def sequence(self) -> int:
        return self._delivery.sequence

    @property
    def expires_ns(self) -> int:
        return self._delivery.expires_ns

    @property
    def state(self) -> str:
        """'unacked', 'acked', 'nacked', 'rejected', 'stale', 'auto' (no_ack)."""
        return self._state

    @property
    def is_current(self) -> bool:
        """As far as this end knows."""
        return self._state == "unacked" and self._session.hands_out()

    def view(self) -> memoryview:
        """The body; a copy in this mode."""
        return memoryview(self._delivery.body)

    def ack(self) -> None:
        if self.begin_settling("acked"):
            self._session.ack(self.broker_tag)

    def nack(self, requeue: bool = True, delay: float | None = None) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        delay_ns = check_given_back(requeue, delay)
        self.begin_settling("nacked")
        self._session.nack(self.broker_tag, requeue, delay_ns)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        check_flags(requeue=requeue)
        self.begin_settling("rejected")
        self._session.reject(self.broker_tag, requeue)

    def touch(self, extend: float) -> None:
        self._check_unsettled()
        self._session.touch(self.broker_tag, extend)

    def begin_settling(self, state: str) -> bool:
        """Mark it settled, or raise AlreadySettled, StaleDelivery. False: acked at delivery, as is wanted now."""
        if self._state == "auto" and state == "acked":
            return False
        self._check_unsettled()
        self.end(state)
        return True

    def end(self, state: str) -> None:
        """It is settled, or stale, whoever did it."""
        self._state = state
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.leave(self._tag, self._counted)

    def _check_unsettled(self) -> None:
        self._session.check()
        if self._state == "stale" or (self._state == "unacked" and not self._session.hands_out()):
            self.end("stale")
            raise StaleDelivery
        if self._state != "unacked":
            raise AlreadySettled(f"this delivery was {self._state} before")
