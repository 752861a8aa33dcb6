"""What one call of the C core costs from Python, in one process: nothing here waits, no daemon is needed.

    python benchmarks/core_calls.py [messages]

Prints the best of seven rounds in ns per message (the loop's own cost is in them): the code, not the host's noise.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from itertools import repeat

from shmq.core import Consumer, Message, Publisher, Queue, segment_bytes

ROUNDS = 7
GEOMETRY = (1, 65_536, 512, 1024, 256 << 20)
SEMAPHORE = os.EFD_NONBLOCK | os.EFD_SEMAPHORE


class Delivery(Message):
    """As the client subclasses it."""

    __slots__ = ()


def new_queue(levels: int = 1) -> Queue:
    """Return a queue over a file without a name, its bells real."""
    geometry = (levels, *GEOMETRY[1:])
    fd = os.memfd_create("core_calls")
    os.ftruncate(fd, segment_bytes(geometry))
    bells = (os.eventfd(0, SEMAPHORE), os.eventfd(0, SEMAPHORE), os.eventfd(0, os.EFD_NONBLOCK))
    return Queue(fd, geometry, 32, create=True, bells=bells, message_type=Delivery)


def never(*_args: object, **_keywords: object) -> None:
    """Stand in for the slow path, which must not be taken here."""
    raise AssertionError


def stop() -> bool:
    """End an iteration when the queue is empty."""
    return False


class Calls:
    """One queue and what is done with it, a number of messages at a time."""

    def __init__(self, levels: int, body_bytes: int, messages: int) -> None:
        self.queue = new_queue(levels)
        self.body = bytes(body_bytes)
        self.messages = messages
        self.publisher = Publisher(never)
        self.publisher.routes["jobs"] = self.queue

    def call_publisher(self) -> None:
        """Publish through the callable, as `Connection.publish` is called."""
        publish, body = self.publisher, self.body
        for _ in repeat(None, self.messages):
            publish(body, routing_key="jobs")

    def call_queue(self) -> None:
        """Publish through the method of Queue."""
        publish, body = self.queue.publish, self.body
        for _ in repeat(None, self.messages):
            publish(body)

    def publish_many(self) -> None:
        """Publish all in one call."""
        self.queue.publish_many([self.body] * self.messages)

    def consume(self) -> None:
        """Take and ack all, one by one, through the iterator."""
        for message in Consumer([self.queue], 8, no_ack=False, on_empty=stop):
            message.ack()

    def consume_bodies(self) -> None:
        """Take, read and ack all, one by one."""
        for message in Consumer([self.queue], 8, no_ack=False, on_empty=stop):
            _ = message.body
            message.ack()

    def take_many(self) -> None:
        """Take in lists of 64, ack one by one."""
        while messages := self.queue.take_many(64):
            for message in messages:
                message.ack()

    def loan_and_view(self) -> None:
        """Publish and consume without any copy."""
        for _ in repeat(None, self.messages):
            loan = self.queue.loan(len(self.body))
            assert not isinstance(loan, int)
            loan.commit()
            message = self.queue.take()
            assert message is not None
            message.view().release()
            message.ack()


def measure(first: Callable[[], None], second: Callable[[], None], messages: int) -> tuple[float, float]:
    """Return the best ns per message of each of two functions that are called in turn."""
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for i, function in enumerate((first, second)):
            start = time.perf_counter_ns()
            function()
            best[i] = min(best[i], (time.perf_counter_ns() - start) / messages)
    return best[0], best[1]


def line(name: str, *figures: float) -> None:
    """Print a row of the table."""
    print(f"{name:<52}" + "".join(f"{figure:>12,.0f}" for figure in figures))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("messages", type=int, nargs="?", default=50_000, help="in one round")
    messages: int = parser.parse_args(arguments).messages
    print(f"{'ns per message, 256 B (best of seven)':<52}{'in':>12}{'out':>12}")
    calls = Calls(1, 256, messages)
    line("Publisher()            | Consumer, ack", *measure(calls.call_publisher, calls.consume, messages))
    line("Queue.publish          | Consumer, body, ack", *measure(calls.call_queue, calls.consume_bodies, messages))
    line("Queue.publish_many     | Queue.take_many(64), ack", *measure(calls.publish_many, calls.take_many, messages))
    calls = Calls(256, 256, messages)
    line("256 levels: Publisher()| Consumer, ack", *measure(calls.call_publisher, calls.consume, messages))
    calls = Calls(1, 1 << 20, 200)
    line("1 MiB: Queue.publish   | Consumer, body, ack", *measure(calls.call_queue, calls.consume_bodies, 200))
    start = time.perf_counter_ns()
    calls.loan_and_view()
    line("1 MiB: loan, commit, take, view, ack", (time.perf_counter_ns() - start) / 200)


if __name__ == "__main__":
    main()
