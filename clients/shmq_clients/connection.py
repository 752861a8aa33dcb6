"""The public face of the blocking client: connect, publish, consume, get, settle, close.

Owns: which path serves a call, consumer tags, the life of a connection. Does not own: the paths, topology
(topology.py).
Invariants: safe to use from many threads, with no thread of its own; in a forked child every use raises ForkedHandle
and nothing is closed for the parent; a connection nobody closed says goodbye when it is collected, and warns.
"""

import contextlib
import functools
import itertools
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, Unpack

from shmq.core import _core as core
from shmq.errors import DirectRefused, NotAllowed, NotFound, ShmqError
from shmq.message import Message
from shmq.names import check_name
from shmq.wire.frames import Welcome
from shmq_clients import forks
from shmq_clients.asked import ack_all, check_max_messages, check_mode, consume_frame, needs_broker
from shmq_clients.attachments import Attachments
from shmq_clients.consumer import Consumer, DirectConsumer, SocketConsumer
from shmq_clients.direct_path import DirectPath
from shmq_clients.durations import SECOND_NS, nanoseconds, wait_nanoseconds
from shmq_clients.link import HELLO_TIMEOUT, RECONNECT_TIMEOUT, Link
from shmq_clients.outgoing import PublishKeywords
from shmq_clients.publishing import Publishing
from shmq_clients.session import Mode, Session
from shmq_clients.socket_path import SocketPath
from shmq_clients.topology import Topology
from shmq_clients.url import socket_paths, url_of

CLOSE_TIMEOUT: Final = 2.0

Consumers: TypeAlias = weakref.WeakValueDictionary[str, DirectConsumer | SocketConsumer]


def connect(
    url: str | None = None,
    *,
    mode: Mode = "auto",
    timeout: float = HELLO_TIMEOUT,
    reconnect_timeout: float | None = RECONNECT_TIMEOUT,
) -> "Connection":
    """Connect to shmqd and return a Connection; use it as a context manager, or close it.

    `url`: `shmq:///absolute/path.sock`; None: $SHMQ_URL, else the user's socket, else the system's. `mode`: "direct"
    works in shared memory or refuses, "socket" lets the broker do it, "auto" takes the best for each queue. `timeout`:
    seconds for the daemon to answer. `reconnect_timeout`: seconds for a daemon to come back when it is gone, None: for
    ever; then whatever waits for it raises DaemonNotRunning or ConnectionLost, and the next call tries again. Raises
    DaemonNotRunning, NotShmqd, OperationTimeout, AccessRefused, ProtocolMismatch, DirectRefused, InvalidArgument.
    """
    check_mode(mode)
    nanoseconds(timeout, "timeout")
    patience = wait_nanoseconds(reconnect_timeout, "reconnect_timeout") / SECOND_NS
    return Connection(Link(socket_paths(url), mode, patience), mode, timeout)


