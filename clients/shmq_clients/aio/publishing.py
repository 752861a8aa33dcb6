"""Publishing, for tasks: the choices of the blocking client, awaited where they must ask the broker or wait for room.

Owns: what is awaited. Does not own: which path a message takes (shmq_clients.publishing), either path.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Unpack

from shmq.core._core import Loan
from shmq.errors import InvalidArgument, NotFound, ShmqError
from shmq.limits import BODY_BYTES_MAX
from shmq_clients.aio.attachments import AsyncAttachments
from shmq_clients.aio.direct_path import AsyncDirectPath
from shmq_clients.aio.link import AsyncLink
from shmq_clients.aio.socket_path import AsyncSocketPath
from shmq_clients.attachments import Attachment
from shmq_clients.direct_path import QueueGone
from shmq_clients.lending import AsyncLoaned
from shmq_clients.outgoing import Outgoing, PublishKeywords
from shmq_clients.publishing import GONE, Copy, Publishing, check_bodies, check_taken, not_whole, one_of


class AsyncPublishing(Publishing):
    """Of one connection. `insist`: mode "direct", where nothing goes through the broker."""

    def __init__(
        self, link: AsyncLink, attachments: AsyncAttachments, socket_path: AsyncSocketPath, *, insist: bool
    ) -> None:
        super().__init__(attachments, socket_path, insist=insist)
        self._link = link
        self._in_segment = AsyncDirectPath(attachments)
        self._by_broker = socket_path
        self._attached = attachments.attached

    async def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None:  # type: ignore[override] # noqa: ANN401 - awaited here; any buffer
        """As `AsyncConnection.publish`."""
        out = self._checked(keywords)
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        copies = await self._addressed(out)
        if copies is None:
            await self._by_broker.publish(body, self._in_order(out))
            return
        if len(copies) == 1:
            publish = self._in_segment.publish
            done = await self._put_into(copies[0], lambda to, as_: publish(to, as_, body, deadline_ns))
        else:
            done = await self._published_to(copies, [body], deadline_ns)
        check_taken(out, taken=done > GONE)

    async def publish_many(self, bodies: Sequence[Any], **keywords: Unpack[PublishKeywords]) -> None:  # type: ignore[override] # awaited here
        """As `AsyncConnection.publish_many`."""
        out = self._checked(keywords)
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        copies = await self._addressed(out)
        if copies is None:
            await self._by_broker.publish_many(bodies, self._in_order(out))
            return
        if len(copies) == 1:
            publish = self._in_segment.publish_many
            done = await self._put_into(copies[0], lambda to, as_: publish(to, as_, bodies, 0, deadline_ns))
        else:
            done = await self._published_to(copies, bodies, deadline_ns)
        check_taken(out, taken=done > GONE)

    def loan(self, body_bytes: int, **keywords: Unpack[PublishKeywords]) -> AbstractAsyncContextManager[memoryview]:  # type: ignore[override] # awaited here
        """As `AsyncConnection.loan`."""
        if type(body_bytes) is not int or not 0 <= body_bytes <= BODY_BYTES_MAX:
            raise InvalidArgument(argument="body_bytes", value=body_bytes, allowed=f"0 to {BODY_BYTES_MAX} bytes")
        return AsyncLoaned(self._lent(body_bytes, self._checked(keywords), keywords))

    @contextlib.asynccontextmanager
    async def _lent(self, body_bytes: int, out: Outgoing, keywords: PublishKeywords) -> AsyncIterator[memoryview]:
        loan, others = await self._loan_in_segment(body_bytes, out)
        if loan is None:
            body = bytearray(body_bytes)
            yield memoryview(body)
            await self.publish(body, **keywords)
            return
        refusal: ShmqError | None = None
        with loan as buffer:
            yield buffer
            try:
                await self._published_to(others, [buffer], time.monotonic_ns() + out.timeout_ns)
            except ShmqError as error:
                refusal = error
        if refusal is not None:
            raise refusal

    async def _loan_in_segment(self, body_bytes: int, out: Outgoing) -> tuple[Loan | None, list[Copy]]:
        """Return memory of the first queue, and the others; None without any to write into."""
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        copies = await self._addressed(out)
        if not copies:
            return None, []
        try:
            return await self._in_segment.loan(*copies[0], body_bytes, deadline_ns), copies[1:]
        except QueueGone:
            return None, []

    # -- the path -----------------------------------------------------------------------------------------------------

    async def _addressed(self, out: Outgoing) -> list[Copy] | None:
        return await self._link.settled(lambda: self._copies(out))

    async def _published_to(self, copies: list[Copy], bodies: Sequence[Any], deadline_ns: int) -> int:
        """As `_publish_to`. Returns the most that any queue has. GONE: none of them is there any more."""
        if not copies:
            check_bodies(bodies)
        refusals: list[ShmqError] = []
        taken = [await self._tried(copy, bodies, 0, None, refusals) for copy in copies]
        while len(full := not_whole(taken, bodies)) > 1 and time.monotonic_ns() < deadline_ns:
            await self._in_segment.wait_a_while(*copies[full[0]], deadline_ns)
            for index in full:
                taken[index] = await self._tried(copies[index], bodies, taken[index], None, refusals)
        for index in full:
            await self._tried(copies[index], bodies, taken[index], deadline_ns, refusals)
        if refusals:
            raise one_of(refusals)
        return max(taken, default=GONE)

    async def _tried(
        self, copy: Copy, bodies: Sequence[Any], start: int, deadline_ns: int | None, refusals: list[ShmqError]
    ) -> int:
        """As `_try_to`."""
        publish = self._in_segment.publish_many
        try:
            return await self._put_into(copy, lambda to, as_: publish(to, as_, bodies, start, deadline_ns))
        except ShmqError as error:
            refusals.append(error)
            return len(bodies)

    async def _put_into(self, copy: Copy, publish: Callable[[Attachment, Outgoing], Awaitable[int]]) -> int:
        """As `_into`."""
        target, out = copy
        try:
            return await publish(target, out)
        except QueueGone:
            self._attachments.forget(target)
            if out.exchange:
                return GONE
            try:
                return await publish(await self._attached(target.name), out)
            except (QueueGone, NotFound):
                return GONE
