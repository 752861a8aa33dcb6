"""shmq through its public blocking API: one by one, in batches, with loan and view, and through the broker's socket.

Owns: what an application would write. Bodies are read as bytes (`message.body`) except with loan and view.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, repeat
from typing import Any, ClassVar

import shmq
from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.work import Work, batches
from shmq_clients.session import Mode

PREFETCH = 1000
BATCH = 100
SPARE_MESSAGES = 1_000_000  # room beside the backlog


class Shmq(Peer):
    """Direct mode, each message published, delivered and acked by itself."""

    name = "shmq"
    acks = "each"
    distributions = ("shmq",)
    levels_max = 256
    backlog_max = 4_000_000
    mode: ClassVar[Mode] = "direct"

    def setup(self, work: Work) -> None:
        with shmq.connect(self.servers.shmq_url()) as connection:
            for queue in (self.there, self.back):
                connection.declare_queue(
                    queue,
                    max_priority=work.levels - 1 or None,
                    capacity_messages=work.backlog + SPARE_MESSAGES,
                    capacity_bytes=work.on_the_way_bytes + work.backlog * work.body_bytes,
                )

    def teardown(self) -> None:
        with shmq.connect(self.servers.shmq_url()) as connection:
            for queue in (self.there, self.back):
                connection.delete_queue(queue)

    def connect(self) -> shmq.Connection:
        """Return a connection in the mode of this peer."""
        return shmq.connect(self.servers.shmq_url(), mode=self.mode)

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        body, queue = work.body, self.there
        with self.connect() as connection:
            publish = connection.publish

            def run() -> None:
                for _ in repeat(None, work.published_by(index)):
                    publish(body, routing_key=queue)

            def run_levels() -> None:
                for priority in work.priorities(index):
                    publish(body, routing_key=queue, priority=priority)

            yield run if work.levels == 1 else run_levels

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as connection:
            deliveries = connection.consume(self.there, prefetch=PREFETCH)

            def run() -> None:
                for message in islice(deliveries, work.consumed_by(index)):
                    _ = message.body
                    message.ack()

            yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        body, there = work.body, self.there
        with self.connect() as connection:
            publish, receive = connection.publish, iter(connection.consume(self.back, prefetch=1)).__next__

            def run() -> list[int]:
                clock = time.perf_counter_ns
                taken = []
                for _ in repeat(None, work.messages):
                    start = clock()
                    publish(body, routing_key=there)
                    message = receive()
                    taken.append(clock() - start)
                    message.ack()
                return taken

            yield run

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        back = self.back
        with self.connect() as connection:
            deliveries, publish = connection.consume(self.there, prefetch=1), connection.publish

            def run() -> None:
                for message in islice(deliveries, work.messages):
                    publish(message.body, routing_key=back)
                    message.ack()

            yield run


class ShmqBatch(Shmq):
    """publish_many, get_batch and ack_many by 100."""

    name = "shmq, batches of 100"
    acks = "by 100"

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as connection:
            bodies = [work.body] * BATCH

            def run() -> None:
                for size in batches(work.published_by(index), BATCH):
                    connection.publish_many(bodies[:size], routing_key=self.there)

            yield run

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as connection:
            connection.get_batch(self.there)

            def run() -> None:
                left = work.consumed_by(index)
                while left:
                    messages = connection.get_batch(self.there, max_messages=min(BATCH, left), max_wait=1)
                    for message in messages:
                        _ = message.body
                    connection.ack_many(messages)
                    left -= len(messages)

            yield run


class ShmqLoanView(Shmq):
    """Bodies are written and read in place: a byte of each, the way a tensor would be handed over."""

    name = "shmq, loan and view"
    copies = False

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as connection:

            def run() -> None:
                for number in range(work.published_by(index)):
                    with connection.loan(work.body_bytes, routing_key=self.there) as body:
                        body[0] = number & 0xFF

            yield run

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as connection:
            deliveries = connection.consume(self.there, prefetch=PREFETCH)

            def run() -> None:
                for message in islice(deliveries, work.consumed_by(index)):
                    with message.view() as body:
                        _ = body[0]
                    message.ack()

            yield run


class ShmqSocket(Shmq):
    """The broker does it: frames on the Unix socket, confirm "sent"."""

    name = "shmq, socket mode"
    mode = "socket"


class ShmqSocketBatch(ShmqBatch):
    """The same by 100."""

    name = "shmq, socket mode, batches of 100"
    mode = "socket"


class ShmqOrdered(Shmq):
    """Bodies carry their producer and number; each consumer returns how often it saw a producer's numbers go back."""

    name = "shmq, order checked"

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as connection:

            def run() -> None:
                for number in range(work.published_by(index)):
                    connection.publish(b"%d %d" % (index, number), routing_key=self.there)

            yield run

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], Any]]:
        with self.connect() as connection:
            deliveries = connection.consume(self.there, prefetch=PREFETCH)

            def run() -> int:
                last, backwards = dict.fromkeys(range(work.producers), -1), 0
                for message in islice(deliveries, work.consumed_by(index)):
                    producer, number = map(int, message.body.split())
                    backwards += number <= last[producer]
                    last[producer] = number
                    message.ack()
                return backwards

            yield run


PEERS = (Shmq, ShmqBatch, ShmqLoanView, ShmqSocket, ShmqSocketBatch)
