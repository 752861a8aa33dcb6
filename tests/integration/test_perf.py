"""shmq-perf as a person runs it: short runs, most of them against one broker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until

COMMAND = [sys.executable, "-m", "shmq_clients.perf.main"]


def perf(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=scaled(40),
        check=False,
        stdin=subprocess.DEVNULL,
    )


def measured(*arguments: str) -> dict[str, Any]:
    run = perf("--json", *arguments)
    assert run.returncode == 0, run.stderr
    facts: dict[str, Any] = json.loads(run.stdout)
    return facts


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_second_of_load_gives_rates_and_latencies(mode: str) -> None:
    facts = measured("-z", "1", "-i", "0.25", "--mode", mode)

    assert 0 < facts["consumed"] <= facts["published"] + 64
    assert facts["seconds"] == pytest.approx(1, abs=scaled(2))
    assert 0 < facts["latency_us"]["p50"] <= facts["latency_us"]["p99"] <= facts["latency_us"]["max"]
    assert sum(count for _, count in facts["histogram_ns"]) == facts["consumed"]
    assert len(facts["intervals"]) >= 2


@pytest.mark.parametrize("mode", ["direct", "socket"])
@pytest.mark.parametrize(
    "shape",
    [
        "-x 2 -y 2 -C 1000",
        "-C 1000 --batch 100 -s 64:9,4KiB:1 --priorities 0:3,9:1",
        "-C 100 -r 1000 -a",
        "-C 500 -q 50 -A 10 -c 100 -f persistent",
        "-C 20 -s 1MiB --zero-copy",
        "-C 500 --no-latency -s 0",
        "-C 200 -e perf-logs -t direct -k a.b",
    ],
)
def test_a_run_ends_when_all_that_was_published_is_consumed(url: str, mode: str, shape: str) -> None:
    facts = measured("-h", url, "--mode", mode, *shape.split())

    settings = facts["settings"]
    assert facts["published"] == facts["consumed"] == settings["producers"] * settings["producer_messages"]


def test_a_stall_shows_in_every_message_that_was_due_in_it(url: str) -> None:
    facts = measured("-h", url, "-C", "200", "-r", "1000", "-D", "200", "-R", "400")

    assert facts["latency_us"]["max"] > 250_000
    assert facts["latency_us"]["p50"] > 100_000


def test_consumers_with_a_count_end_the_run_though_producers_would_go_on(url: str) -> None:
    facts = measured("-h", url, "-D", "1000", "-qa", "x-capacity-messages=100")

    assert facts["consumed"] == 1000


def test_a_running_broker_is_left_as_it_was(url: str) -> None:
    with shmq.connect(url) as connection:
        connection.declare_queue("kept")
        measured("-h", url, "-u", "kept", "-C", "100")
        measured("-h", url, "-u", "made", "-C", "100")

        assert [info.definition.name for info in connection.queues()] == ["kept"]
        connection.delete_queue("kept")


def test_lines_and_a_table_are_for_people(url: str) -> None:
    run = perf("-h", url, "-z", "0.6", "-i", "0.2")

    assert run.returncode == 0, run.stderr
    assert "published" in run.stdout
    assert "p99.9" in run.stdout


def test_without_shmqd_the_exit_code_is_3() -> None:
    run = perf("-h", "shmq:///nowhere/shmq.sock", "-C", "1")

    assert run.returncode == 3
    assert run.stderr.startswith("shmq-perf: ")


def test_a_url_of_another_broker_is_a_wrong_command_line() -> None:
    run = perf("-h", "amqp://localhost", "-C", "1")

    assert run.returncode == 2
    assert "shmq:///path/of.sock" in run.stderr


def test_what_a_worker_cannot_do_is_the_error(url: str) -> None:
    run = perf("-h", url, "-C", "1", "--confirm-level", "disk")

    assert run.returncode == 1
    assert "NotDurable" in run.stderr


def test_an_interrupt_ends_the_run_with_its_figures(url: str) -> None:
    command = [*COMMAND, "-h", url, "--json", "-i", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        while b"consumed" not in run.stderr.readline():
            pass
        os.kill(run.pid, signal.SIGINT)
        facts = json.loads(run.stdout.read())

    assert run.returncode == 0
    assert facts["consumed"] > 0


def test_workers_do_not_outlive_a_killed_parent() -> None:
    with shmq.local() as url:
        with subprocess.Popen([*COMMAND, "-h", url, "-i", "0.1", "-r", "100"], stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            while b"published" not in run.stdout.readline():
                pass
            workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            run.kill()

        assert len(workers) == 2
        wait_until(lambda: not any(Path("/proc", worker).exists() for worker in workers), "the workers' end")
