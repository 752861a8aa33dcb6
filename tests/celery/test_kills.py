"""Workers, processes of their pools and the daemon, killed with -9 in the middle of the work.

Invariant: with late acks each task is done at least once, none is lost, and twice is done at most what the killed ones
had in their hands. Kills are spread over the whole run: the next one comes when so many more tasks are done.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped] # ships no types
import pytest

from support.celery_worker import Worker, lines, sender, wait_lines
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance

TASKS, KILLS = 1000, 100
CONCURRENCY = 8  # of each of two workers
NAP = 0.2  # seconds that a task takes
RESUMED_SECONDS = 2.0
RUN_SECONDS = 60.0
LATE = {"task_acks_late": True, "task_reject_on_worker_lost": True, "worker_prefetch_multiplier": 1}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as one:
        yield one


@contextmanager
def workers(daemon: Shmqd, *names: str) -> Iterator[list[Worker]]:
    told = {"broker_url": daemon.url, "task_ignore_result": True} | LATE
    ready = [Worker(daemon.folder, name, "-c", str(CONCURRENCY), **told) for name in names]
    try:
        for one in ready:
            one.start()
        for one in ready:
            one.wait_ready()
        yield ready
    finally:
        for one in ready:
            one.close()


class Killer:
    """Kills one thing at a time and counts what may be done twice for it."""

    def __init__(self, daemon: Shmqd, ready: list[Worker]) -> None:
        self.daemon = daemon
        self.workers = ready
        self.killed: Counter[str] = Counter()

    @property
    def doubles_max(self) -> int:
        return self.killed["process"] + CONCURRENCY * self.killed["worker"]

    def kill(self, what: str) -> None:
        getattr(self, f"_{what}")()
        self.killed[what] += 1

    def _process(self) -> None:
        wait_until(lambda: bool(self._processes()), "there is a process to kill", 30)
        with suppress(ProcessLookupError):
            os.kill(random.choice(self._processes()), signal.SIGKILL)

    def _processes(self) -> list[int]:
        """Those that run tasks: a child that is being made looks like its parent."""
        with suppress(psutil.NoSuchProcess):
            return [pid for one in self.workers for pid in one.children()]
        return []

    def _worker(self) -> None:
        one = random.choice(self.workers)
        one.kill()
        one.start()

    def _daemon(self) -> None:
        self.daemon.kill_all()
        self.daemon.start()


def plan() -> list[str]:
    """Of ten kills eight are of processes, one of a worker, one of the daemon; in any order."""
    order = (["process"] * 8 + ["worker", "daemon"]) * (KILLS // 10)
    random.shuffle(order)
    return order


def test_a_hundred_kills_lose_none_of_a_thousand_tasks(daemon: Shmqd) -> None:
    path = daemon.folder / "done"
    with sender(daemon.url) as tasks, workers(daemon, "one", "two") as ready:
        for number in range(TASKS):
            tasks.send("nap", str(path), str(number), NAP)
        killer, began = Killer(daemon, ready), time.monotonic()
        for number, what in enumerate(plan()):
            wait_lines(path, number * (TASKS - 4 * CONCURRENCY) // KILLS, 60)
            killer.kill(what)
        wait_until(lambda: len(set(lines(path))) == TASKS, "all are done", RUN_SECONDS)
        wait_until(lambda: tasks.count("celery", "unacked") == 0, "all are acked", 30)
        left = tasks.count("celery", "ready")
        doubles = len(lines(path)) - TASKS
        print(f"{TASKS} tasks, {killer.killed}: {doubles} done twice, {time.monotonic() - began:.0f} s")

    assert set(lines(path)) == {str(number) for number in range(TASKS)}
    assert left == 0
    assert doubles <= killer.doubles_max


def test_a_busy_worker_resumes_when_the_daemon_is_back(daemon: Shmqd) -> None:
    held, done = daemon.folder / "held", daemon.folder / "done"
    with workers(daemon, "one") as (one,), sender(daemon.url) as tasks:
        tasks.send("hold", str(held), "x")
        wait_lines(held, 1)
        for number in range(5):
            tasks.send("nap", str(done), "busy", NAP)
            daemon.kill_all()
            daemon.start()
            begun = time.monotonic()
            tasks.send("note", str(done), str(number))
            wait_until(lambda: str(number) in lines(done), "a new task is done", RESUMED_SECONDS)  # noqa: B023 - at once
            assert tasks.ask(one.node, "ping") == {"ok": "pong"}
            assert time.monotonic() - begun < scaled(RESUMED_SECONDS)
        (daemon.folder / "held.go").touch()
        wait_until(lambda: tasks.count("celery", "unacked") == 0, "what was held over it all is acked", 10)

        assert tasks.count("celery", "ready") == 0
        assert sorted(lines(done)) == [*map(str, range(5)), *["busy"] * 5]
    assert lines(held) == ["x"]
