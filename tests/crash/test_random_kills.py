"""kill -9 of producers and consumers at random moments under load: nothing is lost, doubled, torn or leaked.

One command repeats a run: SHMQ_CRASH_SEED=<seed> .venv/bin/pytest -s tests/crash/test_random_kills.py
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from crash import checker
from crash.plan import ROLES, Mode
from crash.run import Run, seed
from support.shmqd import Shmqd, instance

KILLS: Final = 2_000  # that count, of which each mode gets a half
ROUNDS: Final = 4  # each with queues, producers and consumers of its own
SECONDS: Final = 60.0  # for the kills of one round

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


@pytest.mark.parametrize("mode", ["direct", "socket"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_no_kill_of_a_client_loses_doubles_or_tears_a_message(
    daemon: Shmqd, tmp_path: Path, mode: Mode, number: int
) -> None:
    other: Mode = "socket" if mode == "direct" else "direct"
    with Run(seed() + number, daemon.url, tmp_path, [(role, mode) for role in ROLES]) as run:
        run.workers.kill_until(KILLS // 2 // ROUNDS, SECONDS)
        run.finish(drain_by=other if number % 2 else mode)

    _tell(run, mode)
    violations = run.verdict()
    assert violations == [], f"SHMQ_CRASH_SEED={run.number - number}\n{checker.report(violations)}"
    assert _restarts(daemon) == 0, f"a process of the daemon failed:\n{daemon.log.read_text()[-4000:]}"


def test_clients_of_both_modes_may_share_queues_while_they_are_killed(daemon: Shmqd, tmp_path: Path) -> None:
    modes: list[Mode] = ["direct", "socket"] * (len(ROLES) // 2)
    with Run(seed(), daemon.url, tmp_path, list(zip(sorted(ROLES), modes, strict=True))) as run:
        run.workers.kill_until(KILLS // 2 // ROUNDS, SECONDS)
        run.finish()

    _tell(run, "both")
    violations = run.verdict()
    assert violations == [], f"SHMQ_CRASH_SEED={run.number}\n{checker.report(violations)}"


def _restarts(daemon: Shmqd) -> int:
    with daemon.connect() as conn:
        return sum(process.restarts for process in conn.status().processes)


def _tell(run: Run, mode: str) -> None:
    """Figures for the reader of the run."""
    history, workers = run.history, run.workers
    settled = Counter(delivery.settle.name for delivery in history.deliveries)
    again = sum(delivery.redelivered for delivery in history.deliveries)
    print(
        f"{mode}: {workers.kills} kills, {workers.victims} counted: {dict(workers.counted)}\n"
        f"  {history.confirmed()} confirmed, {len(history.deliveries)} deliveries, {again} redelivered; {dict(settled)}"
    )
