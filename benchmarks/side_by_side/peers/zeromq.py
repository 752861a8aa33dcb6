"""ZeroMQ through pyzmq: PUSH and PULL for streams, PAIR for round trips, on Unix sockets. Nothing is acked.

Several producers and consumers: each consumer binds a socket of its own, each producer sends to all in turn.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any

import zmq

from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.work import Work

HIGH_WATER_MAX = 1000  # ZeroMQ's default


class ZeroMq(Peer):
    """Sockets with ZeroMQ's defaults, fewer messages on the way where they are large."""

    name = "ZeroMQ"
    acks = "none"
    distributions = ("pyzmq",)
    folder: Path

    def setup(self, work: Work) -> None:  # noqa: ARG002 - the same for all
        self.folder = self.servers.directory()

    def teardown(self) -> None:
        """Sockets went with their processes."""

    @contextmanager
    def socket(self, kind: int, work: Work) -> Iterator[Any]:
        """Yield a socket of a context of its own; close both."""
        context = zmq.Context()
        socket = context.socket(kind)
        high_water = min(HIGH_WATER_MAX, work.on_the_way_messages)
        socket.setsockopt(zmq.SNDHWM, high_water)
        socket.setsockopt(zmq.RCVHWM, high_water)
        try:
            yield socket
        finally:
            socket.close(linger=1000)
            context.term()

    def address(self, index: int) -> str:
        """Return where consumer `index` binds."""
        return f"ipc://{self.folder}/{index}"

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with ExitStack() as stack:
            sends = []
            for consumer in range(work.consumers):
                socket = stack.enter_context(self.socket(zmq.PUSH, work))
                socket.connect(self.address(consumer))
                sends.append(socket.send)

            def run() -> None:
                body = work.body
                for send in islice(cycle(sends), work.published_by(index)):
                    send(body)

            yield run

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.socket(zmq.PULL, work) as socket:
            socket.bind(self.address(index))

            def run() -> None:
                receive = socket.recv
                for _ in repeat(None, work.consumed_by(index)):
                    receive()

            yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        with self.socket(zmq.PAIR, work) as socket:
            socket.connect(self.address(0))

            def run() -> list[int]:
                clock, body = time.perf_counter_ns, work.body
                taken = []
                for _ in repeat(None, work.messages):
                    start = clock()
                    socket.send(body)
                    socket.recv()
                    taken.append(clock() - start)
                return taken

            yield run

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        with self.socket(zmq.PAIR, work) as socket:
            socket.bind(self.address(0))

            def run() -> None:
                for _ in repeat(None, work.messages):
                    socket.send(socket.recv())

            yield run


PEERS = (ZeroMq,)
