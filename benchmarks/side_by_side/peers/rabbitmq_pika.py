"""RabbitMQ through pika's BlockingConnection: transient messages, no confirms, prefetch 1000, acked by 200."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, repeat
from typing import Any

import pika

from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.work import MIB, Work

PREFETCH = 1000
ACK_EVERY = 200


class RabbitPika(Peer):
    """Classic queues, not durable."""

    name = "RabbitMQ, pika"
    acks = "by 200"
    distributions = ("pika",)
    program = "rabbitmq-server"
    body_bytes_max = 16 * MIB
    levels_max = 256
    backlog_max = 100_000  # more takes minutes to publish

    def setup(self, work: Work) -> None:
        arguments = {"x-max-priority": work.levels - 1} if work.levels > 1 else {}
        with self.channel() as channel:
            for queue in (self.there, self.back):
                channel.queue_declare(queue, durable=False, arguments=arguments)

    def teardown(self) -> None:
        with self.channel() as channel:
            for queue in (self.there, self.back):
                channel.queue_delete(queue)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Yield a channel of a connection of its own."""
        connection = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self.servers.rabbitmq_port(), heartbeat=0)
        )
        try:
            yield connection.channel()
        finally:
            connection.close()

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.channel() as channel:

            def run() -> None:
                publish, queue, body = channel.basic_publish, self.there, work.body
                for _ in repeat(None, work.published_by(index)):
                    publish("", queue, body)

            def run_levels() -> None:
                publish, queue, body = channel.basic_publish, self.there, work.body
                properties = [pika.BasicProperties(priority=priority) for priority in range(work.levels)]
                for priority in work.priorities(index):
                    publish("", queue, body, properties[priority])

            yield run if work.levels == 1 else run_levels

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.channel() as channel:
            channel.basic_qos(prefetch_count=PREFETCH)

            def run() -> None:
                messages = work.consumed_by(index)
                for number, (method, _, _) in enumerate(islice(channel.consume(self.there), messages), 1):
                    if number % ACK_EVERY == 0 or number == messages:
                        channel.basic_ack(method.delivery_tag, multiple=True)

            yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        with self.channel() as channel:
            deliveries = channel.consume(self.back, auto_ack=True)

            def run() -> list[int]:
                clock, body = time.perf_counter_ns, work.body
                taken = []
                for _ in repeat(None, work.messages):
                    start = clock()
                    channel.basic_publish("", self.there, body)
                    next(deliveries)
                    taken.append(clock() - start)
                return taken

            yield run

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        with self.channel() as channel:

            def run() -> None:
                for _, _, body in islice(channel.consume(self.there, auto_ack=True), work.messages):
                    channel.basic_publish("", self.back, body)

            yield run


PEERS = (RabbitPika,)
