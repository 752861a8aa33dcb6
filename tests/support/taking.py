"""What tests of consumers ask again and again: publishing numbers, taking in a thread, and that something stays so."""

import threading
import time
from collections.abc import Callable

import shmq
from shmq_clients.consumer import Consumer
from support.deadline import scaled


def publish(conn: shmq.Connection, queue: str, *numbers: int) -> list[bytes]:
    bodies = [b"%d" % number for number in numbers]
    conn.publish_many(bodies, routing_key=queue, confirm="memory")
    return bodies


def unacked(conn: shmq.Connection, queue: str) -> int:
    return conn.queue_info(queue).unacked


class Taken:
    """What a consumer hands out, taken in a thread of its own and not acked."""

    def __init__(self, consumer: Consumer) -> None:
        self.messages: list[shmq.Message] = []
        self.errors: list[shmq.ShmqError] = []
        self._consumer = consumer
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        try:
            self.messages.extend(iter(self._consumer.__next__, None))
        except StopIteration:
            pass
        except shmq.ShmqError as error:
            self.errors.append(error)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]

    def stop(self) -> None:
        self._consumer.cancel()
        self._thread.join(scaled(10))
        assert not self._thread.is_alive()


def take(consumer: Consumer) -> Taken:
    return Taken(consumer)


def stays(condition: Callable[[], bool], seconds: float = 0.4) -> bool:
    """Whether it holds for as long as something might have changed it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not condition():
            return False
        time.sleep(0.01)  # to the next look
    return True
