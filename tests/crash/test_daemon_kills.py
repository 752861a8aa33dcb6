"""kill -9 of the daemon's processes under load: nothing confirmed is lost, and direct clients do not notice.

One command repeats a run: SHMQ_CRASH_SEED=<seed> .venv/bin/pytest -s tests/crash/test_daemon_kills.py
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from crash import checker
from crash.logbook import READY, STEPS
from crash.nemesis import Workers
from crash.outages import WORKERS, Victim, complaints, kill, kill_at_work, pid_of
from crash.plan import MODES
from crash.run import SEED_VARIABLE, Run, seed
from shmq.limits import RESUME_SECONDS
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance

KILLS: Final = 50  # of each
ALL_AT_ONCE: Final = 10
TOGETHER: Final = 50
CLIENTS_EACH: Final = 4  # killed between two deaths of the daemon's
BACK_SECONDS_MAX: Final = 1.0
STALL_NS_MAX: Final[dict[Victim, int]] = {
    "broker": 100_000_000,
    "supervisor": 100_000_000,
    "master": 250_000_000,  # all bells die with it: until both ends have new ones, those who wait look every 25 ms
}
WAKE_SECONDS_MAX: Final = 1.0
Say = Callable[[str], None]

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


@pytest.mark.parametrize("victim", ["broker", "supervisor", "master"])
def test_no_kill_of_a_daemon_process_loses_a_message_or_holds_up_direct_clients(
    daemon: Shmqd, tmp_path: Path, victim: Victim, say: Say
) -> None:
    deaths = kill_at_work(daemon, tmp_path, seed(), victim, KILLS)

    run, back, stall_ns = deaths.run, deaths.back, deaths.stall_ns
    say(
        f"{victim}, {SEED_VARIABLE} {run.number}: {KILLS} kills, {run.history.confirmed()} confirmed,"
        f" {len(run.history.deliveries)} deliveries; back after {statistics.median(back) * 1e3:.0f} ms (median),"
        f" {max(back) * 1e3:.0f} ms (longest); longest stall of direct clients {stall_ns / 1e6:.1f} ms"
    )
    violations = run.verdict()
    assert violations == [], f"SHMQ_CRASH_SEED={run.number}\n{checker.report(violations)}"
    assert stall_ns <= STALL_NS_MAX[victim]
    assert max(back) <= scaled(BACK_SECONDS_MAX)


def test_nothing_is_lost_when_clients_and_daemon_die_together(daemon: Shmqd, tmp_path: Path, say: Say) -> None:
    victims: list[Victim] = ["broker", "supervisor", "master", "all"]
    with Run(seed(), daemon.url, tmp_path, [*WORKERS, ("publish", "direct")]) as run:
        for number in range(TOGETHER):
            run.workers.kill_until((number + 1) * CLIENTS_EACH, 20.0)
            run.history.outages.append(kill(daemon, run.dice.choice(victims)))
        run.finish()
        run.history.errors += complaints(daemon)

    say(
        f"together, {SEED_VARIABLE} {run.number}: {TOGETHER} deaths of the daemon's, {run.workers.victims} of clients,"
        f" {run.history.confirmed()} confirmed"
    )
    violations = run.verdict()
    assert violations == [], f"SHMQ_CRASH_SEED={run.number}\n{checker.report(violations)}"


def test_a_job_may_take_longer_than_a_lost_session_is_kept(daemon: Shmqd) -> None:
    with daemon.connect("direct") as conn, daemon.connect("direct") as other:
        conn.declare_queue("jobs")
        conn.publish(b"long job", routing_key="jobs")
        job = conn.get("jobs")
        assert job is not None
        before = daemon.child("broker")
        daemon.kill("broker")
        wait_until(lambda: pid_of(daemon, "broker") not in {before, 0}, "the broker is back", 10.0)

        assert other.get("jobs", timeout=RESUME_SECONDS + 1) is None
        job.ack()


def test_after_the_death_of_all_processes_a_new_publisher_wakes_those_who_wait(
    daemon: Shmqd, tmp_path: Path, say: Say
) -> None:
    queues = [f"wait-{index}" for index in range(4)]
    with Run(seed(), daemon.url, tmp_path, []) as run:
        waiting = run.canaries(*(("wait", MODES[index % 2], [queue]) for index, queue in enumerate(queues)))
        wait_until(lambda: all(worker.log.words[READY] for worker in waiting.workers), "consumers connect", 20.0)
        woken = [_wake_after_all_died(daemon, waiting, queues, number) for number in range(ALL_AT_ONCE)]
        waiting.end()

    typical, longest = statistics.median(woken) * 1e3, max(woken) * 1e3
    say(f"{ALL_AT_ONCE} deaths of all at once: all woken after {typical:.0f} ms (median), {longest:.0f} ms (longest)")
    assert max(woken) <= scaled(WAKE_SECONDS_MAX)


def _wake_after_all_died(daemon: Shmqd, waiting: Workers, queues: list[str], number: int) -> float:
    """Returns how long after the new daemon's readiness the last waiting consumer had its message."""
    daemon.kill_all()
    daemon.start()
    ready = time.monotonic()
    with daemon.connect() as conn:
        for queue in queues:
            conn.publish(b"wake up", routing_key=queue)
    wait_until(lambda: all(worker.log.words[STEPS] > number for worker in waiting.workers), "all are woken", 10.0)
    return time.monotonic() - ready
