"""Kombu's event loop, as Celery's worker runs it: what comes is handed out in batches, by one descriptor."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
from amqp import exceptions as amqp
from kombu.asynchronous.hub import Hub

from shmq_clients.kombu.transport import EVENTS_MAX
from support.deadline import scaled

WAIT = 10.0
_numbers = itertools.count(1)


@pytest.fixture
def hub() -> Iterator[Any]:
    hub = Hub()
    hub.propagate_errors = (amqp.RecoverableConnectionError,)
    yield hub
    hub.close()


class Worker:
    """A consumer on a loop."""

    def __init__(self, conn: Any, hub: Any, prefetch: int = 0, *, acks: bool = True) -> None:
        self.queue = f"loop-{next(_numbers)}"
        self.conn = conn
        self.hub = hub
        self.messages: list[Any] = []
        self.acks = acks
        self.channel = conn.channel()
        self.channel.queue_declare(self.queue, auto_delete=False)
        self.channel.basic_qos(0, prefetch, True)
        conn.register_with_event_loop(hub)
        self.tag = self.channel.basic_consume(self.queue, callback=self.on_message)

    def on_message(self, message: Any) -> None:
        self.messages.append(message)
        if self.acks:
            message.ack()

    def turn(self) -> None:
        self.hub.run_once()

    def run(self, count: int) -> list[Any]:
        deadline = time.monotonic() + scaled(WAIT)
        while len(self.messages) < count:
            assert time.monotonic() < deadline, len(self.messages)
            self.turn()
        return [message.decode() for message in self.messages]


def publish(conn: Any, queue: str, *bodies: object) -> None:
    producer = kombu.Producer(conn)
    for body in bodies:
        producer.publish(body, routing_key=queue)


def test_a_turn_hands_out_a_batch_and_no_more(conn: Any, hub: Any) -> None:
    worker = Worker(conn, hub)
    worker.run(0)
    publish(conn, worker.queue, *range(3 * EVENTS_MAX))
    turns = [0]
    while turns[-1] < 3 * EVENTS_MAX:
        worker.turn()
        turns.append(len(worker.messages))

    assert max(after - before for before, after in itertools.pairwise(turns)) <= EVENTS_MAX
    assert worker.run(0) == list(range(3 * EVENTS_MAX))


def test_what_another_publishes_wakes_the_loop(conn: Any, hub: Any, connect: Callable[..., Any]) -> None:
    worker, other = Worker(conn, hub), connect()
    publish(other, worker.queue, 0)
    worker.run(1)
    for number in range(1, 20):
        timer = threading.Timer(0.01, publish, [other, worker.queue, number])
        timer.start()
        start = time.monotonic()
        worker.run(number + 1)
        assert time.monotonic() - start < scaled(0.2)
        timer.join()


def test_an_ack_of_another_thread_makes_room(conn: Any, hub: Any) -> None:
    worker = Worker(conn, hub, prefetch=1, acks=False)
    publish(conn, worker.queue, *range(20))
    for number in range(1, 20):
        worker.run(number)
        message = worker.messages[-1]
        thread = threading.Thread(target=hub.call_soon, args=(message.ack,))
        thread.start()
        worker.run(number + 1)
        thread.join()
        assert len(worker.messages) == number + 1


def test_an_idle_loop_sleeps(conn: Any, hub: Any) -> None:
    worker = Worker(conn, hub)
    worker.turn()
    turns, end = 0, time.monotonic() + 1
    before = time.process_time()
    while time.monotonic() < end:
        worker.turn()
        turns += 1

    assert turns < 30
    assert time.process_time() - before < 0.2


def test_a_callback_that_raises_loses_nothing(conn: Any, hub: Any) -> None:
    worker = Worker(conn, hub)
    publish(conn, worker.queue, *range(10))

    def fail(message: Any) -> None:
        worker.messages.append(message)
        raise amqp.RecoverableConnectionError("of the callback's own")

    worker.channel.callbacks[worker.tag] = fail
    with pytest.raises(amqp.RecoverableConnectionError):
        worker.run(1)
    worker.channel.callbacks[worker.tag] = worker.on_message

    assert worker.run(10) == list(range(10))


def test_the_loop_lets_go_and_a_lost_connection_is_told(conn: Any, hub: Any) -> None:
    worker = Worker(conn, hub)
    low = conn.connection
    conn.transport.unregister_from_event_loop(low, hub)
    assert low.fileno() not in hub.readers
    assert low.on_loop is None
    conn.register_with_event_loop(hub)
    timer: Any = low.on_loop
    low.collect()
    assert timer.canceled
    with pytest.raises(amqp.RecoverableConnectionError):
        conn.transport.on_readable(low, hub)
    del worker


def test_a_loop_made_anew_goes_on(conn: Any, hub: Any) -> None:
    worker = Worker(conn, hub)
    timer: Any = conn.connection.on_loop
    hub.reset()
    conn.register_with_event_loop(hub)
    assert timer.canceled
    publish(conn, worker.queue, 1)

    assert worker.run(1) == [1]
    assert os.fstat(conn.connection.fileno())
