"""What a session hands out in socket mode: deliveries and their settling, and a consumer that outlives sessions.

Owns: deliveries that were pushed and not yet handed out. Does not own: the link, which sessions there are
(socket_path.py).
Invariants: a delivery is settled in the session it came in or not at all; `deliver` and `cancelled` are called by
whoever reads and never wait.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from msgspec.structs import replace

from shmq.core._core import Ledger
from shmq.errors import ConnectionLost, NotFound, ShmqError, StaleDelivery
from shmq.limits import BATCH_MESSAGES_MAX
from shmq.wire.fields import Delivery
from shmq.wire.frames import Ack, Consume, Consuming, Deliver, Nack, Reject, Touch
from shmq_clients.durations import nanoseconds
from shmq_clients.link import Link
from shmq_clients.message import SocketMessage
from shmq_clients.session import Answer, Session


def tell_of_room(ledger: Ledger | None, tell: Callable[[], object]) -> None:
    """Tell somebody whenever this ledger, or one that it stands in, has room again."""
    while ledger is not None:
        ledger.on_room = tell
        ledger = ledger.parent


class Deliveries:
    """Settles the deliveries of one session."""

    message_type: ClassVar[type[SocketMessage]] = SocketMessage

    def __init__(self, link: Link, session: Session) -> None:
        self._link = link
        self._session = session

    def messages(self, deliveries: Iterable[Delivery], queue: str, *, no_ack: bool) -> list[SocketMessage]:
        """Return them as an application sees them."""
        return [self.message_type(delivery, queue, self, no_ack=no_ack) for delivery in deliveries]

    def hands_out(self) -> bool:
        return self._session.ended is None and not self._link.closed

    def is_of(self, session: object) -> bool:
        return self._session is session

    def check(self) -> None:
        self._link.check()

    def ack_all(self, delivery_tags: list[int]) -> None:
        self._say(Ack(0, part) for part in _parts(delivery_tags))

    def nack_all(self, delivery_tags: list[int], *, requeue: bool, delay_ns: int) -> None:
        self._say(Nack(0, part, requeue=requeue, delay_ns=delay_ns) for part in _parts(delivery_tags))

    def reject_all(self, delivery_tags: list[int], *, requeue: bool) -> None:
        self._say(Reject(0, part, requeue=requeue) for part in _parts(delivery_tags))

    def ack(self, delivery_tag: int) -> None:
        self._say_one(Ack(0, [delivery_tag]))

    def nack(self, delivery_tag: int, requeue: bool, delay_ns: int) -> None:  # noqa: FBT001 - AMQP's form
        self._say_one(Nack(0, [delivery_tag], requeue=requeue, delay_ns=delay_ns))

    def reject(self, delivery_tag: int, requeue: bool) -> None:  # noqa: FBT001 - AMQP's form
        self._say_one(Reject(0, [delivery_tag], requeue=requeue))

    def touch(self, delivery_tag: int, extend: float) -> None:
        self._say_one(Touch(0, [delivery_tag], nanoseconds(extend, "extend")))

    def _say(self, frames: Iterable[Ack | Nack | Reject | Touch]) -> None:
        try:
            for frame in frames:
                self._link.say_in(self._session, frame)
        except ConnectionLost as error:
            raise StaleDelivery from error

    def _say_one(self, frame: Ack | Nack | Reject | Touch) -> None:
        """Say it, then raise what an earlier call was refused for: the delivery is settled either way."""
        try:
            self._link.say_in(self._session, frame)
        except ConnectionLost as error:
            raise StaleDelivery from error
        self._link.raise_failures()


def _parts(delivery_tags: list[int]) -> Iterator[list[int]]:
    """Yield as many at a time as one frame takes."""
    for start in range(0, len(delivery_tags), BATCH_MESSAGES_MAX):
        yield delivery_tags[start : start + BATCH_MESSAGES_MAX]


class Subscription:
    """One consumer at the broker, over all sessions. `check` raises what ended it. `ledger`: its channel's, if any."""

    def __init__(self, consume: Consume, read_on: Callable[[], object], ledger: Ledger | None = None) -> None:
        self.consume = consume
        self.reply_queue = ""  # of direct replies
        self._ledger = ledger
        self.tell: Callable[[], object] = bool  # called when there is news, by whoever reads
        self._read_on = read_on
        self._ready: deque[SocketMessage] = deque()
        self._error: ShmqError | None = None
        self._answer: Answer | None = None
        self._session: Session | None = None
        self._deliveries: Deliveries | None = None
        self._is_forgotten = False

    # Called by whoever reads.
    def deliver(self, frame: Deliver) -> None:
        assert self._deliveries is not None
        if self._is_forgotten:
            return
        queue, no_ack = self._queue_name(), self.consume.no_ack
        self._ready.extend(self._deliveries.messages(frame.deliveries, queue, no_ack=no_ack))
        self.tell()

    def _queue_name(self) -> str:
        """Where deliveries come from: for direct replies the queue that the broker made, told before the first one."""
        answer = self._answer
        if answer is not None and answer.done and isinstance(answer.frame, Consuming):
            return answer.frame.queue or self.consume.queue
        return self.reply_queue or self.consume.queue

    def cancelled(self, reason: str) -> None:
        self._error = NotFound(reason and f"queue {self.consume.queue!r}: {reason}", name=self.consume.queue)
        self.tell()

    def begin(self, session: Session, deliveries: Deliveries) -> None:
        """Consume in this session, without waiting for the answer."""
        self._lose_pushed()
        self._session, self._deliveries = session, deliveries
        session.sinks[self.consume.consumer_tag] = self
        _, self._answer = session.begin(self._frame, self._read_on)
        self._answer.tell = self.tell

    def _frame(self, seq: int) -> Consume:
        return replace(self.consume, seq=seq)

    def recovered(self) -> None:
        """The broker has taken back all that it had pushed until now."""
        self._lose_pushed()

    def _lose_pushed(self) -> None:
        """What is here and not handed out is the queue's again; what needs no ack is nobody's but ours, and stays."""
        if not self.consume.no_ack:
            self._ready.clear()

    # Called by the consumer.
    def take(self) -> SocketMessage | None:
        """Return the next delivery, if one is here and may be handed out."""
        if self._ready and self.has_room:
            return self._first()
        if not self._ready:
            self.check()
        return None

    def _first(self) -> SocketMessage:
        message = self._ready.popleft()
        if self._ledger is not None:
            message.enter(self._ledger, counted=True)
        return message

    @property
    def has_room(self) -> bool:
        """Whether its channel lets it hand out more."""
        return self._ledger is None or self.consume.no_ack or self._ledger.has_room

    def on_room(self, tell: Callable[[], object]) -> None:
        """Tell somebody when its channel has room again."""
        tell_of_room(self._ledger, tell)

    @property
    def waits_for_room(self) -> bool:
        """Whether something is here that may not be handed out yet."""
        return bool(self._ready) and not self.has_room

    def check(self) -> None:
        """Raise what ended this consumer, if anything has."""
        answer = self._answer
        if answer is not None and answer.done:
            self._answer = None
            if isinstance(answer.frame, Consuming):
                self.reply_queue = answer.frame.queue
            if not isinstance(answer.error, ConnectionLost):  # the next session consumes again
                self._error = self._error or answer.error
        if self._error is not None:
            raise self._error

    @property
    def is_over(self) -> bool:
        """Whether the broker has ended it."""
        return self._error is not None

    def has_news(self) -> bool:
        if self._ready:
            return self.has_room
        return self._error is not None or (self._answer is not None and self._answer.done)

    def is_answered(self) -> bool:
        return self._answer is None or self._answer.done

    def rest(self) -> SocketMessage | None:
        """Return the next delivery, if one is here, whatever ended this consumer."""
        return self._first() if self._ready else None

    def end(self) -> None:
        """Take the sink away; what was pushed and not handed out goes back. What needs no ack can't: it stays in
        `rest`, and what is still on its way comes there too.
        """
        session = self._session
        if session is None or session.ended is not None or self.consume.no_ack:
            return
        session.sinks.pop(self.consume.consumer_tag, None)
        session.orphans.extend(message.broker_tag for message in self._ready)
        self._ready.clear()

    def ended(self) -> None:
        """The broker has answered: nothing is on its way any more."""
        session = self._session
        if session is not None and session.sinks.get(self.consume.consumer_tag) is self:
            del session.sinks[self.consume.consumer_tag]

    def forget(self) -> None:
        """As `end`, when nobody will wait for the answer, and nobody wants the rest."""
        self.end()
        self._is_forgotten = True
        self._ready.clear()
