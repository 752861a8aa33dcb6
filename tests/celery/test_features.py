"""What Celery can do, done by a real prefork worker over shmq: acks, windows, priorities, results, remote control."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Queue

from support.celery_worker import Sender, Worker, lines, sender, wait_lines, worker
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd

NODE = "main@test"
HELD = 50


@pytest.fixture(scope="module")
def main(daemon: Shmqd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Two processes, late acks, one task reserved for each."""
    settings: dict[str, Any] = {
        "broker_url": daemon.url,
        "result_backend": "rpc://",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
    }
    with worker(tmp_path_factory.mktemp("main"), "main", "-c", "2", "-E", "-Q", "celery,other", **settings) as one:
        yield one


@pytest.fixture(scope="module")
def tasks(daemon: Shmqd, main: Worker) -> Iterator[Sender]:
    del main  # is there
    with sender(daemon.url) as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def let_go(path: Path) -> None:
    path.with_name(f"{path.name}.go").touch()


def occupy(tasks: Sender, folder: Path) -> list[Path]:
    """Give each process a task that it keeps; return what lets each go."""
    paths = [folder / f"held{number}" for number in range(2)]
    for path in paths:
        tasks.send("hold", str(path), "held")
    for path in paths:
        wait_lines(path, 1)
    return paths


def test_results_come_over_rpc(tasks: Sender) -> None:
    assert [tasks.result("add", number, 1) for number in range(5)] == [1, 2, 3, 4, 5]


def test_a_task_is_acked_when_it_is_done_and_not_before(tasks: Sender, path: Path) -> None:
    held = tasks.send("hold", str(path), "x")
    wait_lines(path, 1)
    assert (tasks.count("celery", "unacked"), tasks.count("celery", "ready")) == (1, 0)
    let_go(path)
    held.get(timeout=scaled(10))

    wait_until(lambda: tasks.count("celery", "unacked") == 0, "it is acked")


def test_a_task_whose_process_is_killed_runs_again(tasks: Sender, main: Worker, path: Path) -> None:
    tasks.result("die_once", str(path))

    first, second = map(int, lines(path))
    assert first not in main.children()
    assert second in main.children()


def test_no_more_tasks_are_reserved_than_there_are_processes(tasks: Sender, tmp_path: Path) -> None:
    held = occupy(tasks, tmp_path)
    more = [tasks.send("add", number, 0) for number in range(10)]

    assert tasks.ask(NODE, "reserved") == []
    assert (tasks.count("celery", "unacked"), tasks.count("celery", "ready")) == (2, 10)
    for path in held:
        let_go(path)
    assert [one.get(timeout=scaled(20)) for one in more] == list(range(10))


def test_what_is_more_urgent_runs_first(tasks: Sender, tmp_path: Path) -> None:
    queue, path = Queue("urgent", max_priority=9), tmp_path / "order"
    held = occupy(tasks, tmp_path)
    for priority in (3, 9, 0, 5, 7, 1):
        tasks.send("note", str(path), str(priority), queue=queue, priority=priority)
    tasks.app.control.add_consumer(
        "urgent", destination=[NODE], reply=True, options={"queue_arguments": {"x-max-priority": 9}}
    )
    let_go(held[0])
    try:
        assert wait_lines(path, 6) == ["9", "7", "5", "3", "1", "0"]
    finally:
        let_go(held[1])
        tasks.app.control.cancel_consumer("urgent", destination=[NODE], reply=True)


def test_what_is_due_later_is_held_by_the_broker_and_not_by_the_worker(tasks: Sender, path: Path) -> None:
    for _ in range(HELD):
        tasks.send("note", str(path), "x", countdown=3600)
    tasks.result("add", 1, 1)  # the worker has had time for them

    wait_until(lambda: tasks.count("celery", "delayed") == HELD, "all are held")
    assert (tasks.ask(NODE, "scheduled"), tasks.ask(NODE, "reserved")) == ([], [])
    assert (tasks.count("celery", "ready"), tasks.count("celery", "unacked")) == (0, 0)
    assert tasks.app.control.purge() == 0  # what is delayed is not ready


def test_what_is_due_soon_is_shown_by_the_worker_and_starts_on_time(tasks: Sender, path: Path) -> None:
    begun = time.time()
    tasks.send("when", str(path), countdown=2)
    wait_until(lambda: len(tasks.ask(NODE, "scheduled")) == 1, "it is shown as scheduled")

    late = float(wait_lines(path, 1)[0]) - begun - 2
    assert 0 <= late < scaled(1)


