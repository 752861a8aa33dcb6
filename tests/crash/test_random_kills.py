"""kill -9 of producers and consumers at random moments under load: nothing is lost, doubled, torn or leaked.

A failure prints the seed of its round; one command repeats it:
SHMQ_CRASH_SEED=<seed> .venv/bin/pytest -s tests/crash/test_random_kills.py -k '0-direct' (or 0-socket, or share)
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from crash import checker
from crash.plan import ROLES, Mode, Role
from crash.run import SEED_VARIABLE, Run, seed
from support.shmqd import Shmqd, instance

KILLS: Final = 2_000  # that count, of which each mode gets a half
LONG_ROUNDS: Final = 1_333
ROUNDS: Final = 4  # each with queues, producers and consumers of its own
SECONDS: Final = 60.0  # for the kills of one round
MODES: Final[tuple[Mode, ...]] = ("direct", "socket")
MIXED: Final = [(role, MODES[index % 2]) for index, role in enumerate(sorted(ROLES))]

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_no_kill_of_a_client_loses_doubles_or_tears_a_message(
    daemon: Shmqd, tmp_path: Path, mode: Mode, number: int
) -> None:
    _round(daemon, tmp_path, [(role, mode) for role in ROLES], seed() + number, MODES[number % 2])


def test_clients_of_both_modes_may_share_queues_while_they_are_killed(daemon: Shmqd, tmp_path: Path) -> None:
    _round(daemon, tmp_path, MIXED, seed(), "direct")


@pytest.mark.long
@pytest.mark.parametrize("roles", [[(role, mode) for role in ROLES] for mode in MODES] + [MIXED], ids=[*MODES, "both"])
def test_nor_does_any_of_a_million_kills(daemon: Shmqd, tmp_path: Path, roles: list[tuple[Role, Mode]]) -> None:
    first = seed()
    for number in range(LONG_ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        _round(daemon, folder, roles, first + number, MODES[number % 2])
        shutil.rmtree(folder)


def _round(daemon: Shmqd, folder: Path, roles: list[tuple[Role, Mode]], number: int, drain_by: Mode) -> None:
    """Kill, heal, drain, check."""
    with Run(number, daemon.url, folder, roles) as run:
        run.workers.kill_until(KILLS // 2 // ROUNDS, SECONDS)
        run.finish(drain_by=drain_by)

    _tell(run)
    violations = run.verdict()
    assert violations == [], f"{SEED_VARIABLE}={number}\n{checker.report(violations)}"
    assert _restarts(daemon) == 0, f"a process of the daemon failed:\n{daemon.log.read_text()[-4000:]}"


def _restarts(daemon: Shmqd) -> int:
    with daemon.connect() as conn:
        return sum(process.restarts for process in conn.status().processes)


def _tell(run: Run) -> None:
    """Figures for the reader of the run."""
    history, workers = run.history, run.workers
    settled = Counter(delivery.settle.name for delivery in history.deliveries)
    again = sum(delivery.redelivered for delivery in history.deliveries)
    print(
        f"{workers.kills} kills, {workers.victims} counted: {dict(workers.counted)}\n"
        f"  {history.confirmed()} confirmed, {len(history.deliveries)} deliveries, {again} redelivered; {dict(settled)}"
    )
