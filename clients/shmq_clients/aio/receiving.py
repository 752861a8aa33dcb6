"""Getting and consuming for tasks, as a connection and its channels do it.

Owns: which path serves a call, consumer tags, giving way. Does not own: the paths, iteration (consumer.py), delivery
tags and the window of a channel (channel.py).
Invariants: those of the blocking client's (shmq_clients.receiving); nothing is awaited between taking a message and
returning it.
"""

import asyncio
import functools
import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from msgspec.structs import replace

from shmq.core import _core as core
from shmq.errors import DirectRefused, NotAllowed, NotFound, ShmqError
from shmq.message import AsyncMessage
from shmq.names import REPLY_TO, check_name
from shmq.wire.frames import Consume, Consuming
from shmq_clients.aio.attachments import AsyncAttachments
from shmq_clients.aio.consumer import TURNS_MAX, AsyncConsumer, DirectSource, SocketSource, Source
from shmq_clients.aio.direct_path import AsyncDirectPath
from shmq_clients.aio.link import AsyncLink
from shmq_clients.aio.message import AsyncDirectMessage, AsyncSocketMessage, context_of
from shmq_clients.aio.several import SeveralSource
from shmq_clients.aio.socket_path import AsyncDeliveries, AsyncSocketPath
from shmq_clients.aio.waiting import Waiters
from shmq_clients.asked import check_max_messages, consume_frame, needs_broker
from shmq_clients.durations import wait_nanoseconds
from shmq_clients.flags import check_flags
from shmq_clients.gathering import Gathering
from shmq_clients.receiving import named, several
from shmq_clients.replies import Replies
from shmq_clients.session import Mode
from shmq_clients.several import queues_of

SETTLED_AT_ONCE: Final = 1000

Consumers: TypeAlias = weakref.WeakValueDictionary[str, AsyncConsumer]


class AsyncPaths:
    """What a connection and its channels share. `consumers`: all of them, by the tags that the broker knows."""

    def __init__(
        self, link: AsyncLink, mode: Mode, attachments: AsyncAttachments, socket_path: AsyncSocketPath
    ) -> None:
        self.link = link
        self.mode: Mode = mode
        self.attachments = attachments
        self.socket = socket_path
        self.direct = AsyncDirectPath(attachments)
        self.consumers: Consumers = weakref.WeakValueDictionary()
        self.numbers = itertools.count(1)
        self._turns = 0

    async def is_direct(self, queue: str) -> bool:
        """Whether this queue is worked in directly; attaches it. Raises NotFound; in mode "direct" DirectRefused."""
        self.link.check()
        if self.attachments.is_served(queue):
            return True
        insist = self.mode == "direct"
        return await self.link.settled(lambda: self.attachments.serves(queue, insist=insist))

    def wire_tag(self, consumer_tag: str) -> str:
        """Return what the broker is to call it: the same, if no other channel has that."""
        while consumer_tag in self.consumers:
            consumer_tag = f"ctag-{next(self.numbers)}"
        return consumer_tag

    async def give_way(self, turns: int) -> None:
        """Let others run, after a few calls or bytes that did not have to wait."""
        self._turns += 1 + turns
        if self._turns > TURNS_MAX:
            self._turns = 0
            await asyncio.sleep(0)  # others run