def test_what_was_held_starts_on_time(daemon: Shmqd, main: Worker, path: Path) -> None:
    del main  # is there
    with sender(daemon.url, broker_transport_options={"eta_lead": 0.5}) as tasks:
        begun = time.time()
        tasks.send("when", str(path), countdown=2)
        wait_until(lambda: tasks.count("celery", "delayed") > HELD, "it is held")

        late = float(wait_lines(path, 1)[0]) - begun - 2
    assert 0 <= late < scaled(1)


def test_one_worker_serves_several_queues(tasks: Sender) -> None:
    assert tasks.result("add", 1, 2, queue="other") == 3
    assert {one["name"] for one in tasks.ask(NODE, "active_queues")} == {"celery", "other"}


def test_inspect_answers(tasks: Sender, path: Path) -> None:
    held = tasks.send("hold", str(path), "x")
    wait_lines(path, 1)

    assert tasks.ask(NODE, "ping") == {"ok": "pong"}
    assert [one["id"] for one in tasks.ask(NODE, "active")] == [held.id]
    assert {"add", "hold"} <= set(tasks.ask(NODE, "registered"))
    stats = tasks.ask(NODE, "stats")
    assert (stats["broker"]["transport"], stats["prefetch_count"]) == ("shmq", 2)
    let_go(path)
    held.get(timeout=scaled(10))


def test_a_revoked_task_does_not_run(tasks: Sender, tmp_path: Path) -> None:
    held, path = occupy(tasks, tmp_path), tmp_path / "revoked"
    revoked = tasks.send("note", str(path), "x")
    tasks.app.control.revoke(revoked.id, destination=[NODE], reply=True, timeout=scaled(5))
    for one in held:
        let_go(one)
    tasks.result("add", 1, 1)

    wait_until(lambda: tasks.count("celery", "unacked") == 0, "it is settled")
    assert tasks.count("celery", "ready") == 0
    assert lines(path) == []


def test_a_running_task_is_terminated(tasks: Sender, path: Path) -> None:
    held = tasks.send("hold", str(path), "x")
    wait_lines(path, 1)
    tasks.app.control.revoke(held.id, terminate=True, destination=[NODE], reply=True, timeout=scaled(5))

    wait_until(lambda: tasks.ask(NODE, "active") == [], "it has ended", 10)
    wait_until(lambda: tasks.count("celery", "unacked") == 0, "it is settled")
    assert lines(path) == ["x"]
    assert tasks.result("add", 1, 1) == 2


def test_a_rate_limit_is_kept(tasks: Sender, path: Path) -> None:
    limit = {"destination": [NODE], "reply": True, "timeout": scaled(5)}
    tasks.app.control.rate_limit("when", "5/s", **limit)
    for _ in range(6):
        tasks.send("when", str(path))
    ran = sorted(map(float, wait_lines(path, 6)))
    tasks.app.control.rate_limit("when", 0, **limit)

    assert ran[-1] - ran[0] > 0.7


def test_the_pool_grows_and_shrinks_by_remote_control_and_the_window_with_it(tasks: Sender, main: Worker) -> None:
    how = {"destination": [NODE], "reply": True, "timeout": scaled(5)}
    tasks.app.control.pool_grow(1, **how)
    wait_until(lambda: len(main.children()) == 3, "the pool has grown", 15)
    assert tasks.ask(NODE, "stats")["prefetch_count"] == 3
    tasks.app.control.pool_shrink(1, **how)

    wait_until(lambda: len(main.children()) == 2, "the pool has shrunk", 15)
    assert tasks.ask(NODE, "stats")["prefetch_count"] == 2


def test_events_tell_of_each_task(daemon: Shmqd, tasks: Sender) -> None:
    seen: list[tuple[str, str]] = []
    with sender(daemon.url) as other, other.app.connection_for_read() as connection:
        receiver = other.app.events.Receiver(
            connection, handlers={"*": lambda event: seen.append((event["type"], event.get("uuid", "")))}
        )
        with receiver.consumer_context() as (open_connection, _, _):
            sent = tasks.send("add", 1, 1)
            while ("task-succeeded", sent.id) not in seen:
                open_connection.drain_events(timeout=scaled(10))

    told = [kind for kind, uuid in seen if uuid == sent.id]
    assert told == ["task-received", "task-started", "task-succeeded"]
    assert sent.get(timeout=scaled(10)) == 2


def test_a_queue_of_results_vanishes_with_its_owner(daemon: Shmqd, tasks: Sender) -> None:
    with sender(daemon.url) as other:
        before = tasks.queues()
        other.result("add", 1, 1)
        mine = tasks.queues() - before
        assert mine
        other.app.backend.result_consumer.stop()

    wait_until(lambda: not mine & tasks.queues(), "it is gone")
