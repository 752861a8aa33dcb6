"""Consumers: an iterator over a queue's messages, in either mode.

Owns: waiting for messages and for acks, cancelling. Does not own: the fast path of the direct one (core.Consumer), what
is pushed (subscription.py).
Invariants: iteration ends at `cancel` and raises what made it impossible; nothing is taken ahead in direct mode; a
consumer keeps its connection alive while somebody iterates.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from msgspec.structs import replace

from shmq.core import _core as core
from shmq.errors import DirectRefused
from shmq.limits import SEQ_MAX
from shmq.message import Message
from shmq.wire.frames import Cancel, Consume, Ok, Ping, SetPrefetch
from shmq_clients.attachments import BROKERED, Attachment, Attachments
from shmq_clients.durations import SECOND_NS
from shmq_clients.link import SLICE, Link
from shmq_clients.message import SocketMessage
from shmq_clients.session import Session
from shmq_clients.socket_path import SocketPath
from shmq_clients.subscription import Subscription, tell_of_room

SLICE_NS: Final = int(SLICE * SECOND_NS)
ALL_TOKENS: Final = 1 << 30
YIELDS: Final = 50  # turns given to other threads before sleeping
PAUSE_FIRST: Final = 0.00005  # seconds
PAUSE_MAX: Final = 0.002


class Consumer(Protocol):
    """What `Connection.consume` returns: iterate over it, once."""

    @property
    def consumer_tag(self) -> str: ...
    @property
    def queue_name(self) -> str: ...
    def __iter__(self) -> Iterator[Message]: ...
    def __next__(self) -> Message: ...
    def cancel(self) -> None:
        """End the iteration, also one that waits in another thread. What was handed out stays unacked."""


class Taker:
    """What takes from a segment by itself, and has the broker count it. `on_empty`: as core.Consumer wants it."""

    def __init__(
        self,
        consume: Consume,
        attachments: Attachments,
        attachment: Attachment,
        on_empty: Callable[[], object],
        ledger: core.Ledger | None = None,
    ) -> None:
        self.consumer_tag = consume.consumer_tag
        self.queue_name = consume.queue
        self._consume = consume
        self._attachments = attachments
        self._attachment: Attachment | None = attachment
        self._cancelled = self._stopped = False
        self._announced_in: Session | None = None
        self._is_subscribed = False  # while only the broker hands out, to what it counts
        self._core = core.Consumer((attachment.queue,), consume.prefetch, consume.no_ack, on_empty, ledger)

    @property
    def wire_tag(self) -> str:
        """What the broker calls it."""
        return self._consume.consumer_tag

    @property
    def attachment(self) -> Attachment | None:
        """The queue that it takes from by itself, while it does."""
        return None if self._is_subscribed else self._attachment

    @property
    def queue(self) -> core.Queue | None:
        """The same, mapped."""
        attachment = self.attachment
        return None if attachment is None else attachment.queue

    @property
    def is_cancelled(self) -> bool:
        """Whether it hands out nothing more."""
        return self._cancelled or self._stopped

    @property
    def is_over(self) -> bool:
        """The same, or its queue is gone."""
        attachment = self._attachment
        return self.is_cancelled or attachment is None or attachment.queue.deleted

    def set_prefetch(self, prefetch: int) -> None:
        """Let so many be unacked from now on, of this consumer. It may be below what is out."""
        link, tag = self._attachments.link, self.wire_tag
        self._consume = replace(self._consume, prefetch=prefetch)
        self._core.prefetch = prefetch
        if self._announced_in is not None:
            link.later(lambda session: session.say(SetPrefetch(SEQ_MAX, prefetch, tag), link.read_on))
            link.advance(0)

    @property
    def reply_queue(self) -> str:
        """The queue beneath, of direct replies."""
        attachment = self._attachment
        return "" if attachment is None else attachment.name

    def announced(self, session: Session) -> None:
        """The broker of this session counts it already."""
        self._announced_in = session

    def announce(self, session: Session) -> None:
        """Have the broker count this consumer. Nobody waits for the answer: messages are taken, whatever it is."""
        if not self._cancelled and self._announced_in is not session and not self._is_subscribed:
            self._announced_in = session
            session.say(replace(self._consume, seq=SEQ_MAX, direct=True, shares=""), self._attachments.link.read_on)

    def _withdraw(self) -> None:
        """At the next chance: also called from a finalizer, which may run anywhere."""
        link, announced_in, cancel = self._attachments.link, self._announced_in, Cancel(SEQ_MAX, self.wire_tag)
        if announced_in is not None:
            link.later(lambda session: session.say(cancel, link.read_on) if session is announced_in else None)

    def __del__(self) -> None:
        if not getattr(self, "_cancelled", True) and self._attachment is not None:
            self._withdraw()

    def _cancel(self) -> Attachment | None:
        """Take nothing more, and say so. Returns where somebody may be waiting."""
        if not self._cancelled:
            self._cancelled = True
            self._withdraw()
            self._attachments.link.advance(0)
        return self.stop()

    def stop(self) -> Attachment | None:
        """Take nothing more; who waits finds out by itself."""
        self._stopped = True
        attachment, self._attachment = self._attachment, None
        self._core.queues = ()
        return attachment

    def _subscribed(self) -> Consume:
        """The broker is to hand out, as it does to others: what to ask it for, by the tag that it knows us by. Nothing
        is taken besides.
        """
        self._announced_in = None
        self._is_subscribed = True
        self._core.queues = ()
        return self._consume

    def _unsubscribed(self) -> None:
        """It hands out no more, and all that it did is taken."""
        self._is_subscribed = False
        if not self._cancelled:
            self._attachments.link.later(self.announce)
        if self._attachment is not None:
            self._core.queues = (self._attachment.queue,)
            if self._stopped:  # by another thread, and we have undone it
                self.stop()

    def _follow(self, attachment: Attachment) -> None:
        """Take from the queue as it is attached now."""
        now = self._attachments.refreshed(attachment)
        if now is not attachment and self._attachment is attachment:
            self._attachment = now
            self._core.queues = (now.queue,)
            if self._stopped:  # by another thread, and we have undone it
                self.stop()


class DirectConsumer(Taker):
    """Takes from the segment; Python is asked only when nothing is there or the prefetch is full."""

    def __init__(
        self,
        consume: Consume,
        attachments: Attachments,
        attachment: Attachment,
        *,
        by_frames: SocketPath | None = None,
        ledger: core.Ledger | None = None,
        keep: object,
    ) -> None:
        on_empty = self._on_empty if ledger is None else _weakly(self._on_empty)
        super().__init__(consume, attachments, attachment, on_empty, ledger)
        self._ledger = ledger
        self.whole: Callable[[], object] = bool  # the consumer over several queues that it is a part of, if it is there
        self._on_news: Callable[[], object] = bool
        self._by_frames = by_frames
        self._subscription: Subscription | None = None  # while only the broker hands out
        self._ended: Subscription | None = None  # the last one, while something of it is left
        self._keep = keep

    def __iter__(self) -> Iterator[Any]:
        return self._core if self._ledger is None else self

    def __next__(self) -> Any:  # noqa: ANN401 - a DirectMessage, which the core makes
        return next(self._core)

    def take(self) -> Any:  # noqa: ANN401 - what the core or the broker makes
        """Return a message that is there, without waiting for one, or None. Raises what ended it."""
        self._attachments.link.check()
        attachment = self._attachment
        if attachment is None or self._cancelled:
            return None
        if self._ended is None and self._subscription is not None and not attachment.is_brokered:
            self._unsubscribe()
        if self._ended is not None and (left := self._what_is_left(self._ended)) is not None:
            return left
        if attachment.is_brokered:
            if self._subscription is None and self._attachments.link.session is None:
                return None  # nobody to ask; the others are not to wait for that
            subscription = self._subscription_of()
            return None if subscription is None else subscription.take()
        self._follow(attachment)
        message = self._core.take()
        if message is None and attachment.queue.deleted:
            raise self._attachments.deleted(attachment)
        return message

    def has_news(self) -> bool:
        """Whether something was pushed to it."""
        subscription = self._subscription
        return self._cancelled or (subscription is not None and subscription.has_news())

    @property
    def has_room(self) -> bool:
        """Whether it may hand out one more."""
        return self._core.has_room

    def set_prefetch(self, prefetch: int) -> None:
        """As Taker's."""
        super().set_prefetch(prefetch)
        if self._subscription is not None and self._by_frames is not None:
            self._by_frames.set_prefetch(self._subscription, prefetch)
        self._on_news()

    def tell_watch(self, on_room: Callable[[], object], on_news: Callable[[], object]) -> None:
        """Tell somebody who waits for many consumers."""
        self._on_news = on_news
        self._core.on_room = on_room
        tell_of_room(self._ledger, on_room)

    def cancel(self) -> None:
        attachment = self._cancel()
        self._unsubscribe()
        self._on_news()
        if attachment is not None and not attachment.queue.closed:
            attachment.queue.bell_ring(core.CONSUMERS, ALL_TOKENS)

    def _on_empty(self) -> object:
        """Wait; True: look again. Short slices, so that a lost wake-up costs little. Or a message from the broker."""
        if self._cancelled:
            return False
        self._attachments.link.check()
        self._attachments.link.raise_failures()
        if self._ended is not None:
            return self._what_is_left(self._ended) or not self._cancelled
        attachment = self._attachment
        if attachment is not None and attachment.is_brokered:
            return self._from_broker() or not self._cancelled
        if self._subscription is not None:
            self._unsubscribe()
            return not self._cancelled
        if self._core.has_room:
            self._wait_for_messages()
        else:
            wait_for_acks(self._attachments.link, lambda: self._core.has_room or self._cancelled)
        return not self._cancelled

    def _from_broker(self) -> SocketMessage | None:
        """Consume as others do, through the broker; None: look whether that is still so."""
        subscription, link = self._subscription_of(), self._attachments.link
        if subscription is None:
            return None
        message = subscription.take()
        if message is None:
            link.check_reach()
            if subscription.waits_for_room:
                wait_for_acks(link, lambda: subscription.has_room or self._cancelled)
            link.advance(SLICE, subscription.has_news)
        return message or subscription.take()

    def _subscription_of(self) -> Subscription | None:
        path, subscription = self._by_frames, self._subscription
        if path is None:
            raise DirectRefused(queue=self.queue_name, reason=BROKERED)
        if subscription is None:
            subscription = self._subscription = path.consume(self._subscribed(), self._ledger)
            subscription.tell = self._on_news
        if self._cancelled:  # by another thread, meanwhile
            self._unsubscribe()
            return None
        return subscription

    def _unsubscribe(self) -> None:
        """Back to the segment: what was pushed and not handed out is back in the queue before anything is taken."""
        subscription, self._subscription = self._subscription, None
        if subscription is None or self._by_frames is None:
            return
        self._ended = subscription
        self._by_frames.cancel(subscription)
        link = self._attachments.link
        if not self._cancelled and link.session is not None:
            link.ask(Ping, Ok, goes_on=True)

    def _what_is_left(self, subscription: Subscription) -> SocketMessage | None:
        """What nobody has to ack can't go back: it is handed out first."""
        message = subscription.rest()
        if message is None:
            self._ended = None
            self._unsubscribed()
        return message

    def _wait_for_messages(self) -> None:
        attachment = self._attachment
        if attachment is None:
            return
        if attachment.queue.deleted:
            raise self._attachments.deleted(attachment)
        self._attachments.wait(attachment, core.CONSUMERS, SLICE_NS)
        self._follow(attachment)


