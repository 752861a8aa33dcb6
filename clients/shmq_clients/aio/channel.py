"""A channel of the asyncio client: deliveries with tags of their own, and a window over all its consumers.

Owns: what is awaited when settling by tags, recovering, closing. Does not own: what a tag means and the window
(shmq_clients.numbered), getting and consuming (receiving.py).
Invariants: those of the blocking channel; settling is done, or on its way in socket mode, when the call is first
awaited, whether or not it is cancelled then.
"""

import contextlib
import functools
import weakref
from types import TracebackType
from typing import Any, Protocol, Self, Unpack

from shmq.errors import SessionError
from shmq.wire.frames import CloseChannel, Counted, Recover
from shmq_clients.aio.receiving import AsyncPaths, AsyncReceiving, settle_in_parts
from shmq_clients.aio.waiting import Waiters
from shmq_clients.numbered import Numbered, check_recover, check_size, give_back
from shmq_clients.outgoing import PublishKeywords
from shmq_clients.replies import Replies
from shmq_clients.settling import ack_all, nack_all, reject_all


class Publishes(Protocol):
    """The connection, as its channels need it."""

    async def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None: ...  # noqa: ANN401 - its own


class AsyncChannel(AsyncReceiving):
    """Made by `AsyncConnection.channel`; for many tasks of its loop."""

    def __init__(self, paths: AsyncPaths, keep: Publishes) -> None:
        self._paths = paths
        self._keep = keep
        self._numbered = Numbered(paths.link, paths.socket.ledgers)
        self._number = self._numbered.number
        self._ledger = self._numbered.ledger
        self._room = Waiters()
        self._ledger.on_room = self._room.tell_all
        self._own = weakref.WeakValueDictionary()
        self._replies = Replies()

    @property
    def number(self) -> int:
        """From 1; free again when it is closed."""
        return self._number

    @property
    def is_open(self) -> bool:
        """Whether neither it nor its connection was closed."""
        return not (self._numbered.is_closed or self._paths.link.closed)

    def _check(self) -> None:
        self._numbered.check()

    def _hand_out(self, messages: list[Any]) -> None:
        self._numbered.enter(messages)

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None:  # noqa: ANN401 - any buffer
        """As `Channel.publish`."""
        self._check()
        await self._keep.publish(body, **(self._replies.addressed(keywords) if "reply_to" in keywords else keywords))

    # -- the window ---------------------------------------------------------------------------------------------------

    @property
    def prefetch(self) -> int:
        """As `Channel.prefetch`: set it at any time, with nothing to await."""
        return self._numbered.ledger.prefetch

    @prefetch.setter
    def prefetch(self, prefetch: int) -> None:
        self._numbered.set_prefetch(prefetch)

    async def qos(self, prefetch_count: int = 0, prefetch_size: int = 0) -> None:
        """As setting `prefetch`. Raises NotSupported for a size, InvalidArgument."""
        check_size(prefetch_size)
        self._numbered.set_prefetch(prefetch_count)

    @property
    def unacked(self) -> int:
        """How many deliveries are out and not settled, those of `get` included."""
        return len(self._numbered.ledger)

    # -- settling -----------------------------------------------------------------------------------------------------

    async def ack(self, delivery_tag: int, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """As `Channel.ack`."""
        await settle_in_parts(self._numbered.meant(delivery_tag, multiple=multiple), ack_all)
        self._paths.link.raise_failures()

    async def nack(
        self,
        delivery_tag: int,
        multiple: bool = False,  # noqa: FBT001, FBT002 - AMQP's form
        requeue: bool = True,  # noqa: FBT001, FBT002 - AMQP's form
        delay: float | None = None,
    ) -> None:
        """As `Channel.nack`."""
        meant = self._numbered.meant(delivery_tag, multiple=multiple)
        await settle_in_parts(meant, functools.partial(nack_all, requeue=requeue, delay=delay))
        self._paths.link.raise_failures()

    async def reject(self, delivery_tag: int, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """As `Channel.reject`."""
        await settle_in_parts(self._numbered.meant(delivery_tag), functools.partial(reject_all, requeue=requeue))
        self._paths.link.raise_failures()

    async def recover(self, requeue: bool = True) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """As `Channel.recover`. Cancelled: done or not."""
        check_recover(requeue)
        self._check()
        numbered, path = self._numbered, self._paths.socket

        def at_once() -> None:
            numbered.recovered()
            path.recovered(numbered.number)

        if numbered.by_frames() or path.consumes(self._number):
            await self._paths.link.asked(lambda seq: Recover(seq, self._number), Counted, at_once=at_once)
        await settle_in_parts(numbered.direct(), functools.partial(nack_all, requeue=True))

    # -- the end ------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """As `Channel.close`. Cancelled, it is closed all the same, without waiting for the broker's word."""
        link = self._paths.link
        if link.forked_off:
            link.check()
        if not self.is_open:
            return
        consumers = list(self._own.values())
        for consumer in consumers:
            consumer.end_here()
        try:
            give_back(self._numbered.close())
            if link.session is not None:
                with contextlib.suppress(SessionError):  # then the broker gives all back by itself
                    await link.asked(lambda seq: CloseChannel(seq, self._number), Counted, goes_on=True)
        finally:
            self._numbered.free()

    def forget(self) -> None:
        """The connection ends, and with it all that is out: keep none of it."""
        self._numbered.close()

    def __repr__(self) -> str:
        return f"<AsyncChannel {self._number}, {self.unacked} unacked{'' if self.is_open else ', closed'}>"

    async def __aenter__(self) -> Self:
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._paths.link.forked_off:
            await self.close()
