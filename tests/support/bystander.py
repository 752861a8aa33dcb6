"""Somebody else, whom nothing of what a test does concerns: a publisher and a consumer at a queue of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from support.shmqd import Shmqd

READY: Final = 5
UNACKED: Final = 3


@contextmanager
def unharmed(daemon: Shmqd) -> Iterator[None]:
    """At the end its messages are there, ready and unacked, its session is, and no process was started again."""
    with daemon.connect("direct") as publisher, daemon.connect("socket") as consumer:
        pids = {process.role: process.pid for process in publisher.status().processes}
        name = publisher.declare_queue("", exclusive=False).name
        bodies = [b"%d" % number for number in range(READY + UNACKED)]
        publisher.publish_many(bodies, routing_key=name)
        held = list(consumer.get_batch(name, max_messages=UNACKED))
        yield
        rest = publisher.get_batch(name, max_messages=READY + 1)
        assert [message.body for message in (*held, *rest)] == bodies
        for message in (*held, *rest):
            message.ack()
        consumer.wait_for_confirms()
        assert publisher.delete_queue(name, if_empty=True) == 0
        assert {process.role: process.pid for process in publisher.status().processes} == pids
