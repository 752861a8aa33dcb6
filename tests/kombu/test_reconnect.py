"""The daemon killed and started again under a Kombu consumer, which does not hear of it: no loss, no ack in vain."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from amqp import exceptions as amqp

import shmq_clients.kombu  # noqa: F401 - sets the alias
from support.deadline import scaled
from support.shmqd import Shmqd, instance

WAIT = 15.0


@pytest.fixture
def shmqd(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as shmqd:
        yield shmqd


class Worker:
    """Consumes until it has seen what is wanted."""

    def __init__(self, url: str, **options: Any) -> None:
        self.conn = kombu.Connection(url, transport_options=options)
        self.channel = self.conn.channel()
        self.channel.queue_declare("jobs", durable=True, auto_delete=False)
        self.channel.basic_qos(0, 4, True)
        self.messages: list[Any] = []
        self.channel.basic_consume("jobs", callback=self.messages.append)

    def drain(self, count: int) -> list[Any]:
        while len(self.messages) < count:
            self.conn.drain_events(timeout=scaled(WAIT))
        return [message.decode() for message in self.messages]


@pytest.mark.parametrize("mode", ["auto", "socket"])
def test_a_consumer_goes_on_within_two_seconds(shmqd: Shmqd, mode: str) -> None:
    worker = Worker(shmqd.url, mode=mode)
    producer = kombu.Producer(worker.conn.channel())
    exclusive = worker.channel.queue_declare("mine", exclusive=True).queue
    producer.publish(0, routing_key="jobs")
    worker.drain(1)

    shmqd.kill_all()
    shmqd.start()
    start = time.monotonic()
    producer.publish(1, routing_key="jobs")
    worker.drain(2)
    assert time.monotonic() - start < scaled(2)

    for message in worker.messages:
        message.ack()
    publisher = kombu.Connection(shmqd.url)
    with pytest.raises(amqp.ResourceLocked):
        publisher.default_channel.queue_declare(exclusive, exclusive=True)
    kombu.Producer(publisher).publish(2, routing_key="jobs")
    seen = worker.drain(3)
    while seen[-1] != 2:  # in socket mode what was unacked came once more
        worker.messages[-1].ack()
        seen = worker.drain(len(seen) + 1)
    publisher.release()
    worker.conn.release()
    assert seen == [0, 1, 2] if mode == "auto" else set(seen) == {0, 1, 2}


def test_deliveries_of_before_are_acked_after(shmqd: Shmqd) -> None:
    worker = Worker(shmqd.url)
    producer = kombu.Producer(worker.conn.channel())
    for number in range(4):
        producer.publish(number, routing_key="jobs")
    worker.drain(4)
    shmqd.kill("broker")
    for message in worker.messages:
        message.ack()
    worker.conn.release()

    with kombu.Connection(shmqd.url) as conn:
        assert conn.default_channel.queue_declare("jobs", passive=True).message_count == 0
        assert conn.default_channel.basic_get("jobs") is None


def test_a_daemon_that_stays_away_is_told_in_time(shmqd: Shmqd) -> None:
    worker = Worker(shmqd.url, reconnect_timeout=0.5)
    shmqd.kill_all()
    start = time.monotonic()
    with pytest.raises(amqp.RecoverableConnectionError, match="shmqd"):
        worker.conn.drain_events(timeout=scaled(WAIT))

    assert time.monotonic() - start < scaled(5)
    worker.conn.collect()
    shmqd.start()
    assert worker.conn.ensure_connection(max_retries=3, interval_start=0.1).connected
    worker.conn.release()


@pytest.mark.parametrize("mode", ["auto", "socket"])
def test_who_connects_again_after_that_has_what_it_had(shmqd: Shmqd, mode: str) -> None:
    worker = Worker(shmqd.url, mode=mode, reconnect_timeout=0.5)
    worker.channel.queue_declare("mine", exclusive=True)
    kombu.Producer(worker.conn.channel()).publish(0, routing_key="jobs")
    worker.drain(1)
    shmqd.kill_all()
    with pytest.raises(amqp.RecoverableConnectionError, match="shmqd"):
        worker.conn.drain_events(timeout=scaled(WAIT))
    worker.conn.collect()
    shmqd.start()

    again = Worker(shmqd.url, mode=mode)
    again.channel.queue_declare("mine", exclusive=True)
    assert again.drain(1) == [0]
    assert again.messages[0].delivery_info["redelivered"]
    again.messages[0].ack()
    again.conn.release()
