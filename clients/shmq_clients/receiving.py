"""Getting and consuming, as a connection and its channels do it.

Owns: which path serves a call, consumer tags. Does not own: the paths, iteration (consumer.py), delivery tags and the
window of a channel (channel.py).
Invariants: a consumer tag is in use once on each channel; the broker knows each consumer by one that is used once on
the connection.
"""

import itertools
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec.structs import replace

from shmq.core import _core as core
from shmq.errors import DirectRefused, NotAllowed, NotFound, ShmqError
from shmq.message import Message
from shmq.names import REPLY_TO, check_name
from shmq.wire.frames import Consume, Consuming
from shmq_clients.asked import check_max_messages, consume_frame, needs_broker
from shmq_clients.attachments import Attachments
from shmq_clients.consumer import Consumer, DirectConsumer, SocketConsumer
from shmq_clients.direct_path import DirectPath
from shmq_clients.durations import wait_nanoseconds
from shmq_clients.flags import check_flags
from shmq_clients.gathering import Gathering
from shmq_clients.link import Link
from shmq_clients.replies import Replies
from shmq_clients.session import Mode
from shmq_clients.several import SeveralConsumer, queues_of
from shmq_clients.socket_path import SocketPath
from shmq_clients.watch import Watch

Consumers: TypeAlias = weakref.WeakValueDictionary[str, DirectConsumer | SocketConsumer]


class Paths:
    """What a connection and its channels share. `consumers`: all of them, by the tags that the broker knows."""

    def __init__(self, link: Link, mode: Mode, attachments: Attachments, socket_path: SocketPath) -> None:
        self.link = link
        self.mode: Mode = mode
        self.attachments = attachments
        self.socket = socket_path
        self.direct = DirectPath(attachments)
        self.consumers: Consumers = weakref.WeakValueDictionary()
        self.numbers = itertools.count(1)
        self._watch: Watch | None = None
        self._watching = threading.Lock()

    @property
    def watch(self) -> Watch:
        """For who waits for all consumers at one descriptor: made when it is first asked for."""
        self.link.check()
        with self._watching:
            if self._watch is None:
                self._watch = Watch(self.link, self.attachments)
                for consumer in list(self.consumers.values()):
                    self._watch.add(consumer)
            return self._watch

    def begun(self, consumers: Sequence[DirectConsumer | SocketConsumer]) -> None:
        """There are new ones."""
        if self._watch is not None:
            for consumer in consumers:
                self._watch.add(consumer)

    def close(self) -> None:
        """Wait nowhere any more."""
        if self._watch is not None:
            self._watch.close()

    def is_direct(self, queue: str) -> bool:
        """Whether this queue is worked in directly; attaches it. Raises NotFound; in mode "direct" DirectRefused."""
        self.link.check()
        return self.attachments.serves(queue, insist=self.mode == "direct")

    def wire_tag(self, consumer_tag: str) -> str:
        """Return what the broker is to call it: the same, if no other channel has that."""
        while consumer_tag in self.consumers:
            consumer_tag = f"ctag-{next(self.numbers)}"
        return consumer_tag


