"""kill -9 of producers and consumers at random moments under load: nothing is lost, doubled, torn or leaked.

A failure prints the seed of its round; one command repeats it:
SHMQ_CRASH_SEED=<seed> .venv/bin/pytest -s tests/crash/test_random_kills.py -k '0-direct' (or 0-socket, or share)
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from crash import checker
from crash.plan import MODES, ROLES, Mode, Role
from crash.run import SEED_VARIABLE, Run, seed
from support.shmqd import Shmqd, instance

KILLS: Final = 2_000  # that count, of which each mode gets a half
LONG_ROUNDS: Final = 1_333
ROUNDS: Final = 4  # each with queues, producers and consumers of its own
SECONDS: Final = 60.0  # for the kills of one round
Say = Callable[[str], None]
MIXED: Final = [(role, MODES[index % 2]) for index, role in enumerate(sorted(ROLES))]

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_no_kill_of_a_client_loses_doubles_or_tears_a_message(
    daemon: Shmqd, tmp_path: Path, mode: Mode, number: int, say: Say
) -> None:
    run = _round(daemon, tmp_path, [(role, mode) for role in ROLES], seed() + number, MODES[number % 2])

    say(_figures(run, mode))


def test_clients_of_both_modes_may_share_queues_while_they_are_killed(daemon: Shmqd, tmp_path: Path, say: Say) -> None:
    run = _round(daemon, tmp_path, MIXED, seed(), "direct")

    say(_figures(run, "both"))


@pytest.mark.long
@pytest.mark.parametrize("roles", [[(role, mode) for role in ROLES] for mode in MODES] + [MIXED], ids=[*MODES, "both"])
def test_nor_does_any_of_a_million_kills(daemon: Shmqd, tmp_path: Path, roles: list[tuple[Role, Mode]]) -> None:
    first = seed()
    for number in range(LONG_ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        _round(daemon, folder, roles, first + number, MODES[number % 2])
        shutil.rmtree(folder)


def _round(daemon: Shmqd, folder: Path, roles: list[tuple[Role, Mode]], number: int, drain_by: Mode) -> Run:
    """Kill, heal, drain, check."""
    with Run(number, daemon.url, folder, roles) as run:
        run.workers.kill_until(KILLS // 2 // ROUNDS, SECONDS)
        run.finish(drain_by=drain_by)

    violations = run.verdict()
    assert violations == [], f"{SEED_VARIABLE}={number}\n{checker.report(violations)}"
    assert _restarts(daemon) == 0, f"a process of the daemon failed:\n{daemon.log.read_text()[-4000:]}"
    return run


def _restarts(daemon: Shmqd) -> int:
    with daemon.connect() as conn:
        return sum(process.restarts for process in conn.status().processes)


def _figures(run: Run, mode: str) -> str:
    """For the reader of the run."""
    history, workers = run.history, run.workers
    settled = Counter(delivery.settle.name for delivery in history.deliveries)
    again = sum(delivery.redelivered for delivery in history.deliveries)
    inside = ", ".join(f"{count} in {what}" for what, count in workers.counted.most_common())
    return (
        f"{mode}, {SEED_VARIABLE} {run.number}: {workers.kills} kills, {workers.victims} counted ({inside});"
        f" {history.confirmed()} confirmed, {len(history.deliveries)} deliveries, {again} redelivered, {dict(settled)}"
    )
