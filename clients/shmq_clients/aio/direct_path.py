"""The data path in the segment, for tasks: publish into a queue, lend a body, get; and waiting for room or messages.

Owns: what is awaited. Does not own: what each outcome of the core means (shmq_clients.direct_path).
Invariants: those of the blocking path, and: what was taken is returned before anything is awaited, so to cancel a get
takes nothing; to cancel a publish that waits publishes nothing.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from shmq.core import _core as core
from shmq.errors import PublishError
from shmq.limits import TIME_NS_MAX
from shmq_clients.aio.attachments import AsyncAttachments
from shmq_clients.attachments import Attachment
from shmq_clients.direct_path import NO_ROOM, keywords_for, look, time_for_room, until_next_look
from shmq_clients.durations import SECOND_NS
from shmq_clients.link import SLICE
from shmq_clients.outgoing import Outgoing

T = TypeVar("T")

AT_ONCE_MAX: Final = 1000  # bodies published between two turns of the loop


class AsyncDirectPath:
    """Works in attached queues."""

    def __init__(self, attachments: AsyncAttachments) -> None:
        self._attachments = attachments

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def publish(self, target: Attachment, out: Outgoing, body: Any, deadline_ns: int) -> int:  # noqa: ANN401 - any buffer
        """Publish one message. Returns 1. Raises QueueFull, ShmFull, BodyTooLarge; QueueGone."""
        await self._attachments.freshened(target)
        queue, keywords = target.queue, keywords_for(target, out)
        while (outcome := queue.publish(body, **keywords)) != core.OK:
            await self._wait_for_room(target, outcome, memoryview(body).nbytes, out, deadline_ns)
        return 1

    async def publish_many(
        self, target: Attachment, out: Outgoing, bodies: Sequence[Any], start: int, deadline_ns: int | None
    ) -> int:
        """Publish in order from `start` on; an error, or being cancelled, leaves the first ones published. Without a
        deadline only what there is room for. Returns how many the queue has, counted from the first. Raises as
        `publish`.
        """
        await self._attachments.freshened(target)
        queue, keywords, done = target.queue, keywords_for(target, out), start
        while True:
            count, outcome = queue.publish_many(bodies[done : done + AT_ONCE_MAX], **keywords)
            done += count
            if done == len(bodies) or (deadline_ns is None and outcome in NO_ROOM):
                return done
            if outcome == core.OK:
                await asyncio.sleep(0)  # others run
                continue
            try:
                await self._wait_for_room(target, outcome, memoryview(bodies[done]).nbytes, out, deadline_ns or 0)
            except PublishError as error:
                error.published = done
                if len(bodies) > 1:
                    error.text = f"{error} ({done} of {len(bodies)} were published)"
                raise

    async def loan(self, target: Attachment, out: Outgoing, body_bytes: int, deadline_ns: int) -> core.Loan:
        """Lend room for a body. Raises as `publish`."""
        await self._attachments.freshened(target)
        queue, keywords = target.queue, keywords_for(target, out)
        while isinstance(loan := queue.loan(body_bytes, **keywords), int):
            await self._wait_for_room(target, loan, body_bytes, out, deadline_ns)
        return loan

    async def _wait_for_room(
        self, target: Attachment, outcome: int, size: int, out: Outgoing, deadline_ns: int
    ) -> None:
        remaining = time_for_room(target, outcome, size, out, deadline_ns)
        if out.timeout_ns == TIME_NS_MAX:
            self._attachments.link.check_reach()  # a wait without an end of its own
        await self._attachments.wait_at(target, core.PRODUCERS, remaining / SECOND_NS)
        self._attachments.link.check()

    async def wait_a_while(self, target: Attachment, out: Outgoing, deadline_ns: int) -> None:
        """As DirectPath's."""
        if out.timeout_ns == TIME_NS_MAX:
            self._attachments.link.check_reach()
        left = max(0.0, (deadline_ns - time.monotonic_ns()) / SECOND_NS)
        await self._attachments.wait_at(target, core.PRODUCERS, min(left, SLICE))
        self._attachments.link.check()

    # -- getting ------------------------------------------------------------------------------------------------------

    async def get(self, name: str, wait_ns: int, *, no_ack: bool) -> core.Message | None:
        """Return the next message, None when time is up. Raises NotFound."""
        return await self._until(name, wait_ns, lambda queue: queue.take(no_ack))

    async def get_batch(self, name: str, max_messages: int, wait_ns: int, *, no_ack: bool) -> list[core.Message]:
        """Wait for the first message, then return those that are there. An empty list when time is up."""
        return await self._until(name, wait_ns, lambda queue: queue.take_many(max_messages, no_ack)) or []

    async def _until(self, name: str, wait_ns: int, take: Callable[[core.Queue], T]) -> T:
        attachment = await self._attachments.attached(name)
        await self._attachments.freshened(attachment)
        taken = look(attachment, take)
        if taken or wait_ns == 0:
            return taken
        deadline = time.monotonic_ns() + wait_ns
        while not taken and (remaining := deadline - time.monotonic_ns()) > 0:
            if attachment.queue.deleted:
                raise await self._attachments.gone(attachment)
            slice_ns = until_next_look(attachment, remaining)
            await self._attachments.wait_at(attachment, core.CONSUMERS, slice_ns / SECOND_NS)
            self._attachments.link.check()
            attachment = await self._attachments.current(attachment)
            taken = look(attachment, take)
        return taken
