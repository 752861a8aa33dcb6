"""What cases ask again and again of a broker."""

import time
from typing import Any

from reference.driver import QUIET, Arrived, Broker, Receiving, waits

PAUSE = 0.01


def bodies(broker: Broker, queue: str) -> list[str]:
    """Take what is ready now."""
    taken = []
    while (message := broker.get(queue, no_ack=True)) is not None:
        taken.append(message.body)
    return taken


def next_of(broker: Broker, queue: str, *, within: float | None = None) -> Arrived | None:
    """Wait for a message, unacked."""
    end = time.monotonic() + (waits() if within is None else within)
    while (message := broker.get(queue)) is None and time.monotonic() < end:
        time.sleep(PAUSE)
    return message


def must_come(broker: Broker, queue: str) -> Arrived:
    message = next_of(broker, queue)
    assert message is not None, f"nothing came to {queue}"
    return message


def both(one: Receiving, other: Receiving, at_least: int = 0) -> int:
    """Wait for so many at two consumers together, and return how many come until nothing comes any more."""
    end = time.monotonic() + waits()
    count = len(one.rest()) + len(other.rest())
    while count < at_least and time.monotonic() < end:
        count += len(one.rest()) + len(other.rest())
    return count


def arrives(broker: Broker, queue: str) -> Any:
    """Wait a moment for a message and tell its body, or that nothing came."""
    message = next_of(broker, queue, within=QUIET)
    if message is None:
        return None
    message.ack()
    return message.body


def ready(broker: Broker, queue: str) -> int:
    return broker.declare_queue(queue, passive=True).messages


def wait_until_ready(broker: Broker, queue: str, count: int) -> int:
    """Wait until so many are ready. Returns how many are."""
    end = time.monotonic() + waits()
    while (there := ready(broker, queue)) != count and time.monotonic() < end:
        time.sleep(PAUSE)
    return there


def pass_time(seconds: float) -> None:
    """Let so much time pass: what is compared is what a clock does."""
    time.sleep(seconds)


def told(message: Arrived) -> dict[str, Any]:
    """All that a consumer is told of a message."""
    return {
        "body": message.body,
        "exchange": message.exchange,
        "key": message.routing_key,
        "headers": message.headers,
        "redelivered": message.redelivered,
    }
