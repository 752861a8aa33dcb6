"""Queues of Python objects between processes: multiprocessing.Queue and faster-fifo. Nothing is acked.

Both pickle what they carry, and reach their users by fork.
"""

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import Any

import faster_fifo

from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.work import KIB, MIB, Work

GET_MANY = 1000
WAIT = 5.0
FIFO_BYTES_MIN = 64 * MIB
_processes = multiprocessing.get_context("fork")


class _ForkedQueues(Peer):
    """A queue there and a queue back, with `put` and `get`."""

    acks = "none"
    queues: tuple[Any, Any] | None = None

    def teardown(self) -> None:
        self.queues = None

    def put(self, queue: Any, body: bytes) -> None:  # noqa: ANN401 - untyped
        """Put one, waiting for room."""
        queue.put(body)

    def get(self, queue: Any) -> bytes:  # noqa: ANN401 - untyped
        """Get one, waiting for it."""
        body: bytes = queue.get()
        return body

    def close(self) -> None:
        """Flush what is on its way in the process that is about to end."""

    @property
    def pair(self) -> tuple[Any, Any]:
        """There and back."""
        assert self.queues is not None
        return self.queues

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        def run() -> None:
            there, put, body = self.pair[0], self.put, work.body
            for _ in repeat(None, work.published_by(index)):
                put(there, body)

        yield run
        self.close()

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        def run() -> None:
            there, get = self.pair[0], self.get
            for _ in repeat(None, work.consumed_by(index)):
                get(there)

        yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        def run() -> list[int]:
            (there, back), clock, body = self.pair, time.perf_counter_ns, work.body
            taken = []
            for _ in repeat(None, work.messages):
                start = clock()
                self.put(there, body)
                self.get(back)
                taken.append(clock() - start)
            return taken

        yield run
        self.close()

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        def run() -> None:
            there, back = self.pair
            for _ in repeat(None, work.messages):
                self.put(back, self.get(there))

        yield run
        self.close()


class MultiprocessingQueue(_ForkedQueues):
    """A pipe with locks, and a thread that feeds it."""

    name = "multiprocessing.Queue"
    distributions = ()

    def setup(self, work: Work) -> None:
        bound = min(work.on_the_way_messages, 32_767)  # the largest that a semaphore counts to
        self.queues = (_processes.Queue(bound), _processes.Queue(bound))

    def close(self) -> None:
        for each in self.pair:
            each.close()
            each.join_thread()


class FasterFifo(_ForkedQueues):
    """A ring of bytes in shared memory with one lock; consumers take many at a time."""

    name = "faster-fifo"
    distributions = ("faster-fifo",)

    def setup(self, work: Work) -> None:
        size = max(FIFO_BYTES_MIN, work.on_the_way_bytes if work.body_bytes > 64 * KIB else 0)
        self.queues = (faster_fifo.Queue(max_size_bytes=size), faster_fifo.Queue(max_size_bytes=size))

    def put(self, queue_: Any, body: bytes) -> None:  # noqa: ANN401 - untyped
        while True:
            with suppress(queue.Full):
                queue_.put(body, timeout=WAIT)
                return

    def get(self, queue_: Any) -> bytes:  # noqa: ANN401 - untyped
        body: bytes = queue_.get(timeout=WAIT)
        return body

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        def run() -> None:
            there, left = self.pair[0], work.consumed_by(index)
            while left:
                left -= len(there.get_many(timeout=WAIT, max_messages_to_get=min(GET_MANY, left)))

        yield run


PEERS = (FasterFifo, MultiprocessingQueue)
