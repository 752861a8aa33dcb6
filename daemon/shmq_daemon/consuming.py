"""What socket clients consume: gets, consumers with prefetch, and the settling of what was delivered.

Owns: serving, what each client has out, ack timeouts of consumers. Does not own: who is next (consumers.py), the order
of messages (the core), sockets, the life of clients.
Invariants: a message is taken only for somebody who has room for it, so what waits in a write buffer is bounded; how
many gets of one client wait is, too; what a client has out goes back when it ends: uncounted when it said goodbye,
counted when it died or did not come back.
"""

import contextlib
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from shmq.core import _core
from shmq.core._core import Message
from shmq.errors import (
    AlreadySettled,
    HandleError,
    NotAllowed,
    NotFound,
    ShmqError,
    StaleDelivery,
)
from shmq.limits import DELIVERIES_BYTES, DELIVERIES_MAX, WAITING_GETS_MAX
from shmq.wire import frames as wire
from shmq.wire.codes import to_wire
from shmq_daemon import policy
from shmq_daemon.catalog import Catalog
from shmq_daemon.clients import Client, End
from shmq_daemon.consumers import Channel, Consumer, Held, Waiting, admit, channel_of, delivery_of, next_with_room
from shmq_daemon.control import Control
from shmq_daemon.log import Logger
from shmq_daemon.looking import Looking
from shmq_daemon.loop import Loop, Timers
from shmq_daemon.opened import OpenQueue
from shmq_daemon.replies import Replies, is_for_replies

SERVED_MAX: Final = 1024  # of one queue in one turn of the loop
TIMEOUT_LOOK_NS: Final = 250_000_000  # between two looks for overdue deliveries
OVERDUE_MAX: Final = 65_536  # of one client: who settles what is older hears that it was settled


