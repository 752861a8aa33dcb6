"""One consumer over several queues: in turn, each by its own priorities, with one prefetch for all.

Owns: waiting at all of them. Does not own: whose turn it is (turns.py), taking from one queue (consumer.py), the shared
prefetch (core.Ledger here, the broker for what it pushes).
Invariants: a queue that goes is told once, by its name, and the others go on; none waits behind another that has
messages.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from shmq.core import _core as core
from shmq.errors import InvalidArgument
from shmq.names import check_name
from shmq_clients.attachments import STALE_SLICE_NS, Attachments
from shmq_clients.consumer import SLICE_NS, DirectConsumer, SocketConsumer, wait_for_acks
from shmq_clients.link import SLICE
from shmq_clients.turns import Turns

QUEUES_MAX: Final = 256

Part: TypeAlias = DirectConsumer | SocketConsumer


def queues_of(queues: Any) -> list[str]:  # noqa: ANN401 - what a program may get wrong, too
    """Return their names. Raises InvalidName, InvalidArgument for none, too many, or one twice."""
    names = list(queues) if isinstance(queues, list | tuple) else [queues]
    for name in names:
        check_name(name, "queue")
    if not 0 < len(names) <= QUEUES_MAX or len(set(names)) < len(names):
        allowed = f"the name of a queue, or a list of 1 to {QUEUES_MAX} names, each once"
        raise InvalidArgument(argument="queue", value=queues, allowed=allowed)
    return names


class SeveralConsumer:
    """What `consume` returns for a list of queues: iterate over it, again after a NotFound."""

    def __init__(
        self, consumer_tag: str, parts: Sequence[Part], ledger: core.Ledger, attachments: Attachments, keep: object
    ) -> None:
        self.consumer_tag = consumer_tag
        self._turns = Turns(parts, lambda part: part.cancel())
        self._parts = self._turns.places
        self._ledger = ledger
        self._attachments = attachments
        self._keep = keep
        self._cancelled = False

    @property
    def queue_name(self) -> str:
        """The names of its queues that are there, with commas."""
        return ", ".join(part.queue_name for part in self._parts)

    @property
    def parts(self) -> Sequence[Part]:
        """One for each queue that is there."""
        return self._parts

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - a message, as its parts make it
        while self._parts and not self._cancelled:
            message = self.take()
            if message is not None:
                return message
            self._wait()
        raise StopIteration

    def take(self) -> Any:  # noqa: ANN401 - the same
        """Return a message that is there, without waiting for one, or None. Raises NotFound of a queue that is gone."""
        return self._turns.take()

    def _wait(self) -> None:
        link = self._attachments.link
        link.raise_failures()
        link.check_reach()
        if not any(part.has_room for part in self._parts):
            wait_for_acks(link, lambda: self._cancelled or any(part.has_room for part in self._parts))
            return
        attached = (part.attachment for part in self._parts)
        attachments = [one for one in attached if one is not None and not one.queue.closed]
        if not attachments:
            link.advance(SLICE, self._has_news)
        elif not self._has_news():
            # Another thread may read for us what is pushed to the others: no bell tells of that.
            slice_ns = SLICE_NS if len(attachments) == len(self._parts) else STALE_SLICE_NS
            self._attachments.wait_any(attachments, core.CONSUMERS, slice_ns)

    def _has_news(self) -> bool:
        return self._cancelled or any(part.has_news() for part in self._parts)

    def set_prefetch(self, prefetch: int) -> None:
        """Let so many be unacked from now on, of all its queues together. It may be below what is out."""
        self._ledger.prefetch = prefetch
        for part in self._parts:
            part.set_prefetch(prefetch)

    @property
    def is_over(self) -> bool:
        """Whether it hands out nothing more."""
        return self._cancelled or all(part.is_over for part in self._parts)

    def cancel(self) -> None:
        """End the iteration, also one that waits in another thread. What was handed out stays unacked."""
        if self._cancelled:
            return
        self._cancelled = True
        for part in self._parts:
            part.cancel()
