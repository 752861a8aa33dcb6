"""The queues that this connection works in directly, for the tasks of an event loop.

Owns: attaching and new bells where they must be awaited. Does not own: what it inherits, waiting at bells (bells.py).
Invariants: readers of a bell are gone from the loop before its descriptor is closed.
"""

import contextlib
import time
from typing import ClassVar

from shmq.core import _core as core
from shmq.errors import NotFound, OperationTimeout
from shmq.wire.frames import Welcome
from shmq_clients.aio.bells import Bells
from shmq_clients.aio.link import AsyncLink
from shmq_clients.aio.message import AsyncDirectMessage, Context
from shmq_clients.attachments import FRESHEN_SECONDS_MAX, SETTLING_SECONDS, TAKE_TURNS, Attachment, Attachments
from shmq_clients.session import Session


class AsyncAttachments(Attachments):
    """What may have to ask the broker is awaited, the rest is as inherited."""

    message_type: ClassVar[type[core.Message]] = AsyncDirectMessage

    def __init__(self, link: AsyncLink) -> None:
        super().__init__(link)
        self._link = link
        self.bells = Bells(link, self)
        link.on_change.append(self.bells.tell_all)

    def on_welcome(self, session: Session, welcome: Welcome) -> None:
        """As inherited."""
        super().on_welcome(session, welcome)
        self.bells.hurry(SETTLING_SECONDS)

    def is_served(self, name: str) -> bool:
        """Whether this queue is attached, and messages are taken from it directly."""
        found = self._by_name.get(name)
        if found is None or self._link.closed:
            return False
        return not found.queue.deleted and not found.queue.brokered

    async def attached(self, name: str) -> Attachment:
        """As `attach`."""
        found = self._by_name.get(name)
        if found is not None and not found.queue.deleted:
            return found
        return await self._link.settled(lambda: self.attach(name))

    async def current(self, attachment: Attachment) -> Attachment:
        """As `refreshed`. Awaits nothing while the queue is attached as it was."""
        if self.is_current(attachment):
            return attachment
        return await self._link.settled(lambda: self.refreshed(attachment))

    def forget(self, attachment: Attachment) -> None:
        """As inherited; who waits there finds out."""
        super().forget(attachment)
        self.bells.tell(attachment.queue)

    def _context(self, name: str) -> object:
        return Context(name)

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def wait_at(self, attachment: Attachment, side: int, timeout: float) -> None:
        """Wait until it is worth looking at the queue again, at most `timeout` seconds; then look at once.

        For messages only while there is a broker, or may soon be one again: raises as `Link.check_reach`.
        """
        if side == core.CONSUMERS:
            self._link.check_reach()
        await self.bells.wait(attachment, side, timeout)

    async def gone(self, attachment: Attachment) -> NotFound:
        """As `deleted`."""
        await self._link.changed.wait(TAKE_TURNS)
        return self.deleted(attachment)

    async def freshened(self, attachment: Attachment) -> None:
        """As `freshen`."""
        if not attachment.queue.bells_stale or time.monotonic() < self._freshen_at:
            return
        deadline = time.monotonic() + FRESHEN_SECONDS_MAX
        while self._link.session is None and (remaining := deadline - time.monotonic()) > 0:
            await self._link.changed.wait(remaining)
        asked = self._ask_for_bells(attachment.name)
        if asked is not None:
            with contextlib.suppress(OperationTimeout):
                await self._link.answered(asked, deadline, FRESHEN_SECONDS_MAX)
        if attachment.queue.bells_stale and not self._renew(attachment):
            self._freshen_at = time.monotonic() + FRESHEN_SECONDS_MAX

    def _set_bells(self, queue: core.Queue, bells: tuple[int, int, int], epoch: int) -> None:
        self.bells.leave(queue)
        super()._set_bells(queue, bells, epoch)
        self.bells.look(queue)

    def close(self) -> bool:
        """As inherited."""
        self.bells.close()
        return super().close()
