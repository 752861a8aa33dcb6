"""How workers begin and end over shmq, and how they know of each other; each worker here has settings of its own."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import chord

from support.celery_worker import Sender, Worker, lines, sender, wait_lines, worker
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance

NEIGHBOURS_SECONDS = 20.0


@pytest.fixture
def tasks(daemon: Shmqd) -> Iterator[Sender]:
    with sender(daemon.url) as one:
        one.app.control.purge()
        yield one


@pytest.fixture
def work(daemon: Shmqd, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start workers; they are gone at the end."""
    with ExitStack() as stack:

        def start(name: str, *flags: str, **settings: Any) -> Worker:
            told = {"broker_url": daemon.url, "result_backend": "rpc://"} | settings
            return stack.enter_context(worker(tmp_path, name, *flags, **told))

        yield start


def test_workers_hear_of_each_other_and_of_what_was_revoked_before_they_came(
    tasks: Sender, work: Callable[..., Worker]
) -> None:
    first = work("first", "-P", "solo", "-l", "DEBUG")
    tasks.app.control.revoke("some-task", destination=["first@test"], reply=True, timeout=scaled(5))
    second = work("second", "-P", "solo")

    assert "mingle: sync with 1 nodes" in second.text()
    assert tasks.ask("second@test", "revoked") == ["some-task"]
    second.kill()
    third = work("third", "-P", "solo")
    wait_until(lambda: "third@test joined the party" in first.text(), "the first hears of it", NEIGHBOURS_SECONDS)
    assert third.stop() == 0
    wait_until(lambda: "third@test left" in first.text(), "the first hears of its end", NEIGHBOURS_SECONDS)


def test_a_killed_worker_leaves_no_queue_of_its_own(tasks: Sender, work: Callable[..., Worker]) -> None:
    before = tasks.queues()
    killed = work("killed", "-P", "solo", "-E")
    assert "killed@test.celery.pidbox" in tasks.queues()
    killed.kill()

    wait_until(lambda: tasks.queues() <= before | {"celery"}, "they are gone")


def test_a_worker_ends_warm_when_its_tasks_are_done(tasks: Sender, work: Callable[..., Worker], tmp_path: Path) -> None:
    path, more = tmp_path / "held", tmp_path / "more"
    one = work("warm", "-c", "1", worker_prefetch_multiplier=4)
    tasks.send("hold", str(path), "x")
    wait_lines(path, 1)
    for _ in range(5):
        tasks.send("note", str(more), "x")
    one.signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in one.text(), "it knows")
    (tmp_path / "held.go").touch()

    assert one.ended() == 0
    assert "succeeded" in one.text()
    assert tasks.count("celery", "unacked") == 0
    assert tasks.count("celery", "ready") + len(lines(more)) == 5


def test_a_worker_that_ends_cold_gives_its_tasks_back(
    tasks: Sender, work: Callable[..., Worker], tmp_path: Path
) -> None:
    path = tmp_path / "held"
    one = work("cold", "-c", "1", task_acks_late=True)
    for _ in range(3):
        tasks.send("hold", str(path), "x")
    wait_lines(path, 1)
    # Celery terminates those that it knows to have begun, and waits for one that it has not heard of yet.
    wait_until(lambda: bool(tasks.ask("cold@test", "active")), "the worker knows that it runs")
    one.signal(signal.SIGQUIT)
    one.ended()

    assert "Cold shutdown" in one.text()
    assert (tasks.count("celery", "ready"), tasks.count("celery", "unacked")) == (3, 0)
    assert lines(path) == ["x"]


def test_a_process_for_each_task_disturbs_no_other(tasks: Sender, work: Callable[..., Worker]) -> None:
    one = work("brief", "-c", "2", "-E", worker_max_tasks_per_child=1)
    pids = [sent.get(timeout=scaled(30)) for sent in [tasks.send("pid") for _ in range(10)]]

    assert len(set(pids)) == 10
    assert one.pid not in pids
    assert tasks.ask("brief@test", "ping") == {"ok": "pong"}


def test_a_pool_grows_with_the_work_and_shrinks_again(
    tasks: Sender, work: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOSCALE_KEEPALIVE", "1")
    one, path = work("scaled", "--autoscale", "3,1"), tmp_path / "held"
    assert len(one.children()) == 1
    for _ in range(4):
        tasks.send("hold", str(path), "x")

    wait_lines(path, 3)
    assert len(one.children()) == 3
    (tmp_path / "held.go").touch()
    wait_lines(path, 4)
    wait_until(lambda: len(one.children()) == 1, "it has shrunk", 30)


@pytest.mark.parametrize("mode", ["auto", "socket"])
def test_a_worker_that_has_given_the_daemon_up_goes_on_when_it_is_back(
    work: Callable[..., Worker], tmp_path: Path, mode: str
) -> None:
    """By Celery's own policy, in the same process, with its exclusive queues declared anew."""
    path = tmp_path / "done"
    with instance(tmp_path) as daemon, sender(daemon.url) as tasks:
        options = {"reconnect_timeout": 0.5, "mode": mode}
        one = work("patient", "-P", "solo", broker_url=daemon.url, broker_transport_options=options)
        assert {"patient@test.celery.pidbox", "celery"} <= tasks.queues()
        daemon.kill_all()
        wait_until(lambda: "Cannot connect" in one.text(), "it tries again", NEIGHBOURS_SECONDS)
        daemon.start()
        tasks.send("note", str(path), "x")

        assert wait_lines(path, 1, NEIGHBOURS_SECONDS) == ["x"]
        assert tasks.ask("patient@test", "ping") == {"ok": "pong"}
        assert "RESOURCE_LOCKED" not in one.text()
        assert one.stop() == 0


def test_a_chord_ends_with_its_body_where_results_are_in_files(
    daemon: Shmqd, tasks: Sender, work: Callable[..., Worker], tmp_path: Path
) -> None:
    del tasks  # it has purged what other tests have left
    (tmp_path / "results").mkdir()
    backend, path = f"file://{tmp_path}/results", tmp_path / "sum"
    # solo: nobody reads a result while it is being written, which Celery's files are not made for
    work("chords", "-P", "solo", result_backend=backend, result_chord_retry_interval=0.1)
    with sender(daemon.url, backend) as summing:
        header = [summing.app.signature("add", (number, number)) for number in range(10)]
        chord(header, app=summing.app)(summing.app.signature("total", (str(path),)))

        assert wait_lines(path, 1) == ["90"]
