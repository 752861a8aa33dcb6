"""Who consumes over a socket: a consumer, a get that waits, a delivery that is out; and who is served next.

Owns: prefetch, priority, exclusiveness, the one that is active. Does not own: taking and settling (consuming.py).
Invariants: higher priority is served first while it has room, equals in turn; where only one is active nobody else is
served; an exclusive consumer is the only one (AMQP 0-9-1, basic.consume).
"""

import secrets
from typing import TYPE_CHECKING, Final

from shmq.core._core import Message
from shmq.errors import AccessRefused, DirectRefused, NotAllowed
from shmq.limits import CHANNELS_MAX, CONSUMERS_MAX
from shmq.names import check_name
from shmq.wire import frames as wire
from shmq_daemon import policy
from shmq_daemon.clients import Client
from shmq_daemon.opened import OpenQueue

if TYPE_CHECKING:
    from shmq_daemon.loop import Timer

UNLIMITED: Final = 1 << 30


class Prefetch:
    """What may be unacked at a time: of one consumer, of several that share it, or of all of a channel."""

    __slots__ = ("prefetch", "sharers", "unacked")

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch  # 0: any number
        self.sharers = 0  # consumers, of a prefetch that is shared
        self.unacked = 0

    def room(self) -> int:
        """How many more may be."""
        return self.prefetch - self.unacked if self.prefetch else UNLIMITED


class Channel:
    """One channel of one client; 0 is for all who name none."""

    __slots__ = ("held", "number", "window")

    def __init__(self, number: int) -> None:
        self.number = number
        self.held: dict[int, Held] = {}  # of what its client holds
        self.window = Prefetch(0)  # of its consumers' deliveries; those of gets don't count


def channel_of(client: Client, number: int) -> Channel:
    """Return it, begun now if it is new. Raises NotAllowed."""
    channel = client.channels.get(number)
    if channel is None:
        if number > CHANNELS_MAX:
            raise NotAllowed(f"channel {number} is none: there are {CHANNELS_MAX} of a connection, numbered from 1")
        channel = client.channels[number] = Channel(number)
    return channel


class Held:
    """A delivery that is not settled. `consumer` may have ended; a get has none."""

    __slots__ = ("channel", "consumer", "deadline_ns", "message", "opened")

    def __init__(self, message: Message, opened: OpenQueue, channel: Channel, consumer: "Consumer | None") -> None:
        self.message = message
        self.opened = opened
        self.channel = channel
        self.consumer = consumer
        self.deadline_ns = 0  # of its consumer's ack timeout

    @property
    def consumer_tag(self) -> str:
        """Its consumer's; a get has none."""
        return self.consumer.tag if self.consumer is not None else ""


class Consumer:
    """One consumer of one client."""

    def __init__(self, client: Client, opened: OpenQueue, tag: str, frame: wire.Consume) -> None:
        self.client = client
        self.opened = opened
        self.tag = tag
        self.channel = channel_of(client, frame.channel)
        self.no_ack = frame.no_ack
        self.exclusive = frame.exclusive
        self.priority = frame.priority
        self.ack_timeout_ns = frame.ack_timeout_ns  # 0: none of its own
        self.direct = frame.direct  # takes by itself: it is here to be counted
        self._share(frame)

    def _share(self, frame: wire.Consume) -> None:
        """A prefetch of its own, or that of all consumers of its channel that name the same."""
        own, self._shares = Prefetch(frame.prefetch), frame.shares
        at = (self.channel.number, frame.shares)
        self.prefetch = self.client.shared.setdefault(at, own) if frame.shares else own
        self.prefetch.sharers += 1

    @property
    def waits_with_others(self) -> bool:
        """Whether one settled message may make room for other consumers, too."""
        return bool(self.channel.window.prefetch or self._shares)

    def asks_us_now(self, opened: OpenQueue, frame: wire.Consume) -> bool:
        """Whether it took by itself, and is to be served by us: one and the same consumer, never gone in between."""
        return self.direct and not frame.direct and self.opened is opened

    def come_to_us(self, frame: wire.Consume) -> None:
        """Be served by us: what bounded it until now was its own affair."""
        self.leave()
        self._share(frame)
        self.direct = False

    def room(self) -> int:
        """How many messages it takes now. Who shares leaves some to the others."""
        session = self.client.session
        if session is None or session.is_full or self.direct:
            return 0
        if self.no_ack:
            return UNLIMITED
        room = min(self.prefetch.room(), self.channel.window.room())
        return max(1, room // self.prefetch.sharers) if room > 0 and self.prefetch.sharers > 1 else room

    def leave(self) -> None:
        """It shares no more. What it has unacked still counts for those who do."""
        self.prefetch.sharers -= 1
        if not self.prefetch.sharers:
            self.client.shared.pop((self.channel.number, self._shares), None)

    def count(self, deliveries: int) -> None:
        """So many more are unacked, or fewer."""
        self.prefetch.unacked += deliveries
        self.channel.window.unacked += deliveries


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


def admit(client: Client, opened: OpenQueue, frame: wire.Consume, why_not_direct: str) -> Consumer:
    """Return the consumer that the frame asks for, one of the queue's now. Raises NotAllowed, AccessRefused; and
    DirectRefused where there is a reason why it may not take by itself.
    """
    opened.core  # noqa: B018 - raises for a queue that is set apart
    tag = frame.consumer_tag or f"ctag-{secrets.token_hex(8)}"
    check_name(tag, "consumer_tag")
    before = client.consumers.get(tag)
    if before is not None and not before.asks_us_now(opened, frame):
        raise NotAllowed(f"consumer tag {tag!r} is in use on this connection; choose another")
    if why_not_direct:
        raise DirectRefused(queue=opened.name, reason=why_not_direct)
    check_exclusive(opened, frame)
    if before is None and len(client.consumers) >= CONSUMERS_MAX:
        raise NotAllowed(f"this connection has {CONSUMERS_MAX} consumers, which is all that it may have; cancel some")
    if before is not None:
        before.come_to_us(frame)
        return before
    consumer = client.consumers[tag] = Consumer(client, opened, tag, frame)
    opened.consumers.append(consumer)
    return consumer


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


def delivery_of(tag: int, message: Message) -> wire.Delivery:
    """The message as it is told."""
    return wire.Delivery(
        tag,
        message.priority,
        message.flags,
        message.delivery_count,
        message.failure_count,
        message.sequence,
        message.expires_ns,
        message.envelope,
        message.body,
        message.sender,
    )