class AsyncReceiving:
    """The part of a connection and of a channel by which messages come. `_ledger`: the channel's."""

    _paths: AsyncPaths
    _number = 0
    _ledger: core.Ledger | None = None
    _room: Waiters | None = None
    _replies: Replies
    _own: Consumers  # by the tags that this channel knows

    # -- getting ------------------------------------------------------------------------------------------------------

    async def get(self, queue: str, *, timeout: float | None = 0, no_ack: bool = False) -> AsyncMessage | None:
        """Return the next message, or None when `timeout` seconds are over (None: wait for ever). Errors are those of
        `Connection.get`. Cancelled, it takes nothing: what came for it goes back to its place.
        """
        check_name(queue, "queue")
        check_flags(no_ack=no_ack)
        wait_ns = wait_nanoseconds(timeout, "timeout")
        self._begin_call()
        await self._paths.give_way(0)
        if await self._paths.is_direct(queue):
            message: Any = await self._paths.direct.get(queue, wait_ns, no_ack=no_ack)
        else:
            got = await self._paths.socket.get(queue, 1, wait_ns, no_ack=no_ack, channel=self._number)
            message = got[0] if got else None
        if message is not None:
            self._hand_out([message])
        return message  # type: ignore[no-any-return] # the core makes AsyncDirectMessage

    async def get_batch(
        self, queue: str, *, max_messages: int = 100, max_wait: float | None = 0, no_ack: bool = False
    ) -> Sequence[AsyncMessage]:
        """Return `max_messages` as soon as there are so many, or those that came within `max_wait` seconds (None: wait
        for all of them); 0: those that are there. Cancelled as `get`. In direct mode they are taken without giving way
        to others: ask for some thousands at most.
        """
        check_name(queue, "queue")
        check_max_messages(max_messages)
        check_flags(no_ack=no_ack)
        wait_ns = wait_nanoseconds(max_wait, "max_wait")
        self._begin_call()
        await self._paths.give_way(0)
        gathering = Gathering(max_messages, wait_ns, no_ack=no_ack)
        try:
            while gathering.goes_on:
                gathering.add(await self._part(queue, gathering))
        except ShmqError as error:
            gathering.fail(error)
        except BaseException:  # cancelled
            gathering.give_back()
            raise
        messages = gathering.handed_out()
        self._hand_out(messages)
        return messages

    async def _part(self, queue: str, gathering: Gathering) -> list[Any]:
        """What is there, or comes first. An empty list when time is up."""
        wanted, wait_ns, no_ack = gathering.missing, gathering.left_ns, gathering.no_ack
        if await self._paths.is_direct(queue):
            return await self._paths.direct.get_batch(queue, wanted, wait_ns, no_ack=no_ack)
        goes_on = bool(gathering.messages)
        return await self._paths.socket.get(
            queue, wanted, wait_ns, no_ack=no_ack, channel=self._number, goes_on=goes_on
        )

    # -- consuming ----------------------------------------------------------------------------------------------------

    def consume(
        self,
        queue: str | Sequence[str],
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        priority: int = 0,
        ack_timeout: float | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> AsyncConsumer:
        """Iterate over the messages of a queue (`async for`), waiting for more, until `cancel`.

        It begins with the first iteration; `await conn.consume(...)` begins at once and gives the consumer. Arguments
        and errors are those of `Connection.consume`. An iteration that is cancelled loses nothing, and may be gone on
        with.
        """
        tag = f"ctag-{next(self._paths.numbers)}" if consumer_tag == "" else consumer_tag
        first, *others = queues_of(queue)
        consume = consume_frame(
            first,
            tag,
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
            ack_timeout=ack_timeout,
            arguments=arguments,
        )
        self._begin_call()
        self._replies.check([first, *others], no_ack=no_ack)
        if (known := self._own.get(tag)) is not None and not known.is_over:
            raise NotAllowed(f"consumer tag {tag!r} is in use")
        needs_broker(consume, self._paths.mode)
        wire_tag, own, consumers = self._paths.wire_tag(tag), self._own, self._paths.consumers

        def ended() -> None:
            own.pop(tag, None)
            consumers.pop(wire_tag, None)

        asked = named(consume, wire_tag, self._number)
        begin = functools.partial(self._source_of_several if others else self._source_of, asked, *others)
        names = ", ".join([first, *others])
        told = self._paths.link.raise_failures
        consumer = AsyncConsumer(names, tag, begin, ended=ended, raise_failures=told, keep=self)
        own[tag] = consumers[wire_tag] = consumer
        if first == REPLY_TO:
            self._replies.find = weakref.ref(consumer)
        return consumer

    async def _source_of_several(self, consume: Consume, *others: str) -> Source:
        ledger, room = core.Ledger(self._ledger, keeps=False), self._room or Waiters()
        ledger.prefetch, ledger.on_room = consume.prefetch, room.tell_all
        parts: list[Source] = []
        try:
            for number, part in enumerate(several(consume, others, consume.consumer_tag)):
                wire_tag = self._paths.wire_tag(part.consumer_tag) if number else part.consumer_tag
                asked = named(part, wire_tag, self._number)
                parts += [await self._begun(asked, ledger, room)]
        except BaseException:  # also cancelled: none of them is left behind
            for begun in parts:
                begun.abandon()
            raise
        return SeveralSource(parts)

    async def _source_of(self, consume: Consume) -> Source:
        return await self._begun(consume, self._ledger, self._room)

    async def _begun(self, consume: Consume, ledger: core.Ledger | None, room: Waiters | None) -> Source:
        paths = self._paths
        direct = await self._begun_replies(consume, room) if consume.queue == REPLY_TO else None
        if direct is not None:
            return direct
        if consume.queue != REPLY_TO and not needs_broker(consume, paths.mode) and await paths.is_direct(consume.queue):
            attachment = await paths.attachments.attached(consume.queue)
            pushed = functools.partial(self._pushed, ledger=ledger, room=room)
            subscribe = None if paths.mode == "direct" else pushed
            source = DirectSource(
                consume, paths.link, paths.attachments, attachment, subscribe, ledger=ledger, room=room
            )
            paths.link.later(source.announce)
            paths.link.advance(0)
            return source
        return await self._pushed(consume, ledger=ledger, room=room)

    async def _begun_replies(self, consume: Consume, room: Waiters | None) -> Source | None:
        """The broker makes the queue beneath. None: it is not to be worked in directly."""
        paths = self._paths
        if not paths.attachments.granted:
            return None
        try:
            answer = await paths.link.requested(lambda seq: replace(consume, seq=seq, direct=True))
        except DirectRefused:
            if paths.mode == "direct":
                raise
            return None
        assert isinstance(answer.frame, Consuming)
        queue = answer.frame.queue
        attachment = await paths.link.settled(lambda: paths.attachments.attach_own(queue))
        source = DirectSource(consume, paths.link, paths.attachments, attachment, None, ledger=self._ledger, room=room)
        source.announced(answer.session)
        return source

    async def _pushed(self, consume: Consume, *, ledger: core.Ledger | None, room: Waiters | None) -> SocketSource:
        news, path = Waiters(), self._paths.socket
        return SocketSource(self._paths.link, path, await path.consumed(consume, news, ledger), news, room)

    async def cancel(self, consumer_tag: str) -> None:
        """End a consumer's iteration, also in another task. What was handed out stays unacked. Raises NotFound."""
        check_name(consumer_tag, "consumer_tag")
        self._check()
        consumer = self._own.get(consumer_tag)
        if consumer is None:
            raise NotFound(kind="consumer", name=consumer_tag)
        await consumer.cancel()

    def _begin_call(self) -> None:
        """As Receiving's."""
        self._check()
        self._paths.link.raise_failures()

    def _check(self) -> None:
        self._paths.link.check()

    def _hand_out(self, messages: list[Any]) -> None:
        """What was got is the caller's now."""


async def settle_in_parts(messages: Iterable[Any], settle: Callable[[list[Any]], object]) -> None:
    """Settle them; all are tried, then the first error is raised. Cancelled, it leaves some settled."""
    pending = list(messages)
    first: ShmqError | None = None
    for start in range(0, len(pending), SETTLED_AT_ONCE):
        if start:
            await asyncio.sleep(0)  # others run
        part = pending[start : start + SETTLED_AT_ONCE]
        try:
            settle(part)
        except ShmqError as error:
            first = first or error
        for context in {context_of(message.queue) for message in part if isinstance(message, AsyncDirectMessage)}:
            context.tell()
    for deliveries in {message.session for message in pending if isinstance(message, AsyncSocketMessage)}:
        try:
            await cast("AsyncDeliveries", deliveries).written()
        except ShmqError as error:
            first = first or error
    if first is not None:
        raise first