class Consuming:
    """Serves all queues that socket clients wait on."""

    def __init__(self, catalog: Catalog, loop: Loop, timers: Timers, log: Logger) -> None:
        self._catalog = catalog
        self._loop = loop
        self._timers = timers
        self._log = log
        self._due: dict[int, OpenQueue] = {}  # to be served in this turn
        self._roomy: dict[Client, Consumer | None] = {}  # all of whose queues are to be, those behind this one's first
        self.replies: Replies  # set by who makes queues
        self.on_damage: Callable[[OpenQueue, ShmqError], None] = lambda _opened, _error: None
        self._looking = Looking(catalog.open, timers, _core.CONSUMERS, self._look)
        self._timed: set[Client] = set()  # who may hold what is to be acked in time
        self._settle: Mapping[type, Callable[[Message, Any], None]] = {
            wire.Ack: lambda message, _frame: message.ack(),
            wire.Nack: _nack,
            wire.Reject: lambda message, frame: message.reject(requeue=frame.requeue),
        }

    def table(self) -> dict[type, Callable[[Client, Any], None]]:
        return {
            wire.Get: self.on_get,
            wire.Consume: self.on_consume,
            wire.Cancel: self.on_cancel,
            wire.CancelGet: self.on_cancel_get,
            wire.SetPrefetch: self.on_set_prefetch,
            wire.CloseChannel: self.on_close_channel,
            wire.Ack: self.on_settle,
            wire.Nack: self.on_settle,
            wire.Reject: self.on_settle,
            wire.Recover: self.on_recover,
            wire.Touch: self.on_touch,
        }

    # -- frames -----------------------------------------------------------------------------------------------

    def on_get(self, client: Client, frame: wire.Get) -> None:
        opened = self._catalog.opened(frame.queue, client.connection_id)
        opened.used()
        channel = channel_of(client, frame.channel)
        deliveries = self._take(client, opened, frame.max_messages, channel, no_ack=frame.no_ack)
        if deliveries or frame.max_wait_ns == 0:
            _answer(client, wire.Got(frame.seq, deliveries))
            return
        if client.gets_waiting >= WAITING_GETS_MAX:
            raise NotAllowed(f"{WAITING_GETS_MAX} gets of this connection wait already, which is all that may")
        waiting = Waiting(client, frame, opened)
        waiting.timer = self._timers.after(frame.max_wait_ns, functools.partial(self._give_up, waiting))
        opened.waiting.append(waiting)
        self.wake(opened)

    def on_cancel_get(self, client: Client, frame: wire.CancelGet) -> None:
        queues = self._catalog.open.values()
        waiting = (one for opened in queues for one in opened.waiting if one.client is client)
        found = next((one for one in waiting if one.frame.seq == frame.get), None)
        if found is not None:
            self._give_up(found, 0)
        if frame.seq:
            _answer(client, wire.Ok(frame.seq))

    def _give_up(self, waiting: Waiting, _now_ns: int) -> None:
        waiting.opened.waiting.remove(waiting)
        waiting.end()
        waiting.opened.used()
        _answer(waiting.client, wire.Got(waiting.frame.seq, []))
        self.wake(waiting.opened)

    def on_consume(self, client: Client, frame: wire.Consume) -> None:
        replies = self.replies.asked_for(client, frame)
        opened = replies or self._catalog.opened(frame.queue, client.connection_id)
        try:
            reason = Control.why_not_consumed(client, opened) if frame.direct else ""
            consumer = admit(client, opened, frame, reason)
        except ShmqError:
            if replies is not None and not opened.had_consumer:  # it was made for this one
                self._catalog.delete_queue(opened.queue)
            raise
        opened.had_consumer = True
        self._decide(opened)
        _answer(client, wire.Consuming(frame.seq, consumer.tag, opened.name if replies else ""))
        self._tell_consumer("consumer started", consumer)
        self.wake(opened)

    def on_cancel(self, client: Client, frame: wire.Cancel) -> None:
        consumer = client.consumers.get(frame.consumer_tag)
        if consumer is None:
            raise NotFound(kind="consumer", name=frame.consumer_tag)
        self._remove(consumer)
        self._delete_if_auto(consumer.opened)
        _answer(client, wire.Ok(frame.seq))

    def on_set_prefetch(self, client: Client, frame: wire.SetPrefetch) -> None:
        if not frame.consumer_tag:
            channel_of(client, frame.channel).window.prefetch = frame.prefetch
        elif frame.consumer_tag in client.consumers:
            client.consumers[frame.consumer_tag].prefetch.prefetch = frame.prefetch
        else:
            raise NotFound(kind="consumer", name=frame.consumer_tag)
        _answer(client, wire.Ok(frame.seq))
        self.wake_all_of(client)

    def on_close_channel(self, client: Client, frame: wire.CloseChannel) -> None:
        channel = channel_of(client, frame.channel)
        for consumer in [consumer for consumer in client.consumers.values() if consumer.channel is channel]:
            self._remove(consumer)
            self._delete_if_auto(consumer.opened)
        given_back = self.give_back(client, counted=False, channel=channel)
        del client.channels[channel.number]
        _answer(client, wire.Counted(frame.seq, given_back.total()))

    def on_settle(self, client: Client, frame: wire.Ack | wire.Nack | wire.Reject) -> None:
        tags: Iterable[int] = frame.delivery_tags
        if isinstance(frame, wire.Ack | wire.Nack) and frame.multiple:
            last = max(frame.delivery_tags, default=client.last_tag)
            tags = list(itertools.takewhile(last.__ge__, client.held))  # which is in the order of tags
        settle = self._settle[type(frame)]
        self._each(client, tags, lambda message: settle(message, frame), release=True)
        if frame.seq:
            _answer(client, wire.Ok(frame.seq))

    def on_touch(self, client: Client, frame: wire.Touch) -> None:
        self._each(client, frame.delivery_tags, lambda message: message.touch(frame.extend_ns / 1e9), release=False)
        for held in filter(None, map(client.held.get, frame.delivery_tags)):
            if held.deadline_ns:
                held.deadline_ns = time.monotonic_ns() + frame.extend_ns
        if frame.seq:
            _answer(client, wire.Ok(frame.seq))

    def on_recover(self, client: Client, frame: wire.Recover) -> None:
        channel = channel_of(client, frame.channel) if frame.channel else None
        given_back = self.give_back(client, counted=False, channel=channel)
        _answer(client, wire.Counted(frame.seq, given_back.total()))

    def _each(self, client: Client, tags: Iterable[int], act: Callable[[Message], None], *, release: bool) -> None:
        """Do it to every delivery; the first failure is raised when all have had their turn."""
        failed: ShmqError | None = None
        for tag in tags:
            try:
                act(self._find(client, tag, release=release).message)
            except HandleError:
                continue  # the queue is gone, and with it what there was to settle
            except ShmqError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _find(self, client: Client, tag: int, *, release: bool) -> Held:
        held = client.held.get(tag)
        if held is None:
            if tag in client.overdue:
                del client.overdue[tag]
                raise StaleDelivery("its ack timeout had ended; the message went back to its queue. Nothing changed")
            if tag <= client.first_tag:
                raise StaleDelivery(f"delivery {tag} is of an earlier broker; the message went back to its queue")
            raise AlreadySettled(f"delivery tag {tag} was settled before, or never given out")
        if release:
            self._release(client, tag)
        return held

    def _release(self, client: Client, tag: int) -> None:
        held = client.held.pop(tag)
        del held.channel.held[tag]
        consumer = held.consumer
        if consumer is None:
            return
        was_full = consumer.room() <= 0
        consumer.count(-1)
        if was_full and consumer.waits_with_others:
            self.wake_all_of(client, after=consumer)
        else:
            self.wake(held.opened)

    # -- serving ----------------------------------------------------------------------------------------------

    def wake(self, opened: OpenQueue) -> None:
        """Serve this queue before the loop waits again."""
        self._due[opened.queue.queue_id] = opened

    def wake_all_of(self, client: Client, after: Consumer | None = None) -> None:
        """In turn: those behind `after` first. Once, however many acks of a frame make room."""
        self._roomy[client] = after

    def _wake_roomy(self) -> None:
        roomy, self._roomy = self._roomy, {}
        for client, after in roomy.items():
            consumers = list(client.consumers.values())
            begin = consumers.index(after) + 1 if after in consumers else 0
            for consumer in consumers[begin:] + consumers[:begin]:
                self._due.pop(consumer.opened.queue.queue_id, None)
                self.wake(consumer.opened)

    @property
    def has_more(self) -> bool:
        """Whether there is something to do at once."""
        return bool(self._due or self._roomy)

    def tick(self) -> None:
        """Serve whoever may be served."""
        self._wake_roomy()
        due, self._due = self._due, {}
        for opened in due.values():
            if not opened.usable:
                continue
            try:
                self._serve(opened)
            except ShmqError as error:
                self.on_damage(opened, error)

    def _serve(self, opened: OpenQueue) -> None:
        served = 0
        while served < SERVED_MAX:
            count = self._serve_one(opened)
            if count < 0:
                break  # nobody wants anything, or nothing is there and we are registered
            served += count
        else:
            self.wake(opened)

    def _serve_one(self, opened: OpenQueue) -> int:
        """Give one batch to the next in turn. Returns its size, -1 when there is no more to do for now."""
        if opened.waiting:
            return self._serve_waiting(opened)
        consumer = next_with_room(opened)
        if consumer is None:
            opened.stop_waiting(self._loop, _core.CONSUMERS)
            return -1
        client, channel = consumer.client, consumer.channel
        deliveries = self._take(client, opened, consumer.room(), channel, consumer, no_ack=consumer.no_ack)
        if not deliveries:
            return self._wait_at(opened)
        if not consumer.no_ack:
            consumer.count(len(deliveries))
        _answer(client, wire.Deliver(consumer.tag, deliveries))
        if consumer.prefetch.sharers > 1:
            self.wake(opened)  # behind the other queues of those who share
            return -1
        return len(deliveries)

    def _serve_waiting(self, opened: OpenQueue) -> int:
        waiting = opened.waiting[0]
        frame = waiting.frame
        channel = channel_of(waiting.client, frame.channel)
        deliveries = self._take(waiting.client, opened, frame.max_messages, channel, no_ack=frame.no_ack)
        if not deliveries:
            return self._wait_at(opened)
        opened.waiting.popleft()
        waiting.end()
        _answer(waiting.client, wire.Got(frame.seq, deliveries))
        return len(deliveries)

    def _wait_at(self, opened: OpenQueue) -> int:
        """Nothing is there. As _serve_one: look once more, or wait."""
        if not opened.wait_for(self._loop, _core.CONSUMERS, self.wake):
            return -1
        self._looking.begin()
        return 0

    def _look(self, opened: OpenQueue) -> None:
        if opened.core.may_have(_core.CONSUMERS):
            self.wake(opened)

    def _take(
        self,
        client: Client,
        opened: OpenQueue,
        room: int,
        channel: Channel,
        consumer: Consumer | None = None,
        *,
        no_ack: bool,
    ) -> list[wire.Delivery]:
        deliveries: list[wire.Delivery] = []
        core, size = opened.core, 0
        while len(deliveries) < min(room, DELIVERIES_MAX) and size < DELIVERIES_BYTES:
            message = core.take(no_ack)
            if message is None:
                break
            client.last_tag += 1
            if not no_ack:
                held = Held(message, opened, channel, consumer)
                client.held[client.last_tag] = channel.held[client.last_tag] = held
                self._time(client, held)
            deliveries.append(delivery_of(client.last_tag, message))
            size += message.body_bytes
        return deliveries

    # -- ack timeouts of consumers; those of queues are the supervisor's --------------------------------------

    def _time(self, client: Client, held: Held) -> None:
        consumer = held.consumer
        if consumer is None or not consumer.ack_timeout_ns:
            return
        held.deadline_ns = time.monotonic_ns() + consumer.ack_timeout_ns
        if held.opened.queue.definition.ack_timeout_ms is not None:
            held.message.touch(consumer.ack_timeout_ns / 1e9)  # beats the queue's
        if not self._timed:
            self._timers.after(TIMEOUT_LOOK_NS, self._look_for_overdue)
        self._timed.add(client)

    def _look_for_overdue(self, now_ns: int) -> None:
        requeued: Counter[tuple[str, str]] = Counter()
        for client in list(self._timed):
            timed = [(tag, held) for tag, held in client.held.items() if held.deadline_ns]
            if not timed:
                self._timed.discard(client)
            for tag, held in timed:
                if held.deadline_ns <= now_ns:
                    self._requeue_overdue(client, tag, held)
                    requeued[held.opened.name, held.consumer_tag] += 1
        for (queue, consumer), count in requeued.items():
            self._log.info("ack timeout, requeued", queue=queue, consumer=consumer, requeued=count)
        if self._timed:
            self._timers.after(TIMEOUT_LOOK_NS, self._look_for_overdue)

    def _requeue_overdue(self, client: Client, tag: int, held: Held) -> None:
        self._release(client, tag)
        client.overdue[tag] = None
        if len(client.overdue) > OVERDUE_MAX:
            del client.overdue[next(iter(client.overdue))]
        with contextlib.suppress(ShmqError):  # settled by the queue's timeout meanwhile, or the queue is gone
            held.message.reject(requeue=True)

    # -- ends -------------------------------------------------------------------------------------------------

    def session_ended(self, client: Client) -> None:
        """Consumers, windows and gets end with the socket; what is out stays until the session is given up."""
        for consumer in list(client.consumers.values()):
            self._remove(consumer)
            client.left_queues.append(consumer.opened)
        for channel in client.channels.values():
            channel.window.prefetch = 0
        for opened in self._catalog.open.values():
            for waiting in [waiting for waiting in opened.waiting if waiting.client is client]:
                opened.waiting.remove(waiting)
                waiting.end()
                self.wake(opened)

    def client_ended(self, client: Client, how: End) -> None:
        self.session_ended(client)
        given_back = self.give_back(client, counted=how != "closed")
        if how != "closed":
            self._tell(client, how, given_back)
        for opened in client.left_queues:
            self._delete_if_auto(opened)
        client.left_queues.clear()

    def give_back(
        self, client: Client, *, counted: bool, channel: Channel | None = None
    ) -> Counter[tuple[OpenQueue, str]]:
        """Requeue all that a client, or one channel of it, has out, oldest first, so that it comes back in order. What
        failed too often is dead. Returns how many of which queue met which fate.
        """
        fates: Counter[tuple[OpenQueue, str]] = Counter()
        held_there = client.held if channel is None else channel.held
        for tag in sorted(held_there, key=lambda tag: client.held[tag].message.sequence):
            held = client.held[tag]
            message, opened = held.message, held.opened
            limit = policy.delivery_limit_of(opened.queue.definition)
            dies = counted and 0 <= limit <= message.failure_count
            self._release(client, tag)
            try:
                if counted:
                    message.reject(requeue=True)
                else:
                    message.nack(requeue=True)
            except ShmqError:
                continue  # given to somebody else meanwhile, or the queue is gone
            fates[opened, "dead" if dies else "requeued"] += 1
        return fates

    def _tell(self, client: Client, how: End, fates: Counter[tuple[OpenQueue, str]]) -> None:
        """As the supervisor does of a direct client: which queue got how many back, and why."""
        why = {"lost": "session lost"}.get(how, how)
        for opened in dict.fromkeys(opened for opened, _ in fates):
            self._log.info(
                "client reaped",
                queue=opened.name,
                client=client.owner,
                pid=client.row.pid,
                why=why,
                requeued=fates[opened, "requeued"],
                dead=fates[opened, "dead"],
                mode="socket",
            )

    def queue_deleted(self, opened: OpenQueue) -> None:
        """Tell everybody who waits on it."""
        self.end_all(opened, f"queue {opened.name!r} was deleted", NotFound(kind="queue", name=opened.name))

    def end_all(self, opened: OpenQueue, reason: str, error: ShmqError) -> None:
        """Nobody can be served from this queue any more: consumers are told the reason, gets the error."""
        for consumer in list(opened.consumers):
            consumer.leave()
            del consumer.client.consumers[consumer.tag]
            _answer(consumer.client, wire.Cancelled(consumer.tag, reason))
        opened.consumers.clear()
        while opened.waiting:
            waiting = opened.waiting.popleft()
            waiting.end()
            _answer(waiting.client, wire.Error(waiting.frame.seq, *to_wire(error)))
        self._due.pop(opened.queue.queue_id, None)

    def _tell_consumer(self, event: str, consumer: Consumer) -> None:
        client = consumer.client
        mode = "direct" if consumer.direct else "socket"
        queue, pid = consumer.opened.name, client.row.pid
        self._log.info(event, queue=queue, consumer=consumer.tag, client=client.owner, pid=pid, mode=mode)

    def _remove(self, consumer: Consumer) -> None:
        self._tell_consumer("consumer ended", consumer)
        consumer.leave()
        consumer.client.consumers.pop(consumer.tag, None)
        if consumer in consumer.opened.consumers:
            consumer.opened.consumers.remove(consumer)
            consumer.opened.used()
            self._decide(consumer.opened)
        self.wake(consumer.opened)

    def _decide(self, opened: OpenQueue) -> None:
        """Who is active, where only one is; whether all must come to us for messages."""
        one_active = policy.has_one_active(opened.queue.definition)
        if one_active and opened.active not in opened.consumers:
            opened.active = max(opened.consumers, key=lambda consumer: consumer.priority, default=None)
            if opened.active is not None:
                self._tell_consumer("consumer active", opened.active)
        brokered = bool(policy.consumer_needs_broker(opened.queue.definition)) or any(
            consumer.exclusive or consumer.priority for consumer in opened.consumers
        )
        # Where the last one to leave takes the queue along: who went back to taking by itself would be gone a moment.
        stays = opened.queue.definition.auto_delete and bool(opened.consumers)
        if opened.usable and opened.core.brokered != brokered and (brokered or not stays):
            opened.core.set_brokered(brokered)

    def _delete_if_auto(self, opened: OpenQueue) -> None:
        goes = opened.queue.definition.auto_delete or is_for_replies(opened.name)
        auto = goes and opened.had_consumer and not opened.consumers
        if auto and opened.queue.queue_id in self._catalog.open:
            self._log.info("last consumer left", queue=opened.name)
            self._catalog.delete_queue(opened.queue)


def _nack(message: Message, frame: wire.Nack) -> None:
    message.nack(requeue=frame.requeue, delay=frame.delay_ns / 1e9 if frame.delay_ns else None)


def _answer(client: Client, frame: wire.BrokerFrame) -> None:
    if client.session is not None:
        client.session.send(frame)
