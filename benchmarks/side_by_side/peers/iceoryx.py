"""iceoryx2 through its Python binding: publish-subscribe of byte slices, an event to wake the other side up.

One publisher, one subscriber; nothing is acked and nothing competes: it is a way to hand memory over, not a queue. The
publisher waits where the subscriber's buffer is full. `copied` copies bodies in and out; `in place` touches a byte.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import iceoryx2

from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.work import Work

BUFFER_MESSAGES_MAX = 1000
WAIT = iceoryx2.Duration.from_millis(100)  # an event that did not come must not end a run
Bytes = iceoryx2.Slice[ctypes.c_uint8]


class _Line:
    """One direction: a service of bytes and a service of events."""

    def __init__(self, name: str, work: Work, folder: Path) -> None:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self.work = work
        config = iceoryx2.config.default()
        config.global_cfg.root_path = iceoryx2.Path.new(str(folder))
        config.global_cfg.prefix = iceoryx2.FileName.new(f"{folder.name}-")
        builder = iceoryx2.NodeBuilder.new().signal_handling_mode(iceoryx2.SignalHandlingMode.Disabled)
        self.node = builder.config(config).create(iceoryx2.ServiceType.Ipc)
        buffered = min(BUFFER_MESSAGES_MAX, work.on_the_way_messages)
        self.bytes = (
            self.node.service_builder(iceoryx2.ServiceName.new(name))
            .publish_subscribe(Bytes)
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(buffered)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()
        )
        self.events = self.node.service_builder(iceoryx2.ServiceName.new(name)).event().open_or_create()

    def publisher(self) -> "_Publisher":
        """Return the sending end."""
        return _Publisher(self)

    def subscriber(self) -> "_Subscriber":
        """Return the receiving end."""
        return _Subscriber(self)


class _Publisher:
    def __init__(self, line: _Line) -> None:
        self._line = line  # the node lives as long as its ports
        self._size = line.work.body_bytes
        builder = line.bytes.publisher_builder().initial_max_slice_len(self._size)
        self._publisher = builder.backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered).create()
        self._notifier = line.events.notifier_builder().create()

    def send(self, body: bytes) -> None:
        """Copy a body in and send it."""
        self._send(body, self._size)

    def send_in_place(self, body: bytes) -> None:
        """Write one byte in place and send."""
        self._send(body, 1)

    def _send(self, body: bytes, written: int) -> None:
        """Until it arrives: a subscriber that never looked yet gets nothing beyond its buffer, in spite of retries."""
        delivered = 0
        while not delivered:
            sample = self._publisher.loan_slice_uninit(self._size)
            ctypes.memmove(sample.payload_ptr, body, written)
            delivered = sample.assume_init().send()
        self._notifier.notify()


class _Subscriber:
    def __init__(self, line: _Line) -> None:
        self._line = line  # the node lives as long as its ports
        self._size = line.work.body_bytes
        self._subscriber = line.bytes.subscriber_builder().create()
        self._listener = line.events.listener_builder().create()

    def _next(self) -> Any:  # noqa: ANN401 - untyped
        while (sample := self._subscriber.receive()) is None:
            self._listener.timed_wait(WAIT)
        return sample

    def receive(self) -> bytes:
        """Return a copy of the next body."""
        sample = self._next()
        body = ctypes.string_at(sample.payload_ptr, self._size)
        sample.delete()
        return body

    def receive_in_place(self) -> bytes:
        """Return one byte of the next body."""
        sample = self._next()
        body = ctypes.string_at(sample.payload_ptr, 1)
        sample.delete()
        return body


class Iceoryx(Peer):
    """Bodies copied in and out."""

    name = "iceoryx2, copied"
    acks = "none"
    distributions = ("iceoryx2",)
    serves_many = False
    in_place: ClassVar[bool] = False
    folder: Path

    def setup(self, work: Work) -> None:  # noqa: ARG002 - the same for all
        """Services are made by the first who opens them, in a folder of this peer alone, and go with the last."""
        self.folder = self.servers.directory()

    def teardown(self) -> None:
        """Take away what no process owns."""
        for path in Path("/dev/shm").glob(f"{self.folder.name}-*"):  # noqa: S108 - where POSIX shared memory is
            path.unlink(missing_ok=True)

    def line(self, name: str, work: Work) -> _Line:
        """Return one direction."""
        return _Line(name, work, self.folder)

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        publisher = self.line(self.there, work).publisher()

        def run() -> None:
            send, body = publisher.send_in_place if self.in_place else publisher.send, work.body
            for _ in repeat(None, work.published_by(index)):
                send(body)

        yield run

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        subscriber = self.line(self.there, work).subscriber()

        def run() -> None:
            receive = subscriber.receive_in_place if self.in_place else subscriber.receive
            for _ in repeat(None, work.consumed_by(index)):
                receive()

        yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        publisher, subscriber = self.line(self.there, work).publisher(), self.line(self.back, work).subscriber()

        def run() -> list[int]:
            clock, body = time.perf_counter_ns, work.body
            taken = []
            for _ in repeat(None, work.messages):
                start = clock()
                publisher.send(body)
                subscriber.receive()
                taken.append(clock() - start)
            return taken

        yield run

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        subscriber, publisher = self.line(self.there, work).subscriber(), self.line(self.back, work).publisher()

        def run() -> None:
            for _ in repeat(None, work.messages):
                publisher.send(subscriber.receive())

        yield run


class IceoryxInPlace(Iceoryx):
    """Bodies written and read in place."""

    name = "iceoryx2, in place"
    copies = False
    in_place = True


PEERS = (Iceoryx, IceoryxInPlace)
