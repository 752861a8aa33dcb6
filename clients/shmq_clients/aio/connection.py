"""The public face of the asyncio client: connect, publish, consume, get, settle, close; the names of the blocking one.

Owns: the life of a connection, which acts as a channel without tags. Does not own: getting and consuming
(receiving.py), channels (channel.py), topology (topology.py).
Invariants: of one event loop, without a thread; many tasks may use it at a time; a call never holds the loop up longer
than a few milliseconds, the copy of a large body excepted, and one that goes on without waiting gives way to others
now and then; in a forked child every use raises ForkedHandle and nothing is closed for the parent.
"""

import asyncio
import contextlib
import functools
import warnings
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, Unpack

from shmq.core import _core as core
from shmq.errors import DirectRefused, ShmqError
from shmq.message import AsyncMessage
from shmq.wire.frames import Welcome
from shmq_clients import forks
from shmq_clients.aio.attachments import AsyncAttachments
from shmq_clients.aio.channel import AsyncChannel
from shmq_clients.aio.consumer import TURN_BYTES_LOG2
from shmq_clients.aio.link import AsyncLink
from shmq_clients.aio.publishing import AsyncPublishing
from shmq_clients.aio.receiving import AsyncPaths, AsyncReceiving, Consumers, settle_in_parts
from shmq_clients.aio.socket_path import AsyncSocketPath
from shmq_clients.aio.topology import AsyncTopology
from shmq_clients.asked import check_mode
from shmq_clients.connection import CLOSE_TIMEOUT
from shmq_clients.durations import SECOND_NS, nanoseconds, wait_nanoseconds
from shmq_clients.link import HELLO_TIMEOUT, RECONNECT_TIMEOUT
from shmq_clients.outgoing import PublishKeywords
from shmq_clients.session import Mode, Session
from shmq_clients.settling import ack_all
from shmq_clients.url import socket_paths, url_of


def connect_async(
    url: str | None = None,
    *,
    mode: Mode = "auto",
    timeout: float = HELLO_TIMEOUT,
    reconnect_timeout: float | None = RECONNECT_TIMEOUT,
) -> "Connecting":
    """Connect to shmqd on the running event loop: `async with` it, or `await` it and close what it gives.

    Arguments and errors are those of `connect`.
    """
    check_mode(mode)
    nanoseconds(timeout, "timeout")
    patience = wait_nanoseconds(reconnect_timeout, "reconnect_timeout") / SECOND_NS
    paths = socket_paths(url)
    return Connecting(lambda loop: AsyncConnection(AsyncLink(paths, mode, patience, loop), mode), timeout)


class Connecting:
    """A connection to come."""

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], "AsyncConnection"], timeout: float) -> None:
        self._make = make
        self._timeout = timeout
        self._connection: AsyncConnection | None = None

    def __await__(self) -> Generator[Any, None, "AsyncConnection"]:
        return self._open().__await__()

    async def _open(self) -> "AsyncConnection":
        connection = self._make(asyncio.get_running_loop())
        await connection.open(self._timeout)
        return connection

    async def __aenter__(self) -> "AsyncConnection":
        self._connection = await self._open()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.__aexit__(kind, error, trace)


