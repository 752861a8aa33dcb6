"""What comes back, how fast and in which order: after the death of its consumer, and after nacks in any order."""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from typing import Final

import pytest

import shmq
from benchmarks.redelivery import Mode, describe, measure, percentile

KILLS: Final = 250  # in each mode
P50_MS_MAX: Final = 10.0
P99_MS_MAX: Final = 50.0  # beside the rest of the suite; benchmarks/redelivery.py shows the 10 ms of an idle host
NACKED: Final = 100
BODIES: Final = [b"%d" % number for number in range(NACKED)]
MODES: Final[tuple[Mode, ...]] = ("direct", "socket")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with shmq.local() as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_what_a_killed_consumer_held_is_soon_with_another(url: str, mode: Mode, say: Callable[[str], None]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as lean:  # forks of the suite's big process would die slowly
        measured = lean.apply(measure, (url, mode, KILLS))

    ours = [one.took_ms - one.waited_ms for one in measured]
    p50_ms, p99_ms = percentile(ours, 50), percentile(ours, 99)
    say("\n".join(describe(mode, [one.took_ms for one in measured])))
    say(f"  without what was waited for a processor: p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms")
    assert p50_ms <= P50_MS_MAX
    assert p99_ms <= P99_MS_MAX


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["reverse", "random"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_what_was_nacked_in_any_order_comes_back_in_the_order_of_publishing(
    url: str, mode: Mode, order: str, rounds: int
) -> None:
    queue = f"nacked-{mode}-{order}-{rounds}"
    with shmq.connect(url, mode=mode) as conn:
        conn.declare_queue(queue)
        conn.publish_many(BODIES, routing_key=queue)
        for _ in range(rounds):
            _nack(_receive(conn, queue), order)
        conn.publish(b"newer", routing_key=queue)

        again = _receive(conn, queue, NACKED + 1)

        assert [message.body for message in again] == [*BODIES, b"newer"]
        assert [message.redelivered for message in again] == [True] * NACKED + [False]
        assert {message.delivery_count for message in again[:-1]} == {rounds + 1}
        conn.ack_many(again)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_closed_consumer_held_comes_back_in_order_and_counts_no_failure(url: str, mode: Mode) -> None:
    queue = f"closed-{mode}"
    with shmq.connect(url, mode=mode) as conn:
        conn.declare_queue(queue)
        conn.publish_many(BODIES, routing_key=queue)
        with shmq.connect(url, mode=mode) as other:
            held = _receive(other, queue)

        again = _receive(conn, queue)

        assert [message.body for message in again] == [message.body for message in held] == BODIES
        assert all(message.redelivered and "x-delivery-count" not in message.headers for message in again)
        conn.ack_many(again)


def _receive(conn: shmq.Connection, queue: str, count: int = NACKED) -> list[shmq.Message]:
    """Get exactly so many messages, settling none."""
    messages: list[shmq.Message] = []
    while len(messages) < count:
        batch = conn.get_batch(queue, max_messages=count - len(messages), max_wait=10.0)
        assert batch, f"only {len(messages)} of {count} came"
        messages += batch
    return messages


def _nack(messages: list[shmq.Message], order: str) -> None:
    nacked = messages[::-1] if order == "reverse" else random.Random(1).sample(messages, len(messages))
    for message in nacked:
        message.nack()
