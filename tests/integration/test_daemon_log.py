"""The log explains a redelivery to a person, in lines that a program reads too, and says nothing per message."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance

TAKER = """
import sys, time, shmq
conn = shmq.connect(sys.argv[1], mode=sys.argv[2], timeout=5)
messages = conn.get_batch("jobs", max_messages=3, max_wait=5)
print(len(messages), flush=True)
time.sleep(60)  # until it is killed
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    settings = tmp_path / "shmqd.toml"
    settings.write_text('log_format = "json"\n')
    with instance(tmp_path, "--config", str(settings)) as running:
        yield running


def lines(daemon: Shmqd, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    return [line for line in told if line["event"] == event]


def settled(daemon: Shmqd) -> Counter[tuple[str, str]]:
    """How many dead messages met which fate for which reason, in however many lines."""
    found: Counter[tuple[str, str]] = Counter()
    for line in lines(daemon, "dead messages settled"):
        found[line["fate"], line["reason"]] += line["count"]
    return found


def killed_taker(daemon: Shmqd, mode: str) -> int:
    """Let a process take three messages and kill it. Returns its pid."""
    taker = subprocess.Popen([sys.executable, "-c", TAKER, daemon.url, mode], stdout=subprocess.PIPE)
    assert taker.stdout is not None
    assert taker.stdout.readline() == b"3\n"
    taker.kill()
    taker.communicate()
    return taker.pid


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_death_is_told_with_who_died_and_what_became_of_its_messages(daemon: Shmqd, mode: str) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("jobs", delivery_limit=1)
        conn.publish_many([b"x"] * 3, routing_key="jobs")
        pids = [killed_taker(daemon, mode) for _ in range(2)]
        wait_until(lambda: len(lines(daemon, "client reaped")) == 2, "both deaths are told")
        wait_until(lambda: settled(daemon)["dropped", "delivery_limit"] == 3, "and what had failed too often")

    facts = [
        {key: line[key] for key in ("queue", "pid", "why", "requeued", "dead", "mode")}
        for line in lines(daemon, "client reaped")
    ]
    same = {"queue": "jobs", "why": "died", "mode": mode}
    assert facts == [
        same | {"pid": pids[0], "requeued": 3, "dead": 0},
        same | {"pid": pids[1], "requeued": 0, "dead": 3},
    ]


def test_many_dead_letters_are_few_lines(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("dead")
        conn.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead")
        conn.publish_many([b"x"] * 200, routing_key="jobs")
        start = time.monotonic()
        while message := conn.get("jobs"):
            message.reject()
            time.sleep(0.001)
        seconds = time.monotonic() - start
        wait_until(lambda: settled(daemon).total() == 200, "all are told")

    told = lines(daemon, "dead messages settled")
    assert len(told) <= seconds + 2
    assert {(line["exchange"], line["routing_key"], line["fate"]) for line in told} == {("", "dead", "dead-lettered")}


def test_nothing_is_told_per_message(daemon: Shmqd) -> None:
    with daemon.connect("socket") as conn, daemon.connect("direct") as other:
        conn.declare_queue("jobs")
        before = len(daemon.log.read_text().splitlines())
        for each in (conn, other):
            for _ in range(100):
                each.publish(b"x", routing_key="jobs")
                message = each.get("jobs", timeout=5)
                assert message is not None
                message.nack()
            each.purge_queue("jobs")

    assert len(daemon.log.read_text().splitlines()) - before <= 1


def test_an_orderly_stop_warns_of_nothing(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("jobs")
    daemon.stop()

    told = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert {line["level"] for line in told} == {"info"}
    assert [line["process"] for line in told if line["event"] == "stopped"] == ["broker", "supervisor", "master"]


def test_a_message_that_always_fails_is_warned_of_once(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        for name, limit in {"jobs": None, "meant": -1}.items():
            conn.declare_queue(name, delivery_limit=limit)
            conn.publish(b"poison", routing_key=name, confirm="memory")
            for _ in range(45):
                message = conn.get(name, timeout=5)
                assert message is not None
                message.reject(requeue=True)
    event = "messages failed 20 times, and nothing limits that"
    wait_until(lambda: len(lines(daemon, event)) == 1, "it is warned of", scaled(10))

    (warning,) = lines(daemon, event)
    assert (warning["queue"], warning["messages"], warning["level"]) == ("jobs", 1, "warning")


def test_a_quorum_queue_is_told_what_it_is(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("jobs", queue_type="quorum")

    (hint,) = lines(daemon, "a quorum queue of one host is a durable classic queue")
    assert hint["queue"] == "jobs"


def test_a_restarted_child_is_told_with_its_exit(daemon: Shmqd) -> None:
    pid = daemon.child("broker")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(lines(daemon, "adopted")) == 2, "the next broker has begun", scaled(5))

    (ended,) = lines(daemon, "child ended")
    assert (ended["child"], ended["pid"], ended["exit_code"], ended["level"]) == ("broker", pid, -9, "warning")


def test_a_damaged_state_is_refused_and_nothing_is_lost(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("jobs")
        conn.publish(b"kept", routing_key="jobs")
    daemon.stop()
    state = daemon.data / "state.db"
    good = state.read_bytes()
    state.write_bytes(b"scribble" * 1000)
    refused = daemon.run()

    assert refused.returncode == 1
    assert str(state) in refused.stderr
    assert "shmqd --discard" in refused.stderr
    state.write_bytes(good)
    daemon.start()
    with daemon.connect() as conn:
        message = conn.get("jobs")
        assert message is not None
        assert message.body == b"kept"
        message.ack()
    daemon.stop()
    state.write_bytes(b"scribble" * 1000)
    before = daemon_segments(daemon)
    assert before

    assert daemon.run("--discard").returncode == 0
    assert daemon_segments(daemon) == set()


def daemon_segments(daemon: Shmqd) -> set[str]:
    copy = daemon.data / "instance"
    name = copy.read_text().strip() if copy.exists() else "none"
    return {entry.name for entry in Path("/dev/shm").iterdir() if name in entry.name}


def test_a_first_start_says_that_it_begins_anew_and_what_survives(tmp_path: Path) -> None:
    with instance(tmp_path, start=False) as daemon:
        daemon.start()
        assert "begun with an empty state; durability is memory" in daemon.log.read_text()
        assert "there was none" in daemon.log.read_text()
        with shmq.connect(daemon.url) as conn:
            assert conn.status().durability == "memory"
