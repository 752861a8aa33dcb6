"""Who consumes over a socket: a consumer, a get that waits, a delivery that is out; and who is served next.

Owns: prefetch, priority, exclusiveness, the one that is active. Does not own: taking and settling (consuming.py).
Invariants: higher priority is served first while it has room, equals in turn; where only one is active nobody else is
served; an exclusive consumer is the only one (AMQP 0-9-1, basic.consume).
"""

from typing import TYPE_CHECKING, Final

from shmq.core._core import Message
from shmq.errors import AccessRefused
from shmq.wire import frames as wire
from shmq_daemon import policy
from shmq_daemon.clients import Client
from shmq_daemon.opened import OpenQueue

if TYPE_CHECKING:
    from shmq_daemon.loop import Timer

UNLIMITED: Final = 1 << 30


class Held:
    """A delivery that is not settled."""

    __slots__ = ("consumer_tag", "deadline_ns", "message", "opened")

    def __init__(self, message: Message, opened: OpenQueue, consumer_tag: str) -> None:
        self.message = message
        self.opened = opened
        self.consumer_tag = consumer_tag
        self.deadline_ns = 0  # of its consumer's ack timeout


class Consumer:
    """One consumer of one client."""

    def __init__(self, client: Client, opened: OpenQueue, tag: str, frame: wire.Consume) -> None:
        self.client = client
        self.opened = opened
        self.tag = tag
        self.prefetch = frame.prefetch
        self.no_ack = frame.no_ack
        self.exclusive = frame.exclusive
        self.priority = frame.priority
        self.ack_timeout_ns = frame.ack_timeout_ns  # 0: none of its own
        self.direct = frame.direct  # takes by itself: it is here to be counted
        self.unacked = sum(held.consumer_tag == tag and held.opened is opened for held in client.held.values())

    def room(self) -> int:
        """How many messages it takes now."""
        session = self.client.session
        if session is None or session.is_full or self.direct:
            return 0
        if self.no_ack:
            return UNLIMITED
        own = self.prefetch - self.unacked if self.prefetch else UNLIMITED
        return min(own, self.client.prefetch - len(self.client.held)) if self.client.prefetch else own


class Waiting:
    """A get that found nothing yet."""

    def __init__(self, client: Client, frame: wire.Get, opened: OpenQueue) -> None:
        self.client = client
        self.frame = frame
        self.opened = opened
        self.timer: Timer | None = None
        client.gets_waiting += 1

    def end(self) -> None:
        """It is served, or will not be."""
        self.client.gets_waiting -= 1
        if self.timer is not None:
            self.timer.cancel()


def check_exclusive(opened: OpenQueue, frame: wire.Consume) -> None:
    """AMQP 0-9-1, basic.consume: an exclusive consumer is the only one."""
    if frame.exclusive and policy.has_one_active(opened.queue.definition):
        raise AccessRefused(what=f"queue {opened.name!r}", reason="one of its consumers is active, and none exclusive")
    if frame.exclusive and opened.consumers:
        raise AccessRefused(what=f"queue {opened.name!r}", reason="it has consumers, so none can be exclusive")
    if any(consumer.exclusive for consumer in opened.consumers):
        raise AccessRefused(what=f"queue {opened.name!r}", reason="it has an exclusive consumer")


def next_with_room(opened: OpenQueue) -> Consumer | None:
    """In turn among those of the highest priority that have room; where only one is active, that one."""
    if policy.has_one_active(opened.queue.definition):
        return opened.active if opened.active is not None and opened.active.room() > 0 else None
    found: Consumer | None = None
    for consumer in opened.consumers:
        if (found is None or consumer.priority > found.priority) and consumer.room() > 0:
            found = consumer
            if not opened.core.brokered:
                break  # all are equal
    if found is not None:
        opened.consumers.remove(found)
        opened.consumers.append(found)
    return found
