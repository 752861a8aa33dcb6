"""RabbitMQ through amqp (the client of Celery): transient messages, no confirms, prefetch 1000, acked by 200."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import amqp

from benchmarks.side_by_side.work import Work

from .rabbitmq_pika import ACK_EVERY, PREFETCH, RabbitPika


class RabbitAmqp(RabbitPika):
    """The same queues, another client."""

    name = "RabbitMQ, amqp"
    distributions = ("amqp",)

    @contextmanager
    def channel_of_amqp(self) -> Iterator[Any]:
        """Yield a channel of a connection of its own."""
        address = f"127.0.0.1:{self.servers.rabbitmq_port()}"
        with amqp.Connection(address, userid="guest", password="guest") as connection:  # noqa: S106 - its default
            yield connection.channel()

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.channel_of_amqp() as channel:

            def run() -> None:
                publish, queue, body = channel.basic_publish, self.there, work.body
                for _ in repeat(None, work.published_by(index)):
                    publish(amqp.Message(body), "", queue)

            def run_levels() -> None:
                publish, queue, body = channel.basic_publish, self.there, work.body
                for priority in work.priorities(index):
                    publish(amqp.Message(body, priority=priority), "", queue)

            yield run if work.levels == 1 else run_levels

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.channel_of_amqp() as channel:
            channel.basic_qos(0, PREFETCH, a_global=False)

            def run() -> None:
                messages, number = work.consumed_by(index), 0

                def take(message: Any) -> None:  # noqa: ANN401 - untyped here
                    nonlocal number
                    number += 1
                    if number % ACK_EVERY == 0 or number == messages:
                        channel.basic_ack(message.delivery_tag, multiple=True)

                channel.basic_consume(self.there, callback=take)
                while number < messages:
                    channel.connection.drain_events()

            yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        with self.channel_of_amqp() as channel:
            arrived: list[Any] = []
            channel.basic_consume(self.back, no_ack=True, callback=arrived.append)

            def run() -> list[int]:
                clock, body = time.perf_counter_ns, work.body
                taken = []
                for _ in repeat(None, work.messages):
                    start = clock()
                    channel.basic_publish(amqp.Message(body), "", self.there)
                    while not arrived:
                        channel.connection.drain_events()
                    arrived.clear()
                    taken.append(clock() - start)
                return taken

            yield run

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        with self.channel_of_amqp() as channel:

            def run() -> None:
                left = work.messages

                def answer(message: Any) -> None:  # noqa: ANN401 - untyped here
                    nonlocal left
                    channel.basic_publish(amqp.Message(message.body), "", self.back)
                    left -= 1

                channel.basic_consume(self.there, no_ack=True, callback=answer)
                while left:
                    channel.connection.drain_events()

            yield run


PEERS = (RabbitAmqp,)