class Receiving:
    """The part of a connection and of a channel by which messages come. `_ledger`: the channel's."""

    _paths: Paths
    _number = 0
    _ledger: core.Ledger | None = None
    _replies: Replies
    _own: weakref.WeakValueDictionary[str, Any]  # consumers by the tags that this channel knows

    # -- getting ------------------------------------------------------------------------------------------------------

    def get(self, queue: str, *, timeout: float | None = 0, no_ack: bool = False) -> Message | None:
        """Return the next message, or None when `timeout` seconds are over (None: wait for ever). Raises NotFound, and
        DaemonNotRunning or ConnectionLost when the daemon is needed and stays away for `reconnect_timeout`, which may
        be longer than `timeout`.
        """
        check_name(queue, "queue")
        check_flags(no_ack=no_ack)
        wait_ns = wait_nanoseconds(timeout, "timeout")
        self._begin_call()
        if self._paths.is_direct(queue):
            message: Any = self._paths.direct.get(queue, wait_ns, no_ack=no_ack)
        else:
            got = self._paths.socket.get(queue, 1, wait_ns, no_ack=no_ack, channel=self._number)
            message = next(iter(got), None)
        if message is not None:
            self._hand_out([message])
        return message  # type: ignore[no-any-return] # the core makes DirectMessage

    def get_batch(
        self, queue: str, *, max_messages: int = 100, max_wait: float | None = 0, no_ack: bool = False
    ) -> Sequence[Message]:
        """Return `max_messages` as soon as there are so many, or those that came within `max_wait` seconds (None: wait
        for all of them); 0: those that are there. Interrupted, it gives back what it has.
        """
        check_name(queue, "queue")
        check_max_messages(max_messages)
        check_flags(no_ack=no_ack)
        wait_ns = wait_nanoseconds(max_wait, "max_wait")
        self._begin_call()
        gathering = Gathering(max_messages, wait_ns, no_ack=no_ack)
        try:
            while gathering.goes_on:
                gathering.add(self._part(queue, gathering))
        except ShmqError as error:
            gathering.fail(error)
        except BaseException:  # interrupted
            gathering.give_back()
            raise
        messages = gathering.handed_out()
        self._hand_out(messages)
        return messages

    def _part(self, queue: str, gathering: Gathering) -> list[Any]:
        """What is there, or comes first. An empty list when time is up."""
        wanted, wait_ns, no_ack = gathering.missing, gathering.left_ns, gathering.no_ack
        if self._paths.is_direct(queue):
            return self._paths.direct.get_batch(queue, wanted, wait_ns, no_ack=no_ack)
        goes_on = bool(gathering.messages)
        return self._paths.socket.get(queue, wanted, wait_ns, no_ack=no_ack, channel=self._number, goes_on=goes_on)

    # -- consuming ----------------------------------------------------------------------------------------------------

    def consume(
        self,
        queue: str | Sequence[str],
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        priority: int = 0,
        ack_timeout: float | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Consumer:
        """Iterate over the messages (`shmq.Message`) of a queue, waiting for more, until `cancel`.

        Of several queues, given as a list, they come in turn, and `prefetch` is for all of them together; one that is
        deleted raises NotFound once, and iterating again goes on with the others.

        `prefetch`: how many may be unacked at a time, 0: any number. Exclusive, prioritised or timed consumers are
        served through the broker; `arguments`: `x-priority`, `x-consumer-timeout` (milliseconds). Raises NotFound, also
        when the queue is deleted later; AccessRefused, ResourceLocked. Iteration also raises DaemonNotRunning or
        ConnectionLost when there is nothing to deliver and the daemon stays away (`reconnect_timeout`); iterating again
        goes on, and tries again.
        """
        self._begin_call()
        tag = f"ctag-{next(self._paths.numbers)}" if consumer_tag == "" else consumer_tag
        first, *others = queues_of(queue)
        consume = consume_frame(
            first,
            tag,
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
            ack_timeout=ack_timeout,
            arguments=arguments,
        )
        self._replies.check([first, *others], no_ack=no_ack)
        if (known := self._own.get(tag)) is not None and not known.is_over:
            raise NotAllowed(f"consumer tag {tag!r} is in use")
        consumer = self._begin_several(consume, others) if others else self._begin(consume, self._ledger)
        if not isinstance(consumer, SeveralConsumer) and first == REPLY_TO:
            self._replies.find = weakref.ref(consumer)
        consumer.consumer_tag = tag
        self._own[tag] = consumer
        self._paths.begun(consumer.parts if isinstance(consumer, SeveralConsumer) else (consumer,))
        return consumer

    def _begin_several(self, consume: Consume, others: list[str]) -> SeveralConsumer:
        ledger = core.Ledger(self._ledger, keeps=False)
        ledger.prefetch = consume.prefetch
        parts: list[DirectConsumer | SocketConsumer] = []
        try:
            for part in several(consume, others, self._paths.wire_tag(consume.consumer_tag)):
                parts += [self._begin(part, ledger)]
        except BaseException:  # also interrupted: none of them is left behind
            for begun in parts:
                begun.cancel()
            raise
        whole = SeveralConsumer(consume.consumer_tag, parts, ledger, self._paths.attachments, self)
        for one in parts:
            one.whole = weakref.ref(whole)
        return whole

    def _begin(self, asked: Consume, ledger: core.Ledger | None) -> DirectConsumer | SocketConsumer:
        paths = self._paths
        consume = named(asked, paths.wire_tag(asked.consumer_tag), self._number)
        direct = self._begin_replies(consume) if consume.queue == REPLY_TO else None
        if direct is not None:
            return direct
        consumer: DirectConsumer | SocketConsumer
        if consume.queue != REPLY_TO and not needs_broker(consume, paths.mode) and paths.is_direct(consume.queue):
            attachment = paths.attachments.attach(consume.queue)
            by_frames = None if paths.mode == "direct" else paths.socket
            consumer = DirectConsumer(
                consume, paths.attachments, attachment, by_frames=by_frames, ledger=ledger, keep=self
            )
            paths.link.later(consumer.announce)
            paths.link.advance(0)
        else:
            consumer = SocketConsumer(paths.socket, paths.socket.consume(consume, ledger), keep=self)
        paths.consumers[consume.consumer_tag] = consumer
        return consumer

    def _begin_replies(self, consume: Consume) -> DirectConsumer | None:
        """The broker makes the queue beneath. None: it is not to be worked in directly."""
        paths = self._paths
        if not paths.attachments.granted:
            return None
        try:
            answer = paths.link.request(lambda seq: replace(consume, seq=seq, direct=True))
        except DirectRefused:
            if paths.mode == "direct":
                raise
            return None
        assert isinstance(answer.frame, Consuming)
        attachment = paths.attachments.attach_own(answer.frame.queue)
        consumer = DirectConsumer(consume, paths.attachments, attachment, ledger=self._ledger, keep=self)
        consumer.announced(answer.session)
        paths.consumers[consume.consumer_tag] = consumer
        return consumer

    def cancel(self, consumer_tag: str) -> None:
        """End a consumer's iteration, also in another thread. What was handed out stays unacked. Raises NotFound."""
        check_name(consumer_tag, "consumer_tag")
        self._check()
        consumer = self._own.pop(consumer_tag, None)
        if consumer is None:
            raise NotFound(kind="consumer", name=consumer_tag)
        consumer.cancel()

    def _begin_call(self) -> None:
        """Raise why it can't begin, and what earlier calls were refused for: before anything is done."""
        self._check()
        self._paths.link.raise_failures()

    def _check(self) -> None:
        self._paths.link.check()

    def _hand_out(self, messages: list[Any]) -> None:
        """What was got is the caller's now."""


def several(consume: Consume, others: Sequence[str], name: str) -> Iterator[Consume]:
    """Yield one for each queue, with a prefetch that they share under this name; raises InvalidName."""
    for queue in (consume.queue, *others):
        check_name(queue, "queue")
        yield replace(consume, queue=queue, shares=name)


def named(consume: Consume, wire_tag: str, channel: int) -> Consume:
    """Return the same consumer under the tag and the number that the broker knows."""
    return replace(consume, consumer_tag=wire_tag, channel=channel)
