"""What a channel knows without asking anybody: its unacked deliveries by their tags, its window; alike in all clients.

Owns: which deliveries a tag, or a tag and all before it, means; what is told of one that is not there; the window and
who is told when it changes. Does not own: settling (settling.py), waiting, consumers.
Invariants: tags count up from 1 in the order of handing out and are never used again; the window holds here in both
modes, and for what is pushed at the broker, too; deliveries that came in frames are a lost session's no longer.
"""

import contextlib
import weakref
from collections.abc import Callable
from typing import Any, Final

from shmq.core import _core as core
from shmq.core._core import Message as CoreMessage
from shmq.errors import (
    AlreadySettled,
    ConnectionClosed,
    InvalidArgument,
    NotAllowed,
    NotSupported,
    ShmqError,
    StaleDelivery,
)
from shmq.limits import CHANNELS_MAX, SEQ_MAX
from shmq.wire.frames import SetPrefetch, Welcome
from shmq_clients.asked import check_prefetch
from shmq_clients.flags import check_flags
from shmq_clients.link import Link
from shmq_clients.message import SocketMessage
from shmq_clients.session import Session
from shmq_clients.settling import nack_all

CLOSED: Final = "this channel was closed with close(); open another one: connection.channel()"


class Numbered:
    """Of one channel. `ledgers`: those of all channels of the connection, by number."""

    def __init__(self, link: Link, ledgers: dict[int, core.Ledger]) -> None:
        self.link = link
        self.ledger = core.Ledger()
        self.number = _lowest_free(ledgers)
        self.is_closed = False
        self._ledgers = ledgers
        self._stale: frozenset[int] = frozenset()
        ledgers[self.number] = self.ledger
        link.on_welcome.insert(0, _weakly(self._on_welcome))

    def _on_welcome(self, session: Session, _welcome: Welcome) -> None:
        """What came in frames of an earlier session is back in its queues, or will be."""
        lost = [one for one in self.ledger.up_to(self.ledger.last_tag) if _is_of_another(one, session)]
        for message in lost:
            message.end("stale")
        if lost:
            self._stale = frozenset(message.delivery_tag for message in lost)

    def check(self) -> None:
        """Raise ConnectionClosed after close(), and as `Link.check`."""
        self.link.check()
        if self.is_closed:
            raise ConnectionClosed(CLOSED)

    def enter(self, messages: list[Any]) -> None:
        """Give tags to what was got: it does not count against the window. Raises as `check`: then it is all back."""
        for message in messages:
            if isinstance(message, SocketMessage):
                message.enter(self.ledger, counted=False)
            else:
                self.ledger.enter(message, counted=False)
        if self.is_closed:  # meanwhile, by another thread or task
            with contextlib.suppress(ShmqError):
                nack_all(self.ledger.forget(), requeue=True)
            raise ConnectionClosed(CLOSED)

    # -- the window ---------------------------------------------------------------------------------------------------

    def set_prefetch(self, prefetch: int) -> None:
        """Let so many be unacked from now on. Raises InvalidArgument."""
        check_prefetch(prefetch)
        self.check()
        number, link = self.number, self.link
        self.ledger.prefetch = prefetch
        link.later(lambda session: session.say(SetPrefetch(SEQ_MAX, prefetch, channel=number), link.read_on))
        link.advance(0)

    # -- tags ---------------------------------------------------------------------------------------------------------

    def meant(self, delivery_tag: int, *, multiple: bool = False) -> list[Any]:
        """Return the deliveries to settle: this one, or with `multiple` this and all before it, with 0 all.

        Raises AlreadySettled or StaleDelivery for a tag that is not out, as AMQP 0-9-1's basic.ack has it: nothing is
        settled then. InvalidArgument.
        """
        self.check()
        check_flags(multiple=multiple)
        if type(delivery_tag) is not int or delivery_tag < 0:
            raise InvalidArgument(argument="delivery_tag", value=delivery_tag, allowed="a number from 1, or 0 for all")
        if multiple and delivery_tag == 0:
            return self.all()
        message = self.ledger.find(delivery_tag)
        if message is None:
            raise self._unknown(delivery_tag)
        return self.ledger.up_to(delivery_tag) if multiple else [message]

    def all(self) -> list[Any]:
        """Return all that are unacked, oldest first."""
        return self.ledger.up_to(self.ledger.last_tag)

    def _unknown(self, delivery_tag: int) -> AlreadySettled | StaleDelivery:
        if delivery_tag in self._stale:
            self._stale -= {delivery_tag}
            return StaleDelivery(f"delivery {delivery_tag} was of a session that is lost; the message went back")
        if 0 < delivery_tag <= self.ledger.last_tag:
            return AlreadySettled(f"delivery {delivery_tag} was settled before, or needed no ack")
        last = f"the last one is {self.ledger.last_tag}" if self.ledger.last_tag else "none was"
        return AlreadySettled(f"delivery tag {delivery_tag} was never given out on this channel: {last}")

    def recovered(self, messages: list[Any]) -> None:
        """The broker has taken these back."""
        for message in messages:
            if isinstance(message, SocketMessage):
                message.end("nacked")

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> list[Any]:
        """Number and window are free for another channel. Returns what was unacked, oldest first; nobody keeps it."""
        self.is_closed = True
        if self._ledgers.get(self.number) is self.ledger:
            del self._ledgers[self.number]
        return self.ledger.forget()


def check_recover(requeue: object) -> None:
    """Raise NotSupported for what RabbitMQ does not do either."""
    check_flags(requeue=requeue)
    if not requeue:
        raise NotSupported("recover(requeue=False) is not done, by RabbitMQ either: messages go back to their queues")


def check_size(prefetch_size: object) -> None:
    """Raise NotSupported for a prefetch in bytes."""
    if prefetch_size != 0:
        raise NotSupported(f"prefetch_size = {prefetch_size!r}: a window in bytes is not kept. Leave it 0")


def give_back(messages: list[Any]) -> None:
    """Direct ones go back to their places; the broker is told of the others' channel."""
    for message in messages:
        if isinstance(message, SocketMessage):
            message.end("nacked")
        else:
            with contextlib.suppress(ShmqError):  # views of it are alive, and keep it until the connection ends
                CoreMessage.nack(message, requeue=True)


def _lowest_free(ledgers: dict[int, core.Ledger]) -> int:
    number = next((number for number in range(1, CHANNELS_MAX + 1) if number not in ledgers), 0)
    if not number:
        raise NotAllowed(f"this connection has {CHANNELS_MAX} channels, which is all it may; close some")
    return number


def _is_of_another(message: object, session: Session) -> bool:
    return isinstance(message, SocketMessage) and not message.is_of(session)


def _weakly(tell: Callable[[Session, Welcome], None]) -> Callable[[Session, Welcome], None]:
    """A link outlives its channels."""
    method = weakref.WeakMethod(tell)

    def on_welcome(session: Session, welcome: Welcome) -> None:
        found = method()
        if found is not None:
            found(session, welcome)

    return on_welcome
