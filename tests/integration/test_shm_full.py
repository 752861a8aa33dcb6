"""A full /dev/shm: an error in the caller and an alarm, never a SIGBUS; what is there goes on, and all does after that.

Each scenario is a function below that runs in a process and a mount namespace of its own, with a small tmpfs on
/dev/shm. Invariant: no process of the daemon ends before it is told to, nor does the client.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shmq
from support.deadline import wait_until
from support.shmqd import COMMAND, SHM, Shmqd, instance
from support.small_shm import play

KIB, MIB = 1 << 10, 1 << 20
pytestmark = pytest.mark.slow
SHMQCTL = [sys.executable, "-P", "-m", "shmq_clients.cli"]


@pytest.fixture(params=["direct", "socket"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_declaring_until_it_is_full_fails_cleanly_and_what_is_there_goes_on(mode: str) -> None:
    play(__file__, "declare", mode, mib=12)


def test_the_memory_of_a_deleted_queue_is_there_for_the_next(mode: str) -> None:
    play(__file__, "deleted", mode, mib=12)


def test_large_bodies_until_it_is_full_are_all_there_and_consuming_makes_room(mode: str) -> None:
    play(__file__, "large_bodies", mode, mib=12)


def test_small_bodies_until_it_is_full_are_all_there_and_acked_ones_make_room(mode: str) -> None:
    play(__file__, "small_bodies", mode, mib=6)


def test_a_full_dev_shm_stops_one_queue_and_not_the_next(mode: str) -> None:
    play(__file__, "other_queues", mode, mib=12)


def test_what_goes_back_while_it_is_full_comes_in_order(mode: str) -> None:
    play(__file__, "requeue", mode, mib=6)


def test_loans_and_batches_that_find_no_memory_leave_nothing(mode: str) -> None:
    play(__file__, "loans_and_batches", mode, mib=12)


def test_at_every_filling_an_operation_is_done_or_refused(mode: str) -> None:
    play(__file__, "every_filling", mode, mib=12)


def test_clients_come_and_go_while_it_is_full(mode: str) -> None:
    play(__file__, "clients", mode, mib=12)


def test_a_daemon_that_finds_it_full_serves_what_it_has(mode: str) -> None:
    play(__file__, "restart", mode, mib=12)


def test_with_the_default_mark_one_queue_does_not_fill_it(mode: str) -> None:
    play(__file__, "watermark", mode, mib=64)


def test_a_daemon_without_any_memory_says_so(mode: str) -> None:
    play(__file__, "nothing_left", mode, mib=12)


# -- inside -----------------------------------------------------------------------------------------------------------


def without_mark(folder: str) -> tuple[str, str]:
    """Settings with which queues may have all there is."""
    settings = Path(folder) / "shmqd.toml"
    settings.write_text("memory_watermark = 1\n")
    return "--config", str(settings)


@contextlib.contextmanager
def served(mode: str) -> Iterator[tuple[Shmqd, shmq.Connection]]:
    """A daemon whose processes all live until the end, and then end in order; a connection to it."""
    with tempfile.TemporaryDirectory() as folder, instance(Path(folder), *without_mark(folder)) as daemon:
        with daemon.connect(mode) as connection:
            before = pids(connection)
            yield daemon, connection
            assert pids(connection) == before, daemon.log.read_text()
        assert daemon.stop() == 0


def pids(connection: shmq.Connection) -> dict[str, int]:
    return {process.role: process.pid for process in connection.status().processes}


def free_kib() -> int:
    figures = os.statvfs(SHM)
    return figures.f_bavail * figures.f_frsize // KIB


@contextlib.contextmanager
def ballast(leaving_kib: int) -> Iterator[None]:
    """Something else that takes all but so much of /dev/shm, as long as this lasts."""
    path = SHM / "ballast"
    with path.open("wb") as file:
        try:
            if (size := free_kib() - leaving_kib) > 0:
                os.posix_fallocate(file.fileno(), 0, size * KIB)
            yield
        finally:
            path.unlink()


def alarm_of(daemon: Shmqd) -> bool:
    """Whether `shmqctl status` says that something is wrong, in its exit code and in words."""
    run = subprocess.run([*SHMQCTL, "status", "--url", daemon.url], capture_output=True, text=True, check=False)
    assert run.returncode in {0, 1}, run.stderr
    assert ("ALARM" in run.stdout) == bool(run.returncode), run.stdout + run.stderr
    return run.returncode == 1


def publish_until_full(connection: shmq.Connection, queue: str, size: int) -> list[bytes]:
    """Publish numbered bodies of so many bytes until there is no memory. Returns what was published."""
    published: list[bytes] = []
    try:
        while True:
            body = b"%09d" % len(published) + bytes(size)
            connection.publish(body, routing_key=queue, confirm="memory", timeout=0)
            published.append(body)
    except shmq.ShmFull as error:  # not kept: its frames would keep the queue's memory mapped
        text = str(error)
    assert str(SHM) in text
    return published


def consume_all(connection: shmq.Connection, queue: str) -> list[bytes]:
    bodies: list[bytes] = []
    while messages := connection.get_batch(queue, max_messages=500):
        bodies += [message.body for message in messages]
        connection.ack_many(messages)
    return bodies


def wait_for_alarm(daemon: Shmqd, *, standing: bool) -> None:
    """The supervisor looks a few times a second."""
    wait_until(lambda: alarm_of(daemon) == standing, f"shmqctl status ends with {int(standing)}", 20.0)


def declare(mode: str) -> None:
    with served(mode) as (daemon, connection):
        names: list[str] = []
        with contextlib.suppress(shmq.ShmFull):
            while True:
                names.append(connection.declare_queue(f"q{len(names)}").name)
        assert len(names) > 20
        with pytest.raises(shmq.NotFound):
            connection.queue_info(f"q{len(names)}")
        assert len(connection.queues()) == len(names)
        wait_for_alarm(daemon, standing=True)
        for name in names:
            connection.publish(b"x", routing_key=name, confirm="memory")
            assert consume_all(connection, name) == [b"x"]
        for name in names[len(names) // 2 :]:
            connection.delete_queue(name)
        connection.declare_queue("again")
        wait_for_alarm(daemon, standing=False)


def deleted(mode: str) -> None:
    """The supervisor, which has all queues mapped, may be late."""
    with served(mode) as (daemon, connection):
        names = fill_with_queues(connection)
        supervisor = daemon.child("supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        for name in names[:2]:
            connection.delete_queue(name)
        late = threading.Timer(0.3, os.kill, (supervisor, signal.SIGCONT))
        late.start()
        connection.declare_queue("next")
        late.join()


def fill_with_queues(connection: shmq.Connection) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(shmq.ShmFull):
        while True:
            names.append(connection.declare_queue("").name)
    return names


def large_bodies(mode: str) -> None:
    with served(mode) as (daemon, connection):
        connection.declare_queue("jobs", capacity_bytes=1 << 30)
        for size in (100_000, 3_000, 1_000_000):
            published = publish_until_full(connection, "jobs", size)
            assert published
            wait_for_alarm(daemon, standing=True)
            assert consume_all(connection, "jobs") == published
            wait_until(lambda: free_kib() > 5 * KIB, "the supervisor has given the memory back", 20.0)
            wait_for_alarm(daemon, standing=False)


def small_bodies(mode: str) -> None:
    with served(mode) as (daemon, connection):
        connection.declare_queue("jobs", capacity_messages=1_000_000, max_priority=3)
        published = publish_until_full(connection, "jobs", 100)
        assert len(published) > 1_000
        wait_for_alarm(daemon, standing=True)
        for _ in range(3):
            assert consume_all(connection, "jobs") == published
            # memory of slots is not given back, it is used again
            connection.publish_many(published, routing_key="jobs", confirm="memory", timeout=0)
        assert connection.purge_queue("jobs") == len(published)


def other_queues(mode: str) -> None:
    with served(mode) as (daemon, connection):
        connection.declare_queue("greedy", capacity_bytes=1 << 30)
        connection.declare_queue("jobs", max_priority=2)
        publish_until_full(connection, "greedy", 50_000)
        publish_until_full(connection, "greedy", 10)
        assert free_kib() < 512
        wait_for_alarm(daemon, standing=True)
        for number in range(500):
            connection.publish(b"%d" % number, routing_key="jobs", confirm="memory")
            message = connection.get("jobs", timeout=1)
            assert message is not None
            assert message.body == b"%d" % number
            message.ack()
        connection.delete_queue("greedy")
        wait_for_alarm(daemon, standing=False)


def requeue(mode: str) -> None:
    with served(mode) as (_, connection):
        connection.declare_queue("jobs", capacity_messages=1_000_000)
        published = publish_until_full(connection, "jobs", 100)
        with ballast(leaving_kib=0):
            held = connection.get_batch("jobs", max_messages=120)
            assert [message.body for message in held] == published[:120]
            for message in reversed(held):
                message.nack()
            again = connection.get_batch("jobs", max_messages=120)
            assert [message.body for message in again] == published[:120]
            for message in again:
                message.reject(requeue=True)
        assert consume_all(connection, "jobs") == published


def loans_and_batches(mode: str) -> None:
    with served(mode) as (_, connection):
        connection.declare_queue("jobs", capacity_bytes=1 << 30, max_priority=9)
        publish_until_full(connection, "jobs", 50_000)
        connection.purge_queue("jobs")
        with ballast(leaving_kib=0):
            for size in (100_000, 2_000_000, 20_000_000):
                with pytest.raises(shmq.ShmFull), connection.loan(size, routing_key="jobs", confirm="memory"):
                    pass
            with pytest.raises(shmq.ShmFull):  # the memory of another level
                connection.publish(b"", routing_key="jobs", priority=9, confirm="memory")
            with pytest.raises(shmq.ShmFull):
                connection.publish_many([b"1", b"2", bytes(3_000_000)], routing_key="jobs", confirm="memory")
        assert consume_all(connection, "jobs") == [b"1", b"2"]
        info = connection.queue_info("jobs")
        assert (info.messages, info.unacked, info.totals["arena_used_bytes"]) == (0, 0, 0)


def every_filling(mode: str) -> None:
    """From nothing to half a MiB left, page by page: each operation is done, or refused and nothing is left of it."""
    with served(mode) as (_, connection):
        for pages in range(128):
            name = f"q{pages}"
            with ballast(leaving_kib=4 * pages), contextlib.suppress(shmq.ShmFull):
                connection.declare_queue(name, max_priority=200, capacity_bytes=64 * MIB)
                try_all_sizes(connection, name)
            with contextlib.suppress(shmq.NotFound):
                connection.delete_queue(name)
        assert connection.queues() == []


def try_all_sizes(connection: shmq.Connection, name: str) -> None:
    done = []
    for number, size in enumerate((10, 200, 2_000, 60_000, 100_000, 10, 10_000_000, 300)):
        with contextlib.suppress(shmq.ShmFull):
            body = b"%09d" % number + bytes(size)
            connection.publish(body, routing_key=name, priority=(number * 37) % 200, confirm="memory", timeout=0)
            done.append(body)
    assert sorted(consume_all(connection, name)) == done


def clients(mode: str) -> None:
    with served(mode) as (daemon, connection):
        connection.declare_queue("jobs")
        with ballast(leaving_kib=0):
            for number in range(60):
                with daemon.connect(mode) as other:
                    other.publish(b"%d" % number, routing_key="jobs", confirm="memory")
            for number in range(100):
                with contextlib.suppress(shmq.ShmFull):
                    connection.declare_exchange(f"x{number}")
                    connection.bind_queue("jobs", f"x{number}", "k")
            assert consume_all(connection, "jobs") == [b"%d" % number for number in range(60)]


def restart(mode: str) -> None:
    with tempfile.TemporaryDirectory() as folder, instance(Path(folder), *without_mark(folder)) as daemon:
        with daemon.connect(mode) as connection:
            connection.declare_queue("jobs", capacity_bytes=1 << 30)
            published = publish_until_full(connection, "jobs", 50_000)
        assert daemon.stop() == 0
        with ballast(leaving_kib=0):
            daemon.start(*without_mark(folder))
            with daemon.connect(mode) as connection:
                assert consume_all(connection, "jobs") == published
            daemon.kill_all()
            daemon.start(*without_mark(folder))
            with daemon.connect(mode) as connection:
                connection.publish(b"x", routing_key="jobs", confirm="memory")
                assert consume_all(connection, "jobs") == [b"x"]
        assert daemon.stop() == 0


def publish_for_ever(connection: shmq.Connection, name: str) -> None:
    """At 50 MB/s at most: the supervisor looks every 20 ms while queues grow, and sees only then what was written."""
    while True:
        connection.publish(bytes(50_000), routing_key=name, confirm="memory", timeout=0)
        time.sleep(0.001)  # that pace


def watermark(mode: str) -> None:
    """Without any settings: one queue leaves a part of /dev/shm to the others."""
    with tempfile.TemporaryDirectory() as folder, instance(Path(folder)) as daemon:
        with daemon.connect(mode) as connection:
            connection.declare_queue("greedy", capacity_bytes=1 << 30)
            connection.declare_queue("jobs")
            with pytest.raises(shmq.QueueStopped):
                publish_for_ever(connection, "greedy")
            wait_until(lambda: bool(connection.blocked), "it is told")
            wait_until(lambda: "queue-stopped" in {alarm.kind for alarm in connection.status().alarms}, "which one")
            assert free_kib() > 2 * KIB
            for number in range(1_000):
                connection.publish(b"%d" % number, routing_key="jobs", confirm="memory", timeout=0)
            assert consume_all(connection, "jobs") == [b"%d" % number for number in range(1_000)]
            connection.delete_queue("greedy")
            wait_until(lambda: not connection.blocked, "it is over")
        assert daemon.stop() == 0


def nothing_left(mode: str) -> None:
    """It can't begin, says why, and begins by itself as soon as there is memory."""
    with tempfile.TemporaryDirectory() as folder, instance(Path(folder), start=False) as daemon:
        with ballast(leaving_kib=0), daemon.log.open("wb") as log:
            daemon.process = subprocess.Popen([*COMMAND, *daemon.places], stdout=log, stderr=log, process_group=0)
            wait_until(lambda: f"({SHM} has " in daemon.log.read_text(), "it says why", 10.0)
        wait_until(daemon.serves, "it serves", 10.0)
        with daemon.connect(mode) as connection:
            connection.declare_queue("jobs")
        assert daemon.stop() == 0


SCENARIOS: dict[str, Callable[[str], None]] = {
    scenario.__name__: scenario
    for scenario in (
        declare,
        deleted,
        large_bodies,
        small_bodies,
        other_queues,
        requeue,
        loans_and_batches,
        every_filling,
        clients,
        restart,
        watermark,
        nothing_left,
    )
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](sys.argv[2])
