"""The public face of the blocking client: connect, publish, consume, get, settle, close.

Owns: the life of a connection, which acts as a channel without tags. Does not own: getting and consuming
(receiving.py), channels (channel.py), topology (topology.py).
Invariants: safe to use from many threads, with no thread of its own; in a forked child every use raises ForkedHandle
and nothing is closed for the parent; a connection nobody closed says goodbye when it is collected, and warns.
"""

import contextlib
import functools
import warnings
import weakref
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self, Unpack

from shmq.core import _core as core
from shmq.errors import DirectRefused, InvalidArgument, ShmqError
from shmq.message import Message
from shmq.wire.frames import Welcome
from shmq_clients import forks
from shmq_clients.asked import check_mode
from shmq_clients.attachments import Attachments
from shmq_clients.channel import Channel
from shmq_clients.consumer import DirectConsumer
from shmq_clients.durations import SECOND_NS, nanoseconds, wait_nanoseconds
from shmq_clients.failures import OF_DELIVERIES
from shmq_clients.link import HELLO_TIMEOUT, RECONNECT_TIMEOUT, Link
from shmq_clients.outgoing import PublishKeywords
from shmq_clients.publishing import Publishing
from shmq_clients.receiving import Consumers, Paths, Receiving
from shmq_clients.session import Mode, Session
from shmq_clients.settling import ack_all
from shmq_clients.socket_path import SocketPath
from shmq_clients.topology import Topology
from shmq_clients.url import socket_paths, url_of
from shmq_clients.watch import Event

CLOSE_TIMEOUT: Final = 2.0


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


class Connection(Topology, Receiving):
    """A session with the broker, and the queues it works in. Made by `connect`."""

    def __init__(self, link: Link, mode: Mode, timeout: float) -> None:
        self._link = link
        self._attachments = Attachments(self._link)
        self._socket = SocketPath(self._link)
        self._paths = Paths(self._link, mode, self._attachments, self._socket)
        self._own = weakref.WeakValueDictionary()
        self._channels: dict[int, Channel] = {}  # the last of each number
        self._publishing = Publishing(self._attachments, self._socket, insist=mode == "direct")
        self._replies = self._publishing.replies
        self._mode = mode
        announce_all = functools.partial(
            _announce_all, self._paths.consumers
        )  # not `self`: nothing here keeps it alive
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
        """Publish one message; body is any buffer (text is none: TypeError).

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

    # -- consuming ----------------------------------------------------------------------------------------------------

    def channel(self) -> Channel:
        """Open a channel: consumers and gets whose deliveries have tags of their own, and one live window over all of
        them. Without one, this connection's deliveries are settled by themselves. Raises NotAllowed when there are
        too many.
        """
        self._link.check()
        channel = Channel(self._paths, self)
        self._channels[channel.number] = channel
        return channel

    def fileno(self) -> int:
        """Return one descriptor that is readable when `drain` may have something: for event loops of any kind, to be
        polled for reading. From the first call on, all consumers of this connection and its channels are `drain`'s
        until they are cancelled, and need not be kept or iterated over.
        """
        return self._paths.watch.epoll

    def forgive_late_settling(self) -> None:
        """From now on no later call tells that a delivery which was acked, or given back, was no longer ours."""
        self._link.failures.forgiven = OF_DELIVERIES

    def control_fileno(self) -> int:
        """Return the descriptor of the socket to the daemon, -1 while there is none."""
        return self._link.fileno()

    def drain(self, limit: int = 1, *, timeout: float = 0) -> list[Event]:
        """Return at most `limit` events of all consumers, in turn: messages, and consumers that have ended (`error`),
        as when their queue is gone. Without a `timeout` it does not wait.

        Call it when `fileno()` is readable, and once in `drain_pause` seconds though it is not: wake-ups are hints.
        What is left keeps the descriptor readable. Raises what an iteration would, when there is nothing.
        """
        if type(limit) is not int or limit < 1:
            raise InvalidArgument(argument="limit", value=limit, allowed="a number from 1")
        return self._paths.watch.drain(limit, nanoseconds(timeout, "timeout") / SECOND_NS)

    @property
    def drain_pause(self) -> float:
        """Seconds until `drain` is worth calling though the descriptor is not readable, a quarter at most."""
        return self._paths.watch.pause

    def ack_many(self, messages: Iterable[Message]) -> None:
        """Ack each of them; all are tried, then the first error is raised."""
        ack_all(messages)
        self._link.raise_failures()

    # -- the end ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it was neither closed nor inherited by a fork; whatever the daemon does."""
        return not self._link.closed

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Give unacked messages back, say goodbye, close everything; wait at most `timeout` seconds for the daemon to
        say goodbye. Idempotent. Raises ForkedHandle in a forked child.

        Once it is closed, raises the first refusal of a publish that did not wait (confirm "sent") and of which no call
        has told yet. It is no confirm: what waits for room in a full queue goes on waiting there until its timeout, and
        of what was under way when the daemon went nobody tells. Who must know says `wait_for_confirms` before.
        """
        self._end(nanoseconds(timeout, "timeout") / SECOND_NS)
        self._link.failures.raise_last()

    def _end(self, timeout: float) -> None:
        link = self._link
        if link.forked_off:
            link.check()
        if not link.shut():
            return
        clean = False
        try:
            for consumer in list(self._paths.consumers.values()):
                consumer.stop()
            for channel in list(self._channels.values()):
                channel.forget()
            self._paths.close()
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
        if self._link.forked_off:
            return
        try:
            self.close()
        except ShmqError as refusal:
            if error is None:
                raise
            error.add_note(f"closing the connection: {refusal}")


def _announce_all(consumers: Consumers, session: Session, _welcome: Welcome) -> None:
    """A new session does not know of the consumers that take by themselves."""
    for consumer in list(consumers.values()):
        if isinstance(consumer, DirectConsumer):
            consumer.announce(session)