class AsyncConnection(AsyncTopology, AsyncReceiving):
    """A session with the broker, and the queues it works in. Made by `connect_async`; for one event loop."""

    def __init__(self, link: AsyncLink, mode: Mode) -> None:
        super().__init__(link)
        self._link = link
        self._attachments = AsyncAttachments(link)
        self._socket = AsyncSocketPath(link)
        self._paths = AsyncPaths(link, mode, self._attachments, self._socket)
        self._own = weakref.WeakValueDictionary()
        self._channels: dict[int, AsyncChannel] = {}  # the last of each number
        self._publishing = AsyncPublishing(link, self._attachments, self._socket, insist=mode == "direct")
        self._replies = self._publishing.replies
        self._mode = mode
        self._publish: Callable[..., Awaitable[None] | None] = self._publishing.publish
        announce_all = functools.partial(
            _announce_all, self._paths.consumers
        )  # not `self`: nothing here keeps it alive
        link.on_welcome += [self._attachments.on_welcome, self._socket.on_welcome, announce_all]

    async def open(self, timeout: float) -> None:
        """Connect for the first time; `connect_async` does it."""
        try:
            await self._link.connect(timeout)
        except BaseException:  # also cancelled
            self._attachments.close()  # it may have been welcome already
            raise
        if self._mode == "direct" and not self._attachments.granted:
            await self.close()
            reason = self._attachments.reason
            raise DirectRefused(f"direct mode refused: {reason}", reason=reason)
        if self._mode != "socket":
            publisher = core.Publisher(self._publishing.publish)
            publisher.routes = self._attachments.routes
            self._publish = publisher
            forks.register(self._attachments)

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None:  # noqa: ANN401 - any buffer
        """Publish one message; body is any buffer, and must not change before this returns.

        Keywords and errors are those of `Connection.publish`. Cancelled while it waits for room in direct mode, it is
        not published, or only in some of the queues if there are several. Cancelled in socket mode, it may or may not
        be published.
        """
        await self._paths.give_way(len(body) >> TURN_BYTES_LOG2 if type(body) is bytes else 0)
        waiting = self._publish(body, **keywords)
        if waiting is not None:
            await waiting

    async def publish_many(self, bodies: Sequence[Any], **keywords: Unpack[PublishKeywords]) -> None:
        """Publish several bodies in order, with the same keywords as `publish`. An error, or being cancelled, leaves
        the first ones published.
        """
        await self._paths.give_way(0)
        await self._publishing.publish_many(bodies, **keywords)

    def loan(self, body_bytes: int, **keywords: Unpack[PublishKeywords]) -> AbstractAsyncContextManager[memoryview]:
        """Lend a writable body in the segment: filled in an `async with`, it is published at its end, or dropped if
        that raises or is cancelled.
        """
        return self._publishing.loan(body_bytes, **keywords)

    async def wait_for_confirms(self, timeout: float = 30.0) -> None:
        """As `Connection.wait_for_confirms`."""
        await self._socket.wait_for_confirms(nanoseconds(timeout, "timeout") / SECOND_NS)

    @property
    def blocked(self) -> str:
        """Why the daemon says that publishers will be held up (AMQP's connection.blocked), "" while it does not."""
        self._link.check()
        session = self._link.session
        return session.blocked if session is not None else ""

    # -- topology -----------------------------------------------------------------------------------------------------

    async def delete_queue(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue and return how many messages went with it. Raises NotFound, PreconditionFailed."""
        count = await super().delete_queue(queue, if_unused=if_unused, if_empty=if_empty)
        self._attachments.drop(queue)
        return count

    # -- consuming ----------------------------------------------------------------------------------------------------

    def channel(self) -> AsyncChannel:
        """As `Connection.channel`; nothing to await."""
        self._link.check()
        channel = AsyncChannel(self._paths, self)
        self._channels[channel.number] = channel
        return channel

    async def ack_many(self, messages: Iterable[AsyncMessage]) -> None:
        """Ack each of them; all are tried, then the first error is raised. Cancelled, it leaves some acked."""
        await settle_in_parts(messages, ack_all)
        self._link.raise_failures()

    # -- the end ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it was neither closed nor inherited by a fork; whatever the daemon does."""
        return not self._link.closed

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """As `Connection.close`. Cancelled, it is closed all the same, without waiting for the daemon."""
        patience = nanoseconds(timeout, "timeout") / SECOND_NS
        link = self._link
        if link.forked_off:
            link.check()
        if not link.shut():
            return
        clean = False
        try:
            clean = self._let_go()
        finally:
            await link.leave(clean=clean, timeout=patience)
        link.failures.raise_last()

    def _let_go(self) -> bool:
        """Whether nothing of ours is left in any segment."""
        for consumer in list(self._paths.consumers.values()):
            consumer.stop()
        for channel in list(self._channels.values()):
            channel.forget()
        return self._attachments.close()

    def __repr__(self) -> str:
        state = ", closed" if self._link.closed else ""
        return f"<AsyncConnection to {url_of(self._link.paths[0])}, mode {self._mode}{state}>"

    def __del__(self) -> None:
        link = getattr(self, "_link", None)
        if link is None or link.closed:
            return
        warnings.warn(
            f"connection to {url_of(link.paths[0])} was never closed", ResourceWarning, stacklevel=2, source=self
        )
        with contextlib.suppress(ShmqError, RuntimeError):  # the loop may be closed
            link.shut()
            link.close(clean=self._let_go(), timeout=0)

    async def __aenter__(self) -> Self:
        self._link.check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._link.forked_off:
            return
        try:
            await self.close()
        except ShmqError as refusal:
            if error is None:
                raise
            error.add_note(f"closing the connection: {refusal}")


def _announce_all(consumers: Consumers, session: Session, _welcome: Welcome) -> None:
    """A new session does not know of the consumers that take by themselves."""
    for consumer in list(consumers.values()):
        if consumer.source is not None:
            consumer.source.announce(session)
