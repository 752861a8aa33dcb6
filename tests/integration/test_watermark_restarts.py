"""The memory watermark through deaths of the daemon's processes, and as an operator sees it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance

BODY = bytes(50_000)
WAIT = 20.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    settings = tmp_path / "shmqd.toml"
    settings.write_text("memory_watermark_bytes = 4_000_000\n")
    with instance(tmp_path, "--config", str(settings)) as running:
        yield running


@pytest.fixture
def conn(daemon: Shmqd) -> Iterator[shmq.Connection]:
    with daemon.connect() as connection:
        connection.declare_queue("storm")
        connection.declare_queue("jobs")
        wait_until(lambda: is_stopped(connection), "the storm's queue may not grow", WAIT)
        yield connection


def is_stopped(conn: shmq.Connection) -> bool:
    try:
        conn.publish(BODY, routing_key="storm", timeout=0)
    except shmq.QueueStopped:
        return True
    return False


def pids(conn: shmq.Connection) -> dict[str, int]:
    return {process.role: process.pid for process in conn.status().processes}


def kinds(conn: shmq.Connection) -> set[str]:
    return {alarm.kind for alarm in conn.status().alarms}


@pytest.mark.parametrize("role", ["broker", "supervisor"])
def test_it_outlives_a_process_of_the_daemon(daemon: Shmqd, conn: shmq.Connection, role: str) -> None:
    before = pids(conn)
    daemon.kill(role)

    assert is_stopped(conn), "while nobody is there"
    wait_until(lambda: pids(conn).get(role, before[role]) != before[role], "it is there again", WAIT)
    wait_until(lambda: kinds(conn) == {"memory-watermark", "queue-stopped"}, "it is told again", WAIT)
    wait_until(lambda: bool(conn.blocked), "the client is told again", WAIT)
    assert is_stopped(conn)
    conn.publish(b"", routing_key="jobs", timeout=0)


@pytest.mark.parametrize("role", ["broker", "supervisor"])
def test_who_waits_goes_on_though_a_process_was_killed_meanwhile(
    daemon: Shmqd, conn: shmq.Connection, role: str
) -> None:
    done = threading.Event()

    def publish() -> None:
        with daemon.connect("direct") as other:
            other.publish(BODY, routing_key="storm", timeout=scaled(WAIT))
        done.set()

    before = conn.queue_info("storm").totals["stopped"]
    thread = threading.Thread(target=publish)
    thread.start()
    wait_until(lambda: conn.queue_info("storm").totals["stopped"] > before, "it waits", WAIT)
    daemon.kill(role)
    assert not done.is_set()
    while messages := conn.get_batch("storm", max_messages=100):
        conn.ack_many(messages)

    assert done.wait(scaled(WAIT))
    thread.join()


def test_after_a_restart_with_a_higher_mark_it_may_grow(daemon: Shmqd, conn: shmq.Connection) -> None:
    assert daemon.stop() == 0
    daemon.start()  # without the settings

    wait_until(lambda: not is_stopped(conn), "it may grow", WAIT)
    assert kinds(conn) == set()


def test_an_operator_sees_which_queue_and_how_much(daemon: Shmqd, conn: shmq.Connection) -> None:
    wait_until(lambda: kinds(conn) == {"memory-watermark", "queue-stopped"}, "it is told", WAIT)
    done = subprocess.run(
        [sys.executable, "-m", "shmq_clients.cli", "status", "--url", daemon.url],
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=False,
    )

    assert done.returncode == 1
    told = " ".join(done.stdout.split())
    assert "their mark is 3.8 MiB" in told
    assert "queue 'storm' has" in told
    listed = subprocess.run(
        [sys.executable, "-m", "shmq_clients.cli", "queues", "--json", "--url", daemon.url],
        capture_output=True,
        timeout=scaled(20),
        check=True,
    )
    totals = {queue["name"]: queue["totals"] for queue in json.loads(listed.stdout)}
    assert totals["storm"]["memory_bytes"] > totals["storm"]["share_bytes"] > 0
    assert totals["jobs"]["share_bytes"] == 0
    log = daemon.log.read_text()
    assert 'event="alarm raised" alarm=queue-stopped subject=storm' in log


def test_dead_letters_for_a_stopped_queue_wait_where_they_are(conn: shmq.Connection) -> None:
    conn.declare_queue("retries", dead_letter_exchange="", dead_letter_routing_key="storm")
    for _ in range(3):
        conn.publish(BODY, routing_key="retries")
        message = conn.get("retries")
        assert message is not None
        message.reject()
    before = conn.queue_info("storm").messages
    wait_until(lambda: "dead-letter-target-full" in kinds(conn), "it is told", WAIT)
    wanted = "has more than its fair share of memory, and may not grow for the dead letters of queue 'retries'"
    assert any(wanted in alarm.text for alarm in conn.status().alarms)
    conn.ack_many(conn.get_batch("storm", max_messages=10))

    wait_until(lambda: conn.queue_info("storm").messages == before - 10 + 3, "they have come", WAIT)
