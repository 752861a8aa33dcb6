"""Consumers for tasks: an asynchronous iterator over a queue's messages, in either mode.

Owns: when iteration waits, ends and is cancelled; the two places that messages come from. Does not own: what they have
in common with those of the blocking client (shmq_clients.consumer).
Invariants: nothing is awaited between taking a message and handing it out, so a cancelled iteration loses nothing and
may be gone on with; a consumer keeps its connection alive while somebody iterates.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, Protocol, Self

from shmq.core import _core as core
from shmq.errors import DirectRefused
from shmq.message import AsyncMessage
from shmq.wire.frames import Consume, Ok, Ping
from shmq_clients.aio.attachments import AsyncAttachments
from shmq_clients.aio.link import AsyncLink
from shmq_clients.aio.message import context_of
from shmq_clients.aio.socket_path import AsyncSocketPath
from shmq_clients.aio.waiting import ENDLESS, Waiters
from shmq_clients.attachments import BROKERED, Attachment
from shmq_clients.consumer import Taker
from shmq_clients.link import SLICE
from shmq_clients.session import Session
from shmq_clients.subscription import Subscription

TURNS_MAX: Final = 128  # messages of a few KiB handed out between two turns of the loop
TURN_BYTES_LOG2: Final = 13


class Source(Protocol):
    """Where messages come from."""

    @property
    def is_over(self) -> bool:
        """Whether nothing comes from there any more."""

    @property
    def reply_queue(self) -> str:
        """The queue beneath, of direct replies."""

    def take(self) -> Any:  # noqa: ANN401 - an AsyncMessage, which the core makes
        """Return one that is there, or None. Raises what ended it."""

    async def wait(self) -> None:
        """Wait until it is worth taking again, or long enough. Raises what makes waiting useless."""

    def announce(self, session: Session) -> None:
        """Have the broker of a new session count it."""

    def stop(self) -> object:
        """Take nothing more, and wake who waits."""

    def end_here(self) -> None:
        """End it; the broker is told otherwise."""

    def abandon(self) -> None:
        """End it; the broker is told soon."""

    async def cancel(self) -> None:
        """End it, for the broker too."""


class AsyncConsumer:
    """What `AsyncConnection.consume` returns: iterate over it. Begun by the first iteration, or when it is awaited."""

    def __init__(
        self,
        queue: str,
        consumer_tag: str,
        begin: Callable[[], Awaitable[Source]],
        *,
        ended: Callable[[], object],
        raise_failures: Callable[[], object],
        keep: object,
    ) -> None:
        self.queue_name = queue
        self.consumer_tag = consumer_tag
        self._begin = begin
        self._ended = ended
        self._raise_failures = raise_failures  # of earlier calls, for who has nothing to hand out
        self._keep = keep
        self._source: Source | None = None
        self._cancelled = False
        self._starting = asyncio.Lock()
        self._turns = 0

    @property
    def source(self) -> Source | None:
        """Where the messages come from, once begun."""
        return self._source

    def __await__(self) -> Generator[Any, None, Self]:
        return self._started().__await__()

    async def _started(self) -> Self:
        await self._start()
        return self

    async def _start(self) -> Source:
        async with self._starting:
            if self._source is None:
                self._source = await self._begin()
                if self._cancelled:  # meanwhile, by another task
                    await self._end(self._source)
            return self._source

    @property
    def reply_queue(self) -> str:
        """The queue beneath, of direct replies, once begun."""
        return "" if self._source is None else self._source.reply_queue

    @property
    def is_over(self) -> bool:
        """Whether it was cancelled, or its queue is gone."""
        return self._cancelled or (self._source is not None and self._source.is_over)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncMessage:
        self._turns += 1
        if self._turns > TURNS_MAX:
            self._turns = 0
            await asyncio.sleep(0)  # others run
        source = self._source or await self._start()
        while not self._cancelled:
            message: AsyncMessage | None = source.take()
            if message is not None:
                self._turns += message.body_bytes >> TURN_BYTES_LOG2
                return message
            self._raise_failures()
            await source.wait()
        raise StopAsyncIteration

    async def cancel(self) -> None:
        """End the iteration, also one that waits in another task. What was handed out stays unacked."""
        if self._cancelled:
            return
        self._cancelled = True
        self._ended()
        if self._source is not None:
            await self._end(self._source)

    async def _end(self, source: Source) -> None:
        source.stop()
        await source.cancel()

    def end_here(self) -> None:
        """As `cancel`; the broker is told otherwise."""
        if not self._cancelled:
            self._cancelled = True
            self._ended()
            if self._source is not None:
                self._source.end_here()

    def stop(self) -> None:
        """The connection is to be closed."""
        if self._source is not None:
            self._source.stop()


class Again:
    """What a core.Consumer asks when nothing is there: no, except once after `look` was set."""

    __slots__ = ("look",)

    def __init__(self) -> None:
        self.look = False

    def __call__(self) -> bool:
        look, self.look = self.look, False
        return look


class DirectSource(Taker):
    """Takes from the segment; through the broker while only that hands out. `subscribe`: None where nothing may."""

    def __init__(
        self,
        consume: Consume,
        link: AsyncLink,
        attachments: AsyncAttachments,
        attachment: Attachment,
        subscribe: Callable[[Consume], Awaitable["SocketSource"]] | None,
        *,
        ledger: core.Ledger | None = None,
        room: Waiters | None = None,
    ) -> None:
        self._again = Again()
        super().__init__(consume, attachments, attachment, self._again, ledger)
        self._room = room
        if room is not None:
            self._core.on_room = room.tell_all
        self._link = link
        self._places = attachments
        self._subscribe = subscribe
        self._pushed: SocketSource | None = None
        self._ended: SocketSource | None = None  # the last one, while something of it is left
        self._changing = asyncio.Lock()  # of the two ways

    def take(self) -> Any:  # noqa: ANN401 - an AsyncMessage, which the core makes
        if self._ended is not None:
            left = self._ended.rest()
            if left is not None:
                return left
            self._ended = None
        if self._pushed is None:
            return None if self._is_subscribed else next(self._core, None)
        return self._pushed.take() if self._is_brokered() else None

    def _is_brokered(self) -> bool:
        attachment = self._attachment
        return attachment is not None and attachment.is_brokered

    async def wait(self) -> None:
        self._link.check()
        attachment = self._attachment
        if attachment is None:
            return
        if self._is_brokered():
            await self._wait_for_broker()
            return
        if self._is_subscribed:
            await self._back_to_segment()
            return
        if not self._core.has_room:
            room = context_of(attachment.queue).settled if self._room is None else self._room
            await room.wait(SLICE)
            return
        if attachment.queue.deleted:
            raise await self._places.gone(attachment)
        if attachment.queue.bells_stale:
            await self._places.freshened(attachment)
        await self._places.wait_at(attachment, core.CONSUMERS, ENDLESS)
        if not self._places.is_current(attachment):
            await self._link.settled(lambda: self._follow(attachment))
        self._again.look = True  # whatever the bells: they are asked for, and messages are there

    async def _wait_for_broker(self) -> None:
        """Consume as others do, through the broker; return now and then, to look whether that is still so."""
        if self._subscribe is None:
            raise DirectRefused(queue=self.queue_name, reason=BROKERED)
        async with self._changing:
            if self._pushed is None and not self._cancelled:
                try:
                    self._pushed = await self._subscribe(self._subscribed())
                finally:
                    if self._pushed is None:
                        self._unsubscribed()
                if self._cancelled:  # by another task, meanwhile
                    await self._pushed.cancel()
                return
        if (pushed := self._pushed) is not None:
            await pushed.wait(SLICE)

    async def _back_to_segment(self) -> None:
        """What was pushed and not handed out is back in the queue before anything is taken; what nobody has to ack
        can't go back, and is handed out first.
        """
        async with self._changing:
            pushed, self._pushed = self._pushed, None
            try:
                if pushed is not None:
                    await pushed.cancel()
            finally:
                self._ended = pushed
                if self._is_subscribed:
                    self._unsubscribed()
            if not self._cancelled and self._link.session is not None:
                self._link.advance(0)
                await self._link.asked(Ping, Ok, goes_on=True)

    def stop(self) -> Attachment | None:
        if self._pushed is not None:
            self._pushed.stop()
        attachment = super().stop()
        if attachment is not None:
            self._places.bells.tell(attachment.queue)
            context_of(attachment.queue).tell()
        if self._room is not None:
            self._room.tell_all()
        return attachment

    def end_here(self) -> None:
        self._cancel()
        if self._pushed is not None:
            self._pushed.end_here()

    def abandon(self) -> None:
        self._cancel()
        if self._pushed is not None:
            self._pushed.abandon()

    async def cancel(self) -> None:
        self._cancel()
        if self._pushed is not None:
            await self._pushed.cancel()


class SocketSource:
    """Hands out what the broker pushes."""

    def __init__(
        self,
        link: AsyncLink,
        path: AsyncSocketPath,
        subscription: Subscription,
        news: Waiters,
        room: Waiters | None = None,
    ) -> None:
        self._link = link
        self._path = path
        self._subscription = subscription
        self._news = news
        self._room = room
        self._cancelled = False

    @property
    def reply_queue(self) -> str:
        """As Source's."""
        return self._subscription.reply_queue

    @property
    def is_over(self) -> bool:
        """As Source's."""
        return self._cancelled or self._subscription.is_over

    def take(self) -> Any:  # noqa: ANN401 - an AsyncMessage, which the core makes
        self._link.check()
        return self._subscription.take()

    def rest(self) -> Any:  # noqa: ANN401 - an AsyncSocketMessage
        """What came before it was cancelled."""
        return self._subscription.rest()

    async def wait(self, timeout: float | None = None) -> None:
        self._link.check()
        self._link.check_reach()
        if self._cancelled or self._subscription.has_news():  # since it was looked at: nobody tells of that again
            return
        if self._room is not None and self._subscription.waits_for_room:
            await self._room.wait(SLICE)
            return
        await self._news.wait(SLICE if self._link.session is None else timeout)

    def announce(self, session: Session) -> None:
        """The broker knows."""

    def stop(self) -> None:
        self._news.tell_all()
        if self._room is not None:
            self._room.tell_all()

    def end_here(self) -> None:
        self._cancelled = True
        self.stop()
        self._path.ended_here(self._subscription)

    def abandon(self) -> None:
        self._cancelled = True
        self.stop()
        self._path.abandon(self._subscription)

    async def cancel(self) -> None:
        self._cancelled = True
        await self._path.cancelled(self._subscription)

    def __del__(self) -> None:
        """Nobody iterates any more: the broker must not go on pushing. May run anywhere, so the loop does it."""
        if not getattr(self, "_cancelled", True):
            self._path.abandon(self._subscription)
