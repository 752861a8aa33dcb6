"""Each of Celery's pools over shmq; prefork is test_features.py's."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.celery_worker import Sender, Worker, lines, sender, wait_lines, worker
from support.deadline import scaled, wait_until
from support.needs import missing
from support.shmqd import Shmqd

PACKAGED = ("gevent", "eventlet")


@pytest.fixture(params=["solo", "threads", *PACKAGED], scope="module")
def pooled(request: pytest.FixtureRequest, daemon: Shmqd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    pool = request.param
    if pool in PACKAGED and importlib.util.find_spec(pool) is None:
        missing(f"the package {pool}")
    settings = {"broker_url": daemon.url, "result_backend": "rpc://", "task_acks_late": True}
    flags = ("-P", pool, "-c", "4", "-E", "--prefetch-multiplier", "1")
    with worker(tmp_path_factory.mktemp(pool), pool, *flags, **settings) as one:
        yield one
        assert one.stop() == 0, one.text()


@pytest.fixture
def tasks(daemon: Shmqd) -> Iterator[Sender]:
    with sender(daemon.url) as one:
        yield one


def test_tasks_run_and_are_acked(tasks: Sender, pooled: Worker) -> None:
    sent = [tasks.send("add", number, 1) for number in range(200)]

    assert [one.get(timeout=scaled(20)) for one in sent] == list(range(1, 201))
    wait_until(lambda: tasks.count("celery", "unacked") == 0, f"all are acked by {pooled.node}")


def test_remote_control_is_answered_while_tasks_run(tasks: Sender, pooled: Worker, tmp_path: Path) -> None:
    sent = tasks.send("nap", str(tmp_path / "nap"), "x", 0.5)

    assert tasks.ask(pooled.node, "ping") == {"ok": "pong"}
    sent.get(timeout=scaled(10))


def test_a_countdown_is_kept(tasks: Sender, pooled: Worker, tmp_path: Path) -> None:
    soon, later = tmp_path / "soon", tmp_path / "later"
    tasks.send("when", str(later), countdown=3600)
    tasks.send("when", str(soon), countdown=1)
    wait_lines(soon, 1)

    assert lines(later) == []
    assert tasks.ask(pooled.node, "scheduled") == []


def test_tasks_run_side_by_side_except_in_solo(tasks: Sender, pooled: Worker, tmp_path: Path) -> None:
    path, together = tmp_path / "held", 1 if pooled.node.startswith("solo") else 4
    sent = [tasks.send("hold", str(path), str(number)) for number in range(4)]

    assert sorted(wait_lines(path, together)) == ["0", "1", "2", "3"][:together]
    (tmp_path / "held.go").touch()
    assert [one.get(timeout=scaled(10)) for one in sent] == ["0", "1", "2", "3"]
