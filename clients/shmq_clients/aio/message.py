"""One delivery in either mode, with settling that is awaited.

Owns: the two message classes, telling who waits for acks. Does not own: what a message carries (shmq_clients.message).
Invariants: settling has taken effect, or is on its way in socket mode, before anything is awaited: to cancel it later
changes nothing.
"""

from collections.abc import Awaitable
from typing import Protocol, cast

from shmq.core._core import Message as CoreMessage
from shmq.core._core import Queue
from shmq_clients.aio.waiting import Waiters
from shmq_clients.durations import nanoseconds
from shmq_clients.flags import check_flags
from shmq_clients.message import Enveloped, SocketMessage, check_given_back


class Context:
    """What the messages of a queue know it by. `settled`: consumers whose prefetch is full."""

    __slots__ = ("name", "settled")

    def __init__(self, name: str) -> None:
        self.name = name
        self.settled = Waiters()

    def tell(self) -> None:
        """One was settled, or more."""
        if self.settled:
            self.settled.tell_all()


def context_of(queue: Queue) -> Context:
    """Return it, of a queue that this client attached."""
    context: Context = queue.context
    return context


class AsyncDirectMessage(CoreMessage, Enveloped):
    """A delivery whose settling is one compare-and-swap in the segment: awaiting it never waits."""

    __slots__ = ()

    @property
    def queue_name(self) -> str:
        return context_of(self.queue).name

    async def ack(self) -> None:  # type: ignore[override] # awaited here
        CoreMessage.ack(self)
        context_of(self.queue).tell()

    async def nack(self, requeue: bool = True, delay: float | None = None) -> None:  # type: ignore[override] # noqa: FBT001, FBT002 - AMQP's form
        check_given_back(requeue, delay)
        CoreMessage.nack(self, requeue, delay)
        context_of(self.queue).tell()

    async def reject(self, requeue: bool = False) -> None:  # type: ignore[override] # noqa: FBT001, FBT002 - AMQP's form
        check_flags(requeue=requeue)
        CoreMessage.reject(self, requeue)
        context_of(self.queue).tell()

    async def touch(self, extend: float) -> None:  # type: ignore[override] # awaited here
        nanoseconds(extend, "extend")
        CoreMessage.touch(self, extend)


class Writing(Protocol):
    """What settling awaits."""

    def written(self) -> Awaitable[None]:
        """Wait until what was said is with the kernel. Raises StaleDelivery when the session ended before."""


class AsyncSocketMessage(SocketMessage):
    """A delivery that came in a frame and is settled by one. Awaiting it waits until the kernel has that."""

    __slots__ = ()

    def _written(self) -> Awaitable[None]:
        return cast("Writing", self.session).written()

    async def ack(self) -> None:  # type: ignore[override] # awaited here
        super().ack()
        await self._written()

    async def nack(self, requeue: bool = True, delay: float | None = None) -> None:  # type: ignore[override] # noqa: FBT001, FBT002 - AMQP's form
        super().nack(requeue, delay)
        await self._written()

    async def reject(self, requeue: bool = False) -> None:  # type: ignore[override] # noqa: FBT001, FBT002 - AMQP's form
        super().reject(requeue)
        await self._written()

    async def touch(self, extend: float) -> None:  # type: ignore[override] # awaited here
        super().touch(extend)
        await self._written()