class Connection(Topology):
    """A session with the broker, and the queues it works in. Made by `connect`."""

    def __init__(self, link: Link, mode: Mode, timeout: float) -> None:
        self._link = link
        self._attachments = Attachments(self._link)
        self._socket = SocketPath(self._link)
        self._direct = DirectPath(self._attachments)
        self._publishing = Publishing(self._attachments, self._socket, insist=mode == "direct")
        self._mode = mode
        self._numbers = itertools.count(1)
        self._consumers: Consumers = weakref.WeakValueDictionary()
        announce_all = functools.partial(_announce_all, self._consumers)  # not `self`: nothing here keeps it alive
        self._link.on_welcome += [self._attachments.on_welcome, self._socket.on_welcome, announce_all]
        self._link.open(timeout)
        if mode == "direct" and not self._attachments.granted:
            reason = self._attachments.reason
            self.close()
            raise DirectRefused(f"direct mode refused: {reason}", reason=reason)
        if mode != "socket":
            self._publish_fast()

    def _publish_fast(self) -> None:
        """Put the core's publish before the method below, which says the same in Python and serves all other cases."""
        publisher = core.Publisher(self._publishing.publish)
        publisher.routes = self._attachments.routes
        self.__dict__["publish"] = publisher
        forks.register(self._attachments)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None:  # noqa: ANN401 - any buffer
        """Publish one message; body is any buffer.

        `exchange`, `routing_key` (for the default exchange: the queue's name), `headers` (`CC` and `BCC` are lists of
        more keys, `x-delay` is for exchanges that delay), `priority` (0 to 255, larger is sooner), `persistent`,
        `expiration` (milliseconds), `delay` (seconds), `mandatory` (Unroutable when no queue gets it), `confirm`
        ("sent", "memory", "disk"; None: "memory" in direct mode, "sent" in socket mode), `timeout` (seconds to wait for
        room in a full queue, 30 if not given; 0: fail at once), and AMQP's properties.
        Raises QueueFull, BodyTooLarge, ShmFull, Unroutable, PublishRejected, NotDurable, NotFound and AccessRefused
        (exchange), InvalidArgument.
        """
        self._publishing.publish(body, **keywords)

    def publish_many(self, bodies: Sequence[Any], **keywords: Unpack[PublishKeywords]) -> None:
        """Publish several bodies in order, with the same keywords as `publish`. An error leaves the first ones
        published.
        """
        self._publishing.publish_many(bodies, **keywords)

    def loan(self, body_bytes: int, **keywords: Unpack[PublishKeywords]) -> AbstractContextManager[memoryview]:
        """Lend a writable body in the segment: filled in a `with`, it is published at its end, or dropped if that
        raises. Its bytes are not cleared before.

        An array made over it must not be written to after the `with`: the message is its consumer's then, and once that
        is acked the memory is another message's. Takes the keywords of `publish`, and raises what it raises.
        """
        return self._publishing.loan(body_bytes, **keywords)

    def wait_for_confirms(self, timeout: float = 30.0) -> None:
        """Return when the broker has done all that was sent before; raises the first refusal of it, and ConnectionLost
        when a session ended with publishes that nobody had confirmed: publish again what must not be missing.
        """
        self._socket.wait_for_confirms(nanoseconds(timeout, "timeout") / SECOND_NS)

    @property
    def blocked(self) -> str:
        """Why the daemon says that publishers will be held up (AMQP's connection.blocked), "" while it does not."""
        self._link.advance(0)
        session = self._link.session
        return session.blocked if session is not None else ""

    # -- topology -----------------------------------------------------------------------------------------------------

    def delete_queue(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue and return how many messages went with it; fine when there is none. Raises
        PreconditionFailed, ResourceLocked.
        """
        count = super().delete_queue(queue, if_unused=if_unused, if_empty=if_empty)
        self._attachments.drop(queue)
        return count

    # -- getting ------------------------------------------------------------------------------------------------------

    def get(self, queue: str, *, timeout: float | None = 0, no_ack: bool = False) -> Message | None:
        """Return the next message, or None when `timeout` seconds are over (None: wait for ever). Raises NotFound, and
        DaemonNotRunning or ConnectionLost when it would wait and the daemon stays away (`reconnect_timeout`).
        """
        check_name(queue, "queue")
        wait_ns = wait_nanoseconds(timeout, "timeout")
        if self._is_direct(queue):
            return self._direct.get(queue, wait_ns, no_ack=no_ack)  # type: ignore[return-value] # the core makes DirectMessage
        return next(iter(self._socket.get(queue, 1, wait_ns, no_ack=no_ack)), None)

    def get_batch(
        self, queue: str, *, max_messages: int = 100, max_wait: float | None = 0, no_ack: bool = False
    ) -> Sequence[Message]:
        """Wait up to `max_wait` seconds for a message, then return those that are there, `max_messages` at most."""
        check_name(queue, "queue")
        check_max_messages(max_messages)
        wait_ns = wait_nanoseconds(max_wait, "max_wait")
        if self._is_direct(queue):
            return self._direct.get_batch(queue, max_messages, wait_ns, no_ack=no_ack)  # type: ignore[return-value] # as get
        return self._socket.get(queue, max_messages, wait_ns, no_ack=no_ack)

    # -- consuming ----------------------------------------------------------------------------------------------------

    def consume(
        self,
        queue: str,
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

        `prefetch`: how many may be unacked at a time, 0: any number. Exclusive, prioritised or timed consumers are
        served through the broker; `arguments`: `x-priority`, `x-consumer-timeout` (milliseconds). Raises NotFound, also
        when the queue is deleted later; AccessRefused, ResourceLocked. Iteration also raises DaemonNotRunning or
        ConnectionLost when there is nothing to deliver and the daemon stays away (`reconnect_timeout`); iterating again
        goes on, and tries again.
        """
        tag = consumer_tag or f"ctag-{next(self._numbers)}"
        consume = consume_frame(
            queue,
            tag,
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
            ack_timeout=ack_timeout,
            arguments=arguments,
        )
        if tag in self._consumers:
            raise NotAllowed(f"consumer tag {tag!r} is in use")
        consumer: DirectConsumer | SocketConsumer
        if not needs_broker(consume, self._mode) and self._is_direct(queue):
            attachment = self._attachments.attach(queue)
            by_frames = None if self._mode == "direct" else self._socket
            consumer = DirectConsumer(consume, self._attachments, attachment, by_frames=by_frames, keep=self)
            self._link.later(consumer.announce)
            self._link.advance(0)
        else:
            consumer = SocketConsumer(self._socket, self._socket.consume(consume), keep=self)
        self._consumers[tag] = consumer
        return consumer

    def ack_many(self, messages: Iterable[Message]) -> None:
        """Ack each of them; all are tried, then the first error is raised."""
        ack_all(messages)

    def cancel(self, consumer_tag: str) -> None:
        """End a consumer's iteration, also in another thread. What was handed out stays unacked. Raises NotFound."""
        self._link.check()
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is None:
            raise NotFound(kind="consumer", name=consumer_tag)
        consumer.cancel()

    def _is_direct(self, queue: str) -> bool:
        """Whether this queue is worked in directly; attaches it. Raises NotFound; in mode "direct" DirectRefused."""
        self._link.check()
        return self._attachments.serves(queue, insist=self._mode == "direct")

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give unacked messages back, say goodbye, close everything. Idempotent. Raises ForkedHandle in a forked
        child.
        """
        self._end(CLOSE_TIMEOUT)

    def _end(self, timeout: float) -> None:
        link = self._link
        if link.forked_off:
            link.check()
        if not link.shut():
            return
        clean = False
        try:
            for consumer in list(self._consumers.values()):
                consumer.stop()
            clean = self._attachments.close()
        finally:
            link.close(clean=clean, timeout=timeout)

    def __repr__(self) -> str:
        state = ", closed" if self._link.closed else ""
        return f"<Connection to {url_of(self._link.paths[0])}, mode {self._mode}{state}>"

    def __del__(self) -> None:
        link = getattr(self, "_link", None)
        if link is None or link.closed:
            return
        warnings.warn(
            f"connection to {url_of(link.paths[0])} was never closed", ResourceWarning, stacklevel=2, source=self
        )
        with contextlib.suppress(ShmqError):
            self._end(0)

    def __enter__(self) -> Self:
        self._link.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._link.forked_off:
            self.close()


def _announce_all(consumers: Consumers, session: Session, _welcome: Welcome) -> None:
    """A new session does not know of the consumers that take by themselves."""
    for consumer in list(consumers.values()):
        if isinstance(consumer, DirectConsumer):
            consumer.announce(session)
