"""kill -9 of producers and consumers at random moments under load: nothing is lost, doubled, torn or leaked.

A failure prints the seed of its round; one command repeats it:
SHMQ_CRASH_SEED=<seed> .venv/bin/pytest -s tests/crash/test_random_kills.py -k '0-direct' (or 0-socket, share, all_ways)
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from crash import checker, kinds
from crash.history import History, Outcome, Settle
from crash.plan import MODES, ROLES, Mode, Role
from crash.run import SEED_VARIABLE, Run, seed
from support.shmqd import Shmqd, instance

KILLS: Final = 2_000  # that count, of which each mode gets a half
LONG_ROUNDS: Final = 1_333
KINDS_KILLS: Final = 250  # that count, at queues of every kind, for each set of modes
SEEN_MIN: Final = 5  # of each thing that makes a kind what it is
ROUNDS: Final = 4  # each with queues, producers and consumers of its own
SECONDS: Final = 60.0  # for the kills of one round
Say = Callable[[str], None]
OF_MODE: Final[dict[Mode, list[tuple[Role, Mode]]]] = {mode: [(role, mode) for role in ROLES] for mode in MODES}
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


@pytest.mark.parametrize("roles", [OF_MODE["direct"], OF_MODE["socket"], MIXED], ids=["direct", "socket", "both"])
def test_nor_does_any_where_messages_take_all_ways_there_are(
    daemon: Shmqd, tmp_path: Path, roles: list[tuple[Role, Mode]], say: Say, request: pytest.FixtureRequest
) -> None:
    """Queues and exchanges of every kind (kinds.py), and queues that go with their owners."""
    owners: list[tuple[Role, Mode]] = [("own", mode) for mode in MODES]
    run = _round(daemon, tmp_path, [*roles, *owners], seed(), "direct", kills=KINDS_KILLS, every_kind=True)

    assert _missing(run) == []
    lost, of = _one_lost_in_each(run.history)
    missed = {violation.text.partition(" (")[0] for violation in checker.check(lost) if violation.rule == "lost"}
    assert len(of) >= len(run.queues) - 4  # of the dead, in a cycle, or dropped, where a count shows it
    assert missed == of
    say(_figures(run, f"every kind, {request.node.callspec.id}"))


def _missing(run: Run) -> list[str]:
    """What a run of every kind must have had, and this one has not."""
    history, totals = run.history, {rest.queue: rest.totals for rest in run.rests}
    reasons = Counter(one.reason for one in history.deliveries if one.queue == kinds.DEAD)
    pushed = {one.to for one in history.deliveries if one.queue == kinds.SINGLE and one.is_pushed}
    seen = {
        **{f"dead letters of reason {reason}": reasons[reason] for reason in ("rejected", "expired", "maxlen")},
        "heads dropped": totals[kinds.DROP]["purged"],
        "publishes refused": sum(one.outcome is Outcome.REFUSED for one in history.publishes),
        "dead letters of the one that refuses": totals[kinds.REFUSE_DEAD]["settled"],
        "active consumers, one after the other": len(pushed) - 1,
        "messages that went round": totals[kinds.ROUND_A]["settled"],
        "and back": totals[kinds.ROUND_B]["settled"],
        "messages put off": totals[kinds.RETRY]["fired"],
    }
    return [what for what, count in seen.items() if count < SEEN_MIN]


def _one_lost_in_each(history: History) -> tuple[History, set[str]]:
    """The same history without one message in each queue that must not lose any, as if it had never been delivered; and
    the names of these queues.
    """
    confirmed = {(one.queue, one.message) for one in history.publishes if one.outcome is Outcome.OK and not one.sent}
    rules = history.queues
    gone: dict[int, tuple[int, int, int]] = {}
    for one in history.deliveries:
        keeps_all = not rules[one.queue].in_cycle and (one.queue, one.message) in confirmed and one.queue != kinds.DROP
        if keeps_all and one.settle is Settle.ACK and one.outcome is Outcome.OK:
            gone.setdefault(one.queue, one.message)
    left = [one for one in history.deliveries if gone.get(one.queue) != one.message]
    return replace(history, deliveries=left), {rules[queue].name for queue in gone}


@pytest.mark.long
@pytest.mark.parametrize("every_kind", [False, True], ids=["plain", "kinds"])
@pytest.mark.parametrize("roles", [[(role, mode) for role in ROLES] for mode in MODES] + [MIXED], ids=[*MODES, "both"])
def test_nor_does_any_of_a_million_kills(
    daemon: Shmqd,
    tmp_path: Path,
    roles: list[tuple[Role, Mode]],
    every_kind: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    first = seed()
    for number in range(LONG_ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        more: list[tuple[Role, Mode]] = [("own", mode) for mode in MODES] if every_kind else []
        _round(daemon, folder, [*roles, *more], first + number, MODES[number % 2], every_kind=every_kind)
        shutil.rmtree(folder)


def _round(
    daemon: Shmqd,
    folder: Path,
    roles: list[tuple[Role, Mode]],
    number: int,
    drain_by: Mode,
    *,
    kills: int = KILLS // 2 // ROUNDS,
    every_kind: bool = False,
) -> Run:
    """Kill, heal, drain, check."""
    with Run(number, daemon.url, folder, roles, every_kind=every_kind) as run:
        run.workers.kill_until(kills, SECONDS)
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
