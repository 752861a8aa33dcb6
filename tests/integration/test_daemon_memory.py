"""Memory that large bodies took is given back to the host when they are gone, and not while it is being used."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from support.deadline import wait_until
from support.shmqd import SHM, Shmqd, instance

MIB = 1 << 20
BODY = bytes(MIB)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


def resident(daemon: Shmqd) -> int:
    """Return the bytes that the instance has in /dev/shm."""
    return sum((SHM / name).stat().st_blocks * 512 for name in daemon.segments())


def given_back(conn: shmq.Connection) -> int:
    return conn.status().totals.get("supervisor_bytes_given_back", 0)


def test_a_drained_queue_gives_most_of_its_memory_back_within_seconds(daemon: Shmqd) -> None:
    with daemon.connect("direct") as conn:
        conn.declare_queue("large", capacity_bytes=512 * MIB)
        idle = resident(daemon)
        for _ in range(200):
            conn.publish(BODY, routing_key="large")
        full = resident(daemon)
        assert full - idle >= 200 * MIB
        while message := conn.get("large"):
            message.ack()
        del message

        seconds = wait_until(lambda: resident(daemon) - idle < (full - idle) / 10, "memory is given back", 10)

        print(f"\n{(full - resident(daemon)) >> 20} of {full >> 20} MiB given back in {seconds:.1f} s")
        wait_until(lambda: given_back(conn) >= 180 * MIB, "it is counted")
        assert "memory given back" in daemon.log.read_text()
        conn.publish_many([BODY] * 3, routing_key="large")
        assert [bytes(message.body) == BODY for message in conn.get_batch("large")] == [True] * 3


def test_what_steady_traffic_uses_is_left_alone(daemon: Shmqd) -> None:
    with daemon.connect("direct") as conn:
        conn.declare_queue("busy", capacity_bytes=512 * MIB)
        end, rounds = time.monotonic() + 3, 0
        while time.monotonic() < end:
            conn.publish_many([BODY] * 8, routing_key="busy")
            conn.ack_many(conn.get_batch("busy", max_messages=8))
            rounds += 1

        assert rounds > 1
        assert given_back(conn) == 0
