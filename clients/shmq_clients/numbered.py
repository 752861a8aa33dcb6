"""What a channel knows without asking anybody: its unacked deliveries by their tags, its window; alike in all clients.

Owns: which deliveries a tag, or a tag and all before it, means; what is told of one that is not there; the window and
who is told when it changes. Does not own: settling (settling.py), waiting, consumers.
Invariants: tags count up from 1 in the order of handing out and are never used again; the window holds here in both
modes, and for what is pushed at the broker, too; deliveries that came in frames are a lost session's no longer.
"""

import contextlib
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
        self.number = _take_lowest(ledgers, self.ledger)
        self.is_closed = False
        self._ledgers = ledgers
        self._stale: set[int] = set()
        link.on_welcome.insert(0, self._on_welcome)

    def _on_welcome(self, session: Session, _welcome: Welcome) -> None:
        """What came in frames of an earlier session is back in its queues, or will be."""
        lost = [one for one in self.ledger.up_to(self.ledger.last_tag) if _is_of_another(one, session)]
        for message in lost:
            message.end("stale")
        if lost:
            self._stale = {message.delivery_tag for message in lost}

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
        self.ledger.prefetch = prefetch
        self.link.later(self._tell_window)
        self.link.advance(0)

    def _tell_window(self, session: Session) -> None:
        """By another, maybe much later: the number may be another channel's then."""
        if not self.is_closed:
            session.say(SetPrefetch(SEQ_MAX, self.ledger.prefetch, channel=self.number), self.link.read_on)

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
            self._stale.discard(delivery_tag)
            return StaleDelivery(f"delivery {delivery_tag} was of a session that is lost; the message went back")
        if 0 < delivery_tag <= self.ledger.last_tag:
            return AlreadySettled(f"delivery {delivery_tag} was settled before, or needed no ack")
        last = f"the last one is {self.ledger.last_tag}" if self.ledger.last_tag else "none was"
        return AlreadySettled(f"delivery tag {delivery_tag} was never given out on this channel: {last}")

    def by_frames(self) -> list[SocketMessage]:
        """Return those of them that the broker holds for us."""
        return [message for message in self.all() if isinstance(message, SocketMessage)]

    def direct(self) -> list[CoreMessage]:
        """Return those that are held in a segment."""
        return [message for message in self.all() if not isinstance(message, SocketMessage)]

    def recovered(self) -> None:
        """The broker has taken back what it held until now: also what was handed out after it was asked to."""
        for message in self.by_frames():
            message.end("nacked")

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> list[Any]:
        """Return what was unacked, oldest first; nobody keeps it. Say `free` when the broker has heard of the end."""
        self.is_closed = True
        with contextlib.suppress(ValueError):  # by another thread, or not the first time
            self.link.on_welcome.remove(self._on_welcome)
        return self.ledger.forget()

    def free(self) -> None:
        """The number is another channel's: not before, or the broker would end that one."""
        if self._ledgers.get(self.number) is self.ledger:
            del self._ledgers[self.number]


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


def _take_lowest(ledgers: dict[int, core.Ledger], ledger: core.Ledger) -> int:
    for number in range(1, CHANNELS_MAX + 1):
        if ledgers.setdefault(number, ledger) is ledger:  # in one step: other threads open channels, too
            return number
    raise NotAllowed(f"this connection has {CHANNELS_MAX} channels, which is all it may; close some")


def _is_of_another(message: object, session: Session) -> bool:
    return isinstance(message, SocketMessage) and not message.is_of(session)