class SocketConsumer:
    """Hands out what the broker pushes."""

    def __init__(self, path: SocketPath, subscription: Subscription, *, keep: object) -> None:
        self.consumer_tag = subscription.consume.consumer_tag
        self.queue_name = subscription.consume.queue
        self._cancelled = False
        self._path = path
        self._subscription = subscription
        self._on_news: Callable[[], object] = bool
        self.whole: Callable[[], object] = bool  # as DirectConsumer's
        self._keep = keep

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - a DirectMessage, which the core makes
        while not self._cancelled:
            self._path.link.check()
            message = self._subscription.take()
            if message is not None:
                return message
            self._path.link.raise_failures()
            self._path.link.check_reach()
            if self._subscription.waits_for_room:
                wait_for_acks(self._path.link, lambda: self._subscription.has_room or self._cancelled)
            self._path.link.advance(SLICE, self._has_news)
        raise StopIteration

    def _has_news(self) -> bool:
        return self._cancelled or self._subscription.has_news()

    @property
    def wire_tag(self) -> str:
        """As DirectConsumer's."""
        return self._subscription.consume.consumer_tag

    @property
    def attachment(self) -> None:
        """It takes from no queue by itself."""

    @property
    def queue(self) -> None:
        """The same."""

    @property
    def is_cancelled(self) -> bool:
        """As DirectConsumer's."""
        return self._cancelled

    @property
    def reply_queue(self) -> str:
        """As DirectConsumer's."""
        return self._subscription.reply_queue

    @property
    def is_over(self) -> bool:
        """As DirectConsumer's."""
        return self._cancelled or self._subscription.is_over

    def has_news(self) -> bool:
        """Whether it is worth taking."""
        return self._has_news()

    @property
    def has_room(self) -> bool:
        """As DirectConsumer's."""
        return self._subscription.has_room

    def take(self) -> Any:  # noqa: ANN401 - what the core or the broker makes
        """As DirectConsumer's."""
        self._path.link.check()
        return None if self._cancelled else self._subscription.take()

    def set_prefetch(self, prefetch: int) -> None:
        """As Taker's."""
        self._path.set_prefetch(self._subscription, prefetch)

    def tell_watch(self, on_room: Callable[[], object], on_news: Callable[[], object]) -> None:
        """As DirectConsumer's."""
        self._on_news = self._subscription.tell = on_news
        self._subscription.on_room(on_room)

    def stop(self) -> None:
        """Nothing to let go of: the link's end ends it."""

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._on_news()
            self._path.cancel(self._subscription)

    def __del__(self) -> None:
        """Nobody iterates any more: the broker must not go on pushing. May run anywhere, so others do the writing."""
        if not getattr(self, "_cancelled", True):
            self._path.abandon(self._subscription)


def wait_for_acks(link: Link, done: Callable[[], bool]) -> None:
    """Another thread has to settle. No bell tells of it, so look: often at first, then every two milliseconds."""
    turns, pause = 0, PAUSE_FIRST
    while not done():
        if turns < YIELDS:
            turns += 1
            time.sleep(0)
            continue
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_MAX)
        link.advance(0)


def _weakly(ask: Callable[[], object]) -> Callable[[], object]:
    """Return what asks as long as there is somebody to ask: messages that a channel keeps refer to it."""
    method = weakref.WeakMethod(ask)

    def on_empty() -> object:
        found = method()
        return found is not None and found()

    return on_empty
