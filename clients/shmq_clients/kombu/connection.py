"""The low-level connection that Kombu holds: one of our blocking client, and to whom its deliveries go.

Owns: channels by number, waiting for events, the end in all its forms. Does not own: what a channel does (channel.py),
sessions and their resuming (the client's: Kombu does not hear of a daemon that comes back in time).
Invariants: all waits are polls of one descriptor in Python, so that gevent and eventlet go on; in a forked child it is
dead, writes nothing and shuts nothing down; what nobody closed is closed when it is collected, without a word.
"""

import contextlib
import itertools
import os
import socket
import time
import weakref
from typing import Any, Final

from shmq._version import __version__
from shmq.errors import ShmqError
from shmq_clients.connection import Connection as ShmqConnection
from shmq_clients.kombu.channel import Channel
from shmq_clients.kombu.errors import closed, translated
from shmq_clients.kombu.options import Options
from shmq_clients.watch import Event, Watched

FOREVER: Final = 60.0  # of one part of a wait without end
CAPABILITIES: Final = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": False,
}


class Connection:
    """Made by `Transport.establish_connection`. `client`: the kombu.Connection."""

    heartbeat = 0
    is_closing = False

    def __init__(self, client: Any, connection: ShmqConnection, options: Options) -> None:  # noqa: ANN401 - kombu's
        self.client: Any = client
        self.shmq = connection
        connection.forgive_late_settling()  # an error of a channel would end a Celery worker
        self.options = options
        self.channels: dict[int | None, Channel] | None = {}
        self.server_properties = {"product": "shmq", "version": __version__, "capabilities": CAPABILITIES}
        self.on_loop: Any = None  # the timer of an event loop
        self._consumers: dict[Watched, Channel] = {}
        self._numbers = itertools.count(1)
        self._finalizer = weakref.finalize(self, _let_go, connection)

    # -- what Kombu looks at ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether it was neither closed nor inherited by a fork. A daemon that is away for a while changes nothing."""
        return self.channels is not None and self.shmq.is_open

    @property
    def transport(self) -> "Connection":
        """py-amqp has a socket behind this name, and Celery and Kombu's tests look for it there."""
        return self

    _transport = transport

    @property
    def sock(self) -> "ControlSocket | None":
        """What stands for the socket to the daemon."""
        return ControlSocket(self.shmq) if self.connected else None

    def fileno(self) -> int:
        """Return the one descriptor to poll for reading."""
        return self.shmq.fileno()

    # -- channels -----------------------------------------------------------------------------------------------------

    def channel(self, channel_id: int | None = None) -> Channel:
        """Open a channel, or return the open one of this number."""
        channels = self._open_channels()
        if channel_id is not None and channel_id in channels:
            return channels[channel_id]
        number = channel_id or next(each for each in self._numbers if each not in channels)
        try:
            channel = channels[number] = Channel(self, number)
        except ShmqError as error:
            raise translated(error, "Channel.open") from error
        return channel

    def _open_channels(self) -> dict[int | None, Channel]:
        if self.channels is None or not self.shmq.is_open:
            raise closed()
        return self.channels

    def forget(self, number: int | None) -> None:
        """This channel is closed; its number may be used again."""
        if self.channels is not None:
            self.channels.pop(number, None)

    def watch(self, consumer: Watched, channel: Channel) -> None:
        """From now on its deliveries are that channel's."""
        self._consumers[consumer] = channel

    def unwatch(self, consumer: Watched) -> None:
        """It has ended."""
        self._consumers.pop(consumer, None)

    # -- events -------------------------------------------------------------------------------------------------------

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for one event and hand it out. Raises socket.timeout (TimeoutError) when there was none."""
        self._open_channels()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            remaining = FOREVER if deadline is None else max(0.0, deadline - time.monotonic())
            if self._drain(remaining):
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("no event")

    def dispatch(self, limit: int) -> int:
        """Hand out what is there, without waiting, `limit` events at most; returns how many."""
        count = 0
        while count < limit and self.connected and self._drain(0):
            count += 1
        return count

    def _drain(self, timeout: float) -> bool:
        try:
            events = self.shmq.drain(1, timeout=timeout)
            for event in events:
                self._hand_out(event)
        except ShmqError as error:
            raise translated(error) from error
        return bool(events)

    def leave_loop(self) -> None:
        """No event loop looks here now and then any more."""
        timer, self.on_loop = self.on_loop, None
        if timer is not None:
            timer.cancel()

    def _hand_out(self, event: Event) -> None:
        channel, tag = self._consumers.get(event.consumer), event.consumer.consumer_tag
        if event.error is not None:
            if channel is not None:
                channel.end(tag, event.error)
        elif channel is None:
            event.message.nack(requeue=True)
        else:
            channel.deliver(tag, event.message)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what is unacked and say goodbye. Idempotent."""
        self._collect()
        self._end(self.shmq.close)

    def collect(self) -> None:
        """As `close`, without waiting for the daemon: it may be the reason, or this a forked child."""
        self._collect()
        self._end(lambda: self.shmq.close(timeout=0))

    def _collect(self) -> None:
        channels, self.channels = self.channels, None
        for channel in list((channels or {}).values()):
            channel.collect()
        self._consumers.clear()
        self.leave_loop()

    def _end(self, close: Any) -> None:  # noqa: ANN401 - a call
        self._finalizer.detach()
        if self.shmq.is_open:
            with contextlib.suppress(ShmqError):
                close()


class ControlSocket:
    """The socket to the daemon for those who expect py-amqp's: its time-outs are not ours, its end is seen as ever."""

    def __init__(self, connection: ShmqConnection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """As the connection's: what to poll."""
        return self._connection.fileno()

    def settimeout(self, timeout: float | None) -> None:
        """No call of ours blocks in the socket: each has a deadline of its own."""

    def shutdown(self, how: int) -> None:
        """Break the session, as a fault would; the client opens another."""
        descriptor = self._connection.control_fileno()
        if descriptor >= 0:
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                copy.shutdown(how)

    def close(self) -> None:
        """The connection closes it."""


def _let_go(connection: ShmqConnection) -> None:
    """Close what nobody has, in the process that opened it."""
    if connection.is_open:
        with contextlib.suppress(ShmqError):
            connection.close(timeout=0)
