"""One long run of kills: clients in both modes, then processes of the daemon, round after round, each one checked.

    make endurance                                               # 100,000 clients, 2,000 processes of the daemon
    PYTHONPATH=tests .venv/bin/python -m crash.endurance --client-kills 5000 --daemon-kills 100

Prints a line for each round and a table at the end; exits 1 at the first round that breaks a rule, with the seed that
repeats it. One daemon serves all rounds, so that what it would leak adds up.

Owns: the order of rounds and the sums. Does not own: kills (nemesis.py, outages.py), rules (checker.py).
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, cycle
from pathlib import Path
from typing import Final

from crash import checker
from crash.outages import Victim, kill_at_work
from crash.plan import MODES, ROLES, Mode, Role
from crash.run import SEED_VARIABLE, Run, seed
from support.shmqd import Shmqd, instance

CLIENT_KILLS: Final = 100_000
DAEMON_KILLS: Final = 2_000
CLIENTS_A_ROUND: Final = 250
DAEMONS_A_ROUND: Final = 50
ROUND_SECONDS: Final = 120.0
MIXES: Final[dict[str, list[tuple[Role, Mode]]]] = {
    "direct": [(role, "direct") for role in ROLES],
    "socket": [(role, "socket") for role in ROLES],
    "both": [(role, MODES[index % 2]) for index, role in enumerate(sorted(ROLES))],
}
VICTIMS: Final[tuple[Victim, ...]] = ("broker", "supervisor", "master")


@dataclass
class Sums:
    """Of all rounds so far. stalls_ns: the longest of direct clients, by victim."""

    kills: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    confirmed: int = 0
    deliveries: int = 0
    redelivered: int = 0
    stalls_ns: dict[str, int] = field(default_factory=dict)
    back: list[float] = field(default_factory=list)

    def add(self, run: Run, name: str, kills: int) -> None:
        """Take in a round."""
        self.kills[name] += kills
        self.counted += run.workers.counted
        self.confirmed += run.history.confirmed()
        self.deliveries += len(run.history.deliveries)
        self.redelivered += sum(delivery.redelivered for delivery in run.history.deliveries)


class Broken(Exception):  # noqa: N818 - says what is the case
    """A round that breaks a rule."""


def client_rounds(daemon: Shmqd, sums: Sums, kills: int, folders: Iterator[Path], first: int) -> Iterator[str]:
    """Kill clients; yields the name of each round done."""
    for number, mode in enumerate(cycle(MIXES)):
        if (left := kills - sum(sums.kills[mix] for mix in MIXES)) <= 0:
            return
        with Run(first + number, daemon.url, next(folders), MIXES[mode]) as run:
            run.workers.kill_until(min(CLIENTS_A_ROUND, left), ROUND_SECONDS)
            run.finish(drain_by=MODES[number % 2])
        check(run)
        sums.add(run, mode, run.workers.victims)
        yield mode


def daemon_rounds(daemon: Shmqd, sums: Sums, kills: int, folders: Iterator[Path], first: int) -> Iterator[str]:
    """Kill processes of the daemon; yields the name of each round done."""
    for number, victim in enumerate(cycle(VICTIMS)):
        if (left := kills - sum(sums.kills[name] for name in VICTIMS)) <= 0:
            return
        deaths = kill_at_work(daemon, next(folders), first + number, victim, min(DAEMONS_A_ROUND, left))
        check(deaths.run)
        sums.add(deaths.run, victim, len(deaths.back))
        sums.back += deaths.back
        sums.stalls_ns[victim] = max(sums.stalls_ns.get(victim, 0), deaths.stall_ns)
        yield victim


def check(run: Run) -> None:
    """Raise Broken for a round that breaks a rule."""
    violations = run.verdict()
    if violations:
        raise Broken(f"{SEED_VARIABLE}={run.number}\n{checker.report(violations)}")


def folders_under(parent: Path) -> Iterator[Path]:
    """Yield a folder for each round; it goes when the next one is wanted."""
    while True:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            yield Path(folder)


def table(sums: Sums, seconds: float) -> str:
    """What the whole run amounts to, as Markdown."""
    rows = [(f"kills of clients, {mix}", f"{sums.kills[mix]:,}") for mix in MIXES if sums.kills[mix]]
    rows += [(f"inside {where}", f"{count:,}") for where, count in sums.counted.most_common()]
    rows += [(f"kills of the {victim}", f"{sums.kills[victim]:,}") for victim in VICTIMS if sums.kills[victim]]
    rows += [
        (f"longest stall of direct clients, {victim}", f"{ns / 1e6:.1f} ms") for victim, ns in sums.stalls_ns.items()
    ]
    if sums.back:
        back = sorted(sums.back)
        rows.append(
            ("successor there, median and longest", f"{back[len(back) // 2] * 1e3:.0f} ms, {back[-1] * 1e3:.0f} ms")
        )
    rows += [
        ("messages confirmed", f"{sums.confirmed:,}"),
        ("deliveries", f"{sums.deliveries:,}"),
        ("of them redelivered", f"{sums.redelivered:,}"),
        ("lost, doubled, torn, out of order, leaked", "0"),
        ("time", f"{seconds / 60:.0f} min"),
    ]
    return "\n".join(["| what | figure |", "|---|---:|", *(f"| {what} | {figure} |" for what, figure in rows)])


def rounds(daemon: Shmqd, folders: Iterator[Path], sums: Sums, kills: argparse.Namespace, first: int) -> None:
    """Do all rounds and say so. Raises Broken, AssertionError."""
    started, of_its_own = time.monotonic(), daemon.segments()
    clients = client_rounds(daemon, sums, kills.client_kills, folders, first)
    for name in chain(clients, daemon_rounds(daemon, sums, kills.daemon_kills, folders, first)):
        if left := daemon.segments() - of_its_own:
            raise Broken(f"left of deleted queues: {sorted(left)}")
        done, minutes = sum(sums.kills.values()), (time.monotonic() - started) / 60
        print(f"{minutes:6.1f} min  {done:7,} kills  {sums.confirmed:12,} confirmed  {name}", flush=True)


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser("crash.endurance", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--client-kills", type=int, default=CLIENT_KILLS, metavar="N")
    parser.add_argument("--daemon-kills", type=int, default=DAEMON_KILLS, metavar="N")
    kills = parser.parse_args()
    started, sums, first = time.monotonic(), Sums(), seed()
    with tempfile.TemporaryDirectory() as parent, instance(Path(parent)) as daemon:
        try:
            rounds(daemon, folders_under(Path(parent)), sums, kills, first)
        except (Broken, AssertionError) as broken:
            kept = Path(tempfile.mkdtemp(prefix="endurance-")) / "broken"
            shutil.copytree(parent, kept, ignore=shutil.ignore_patterns("*.sock"))
            print(f"BROKEN: {broken}\nlogbooks and the daemon's log are in {kept}")
            return 1
    print(f"\n{SEED_VARIABLE}={first}\n\n{table(sums, time.monotonic() - started)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
