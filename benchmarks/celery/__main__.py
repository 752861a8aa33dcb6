"""Celery on shmq, RabbitMQ and Redis, side by side: `python -m benchmarks.celery [--rounds 3] [--storm]`.

Servers are this run's own and gone at its end; those that are not installed are left out. In each round all brokers
take their turn; a figure is the median of the rounds. Prints Markdown; exits 1 where a goal is missed.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.celery import storm, work
from benchmarks.celery.brokers import Broker, brokers
from benchmarks.side_by_side.servers.rabbitmq import SCRIPTS
from benchmarks.side_by_side.servers.server import find_program


class Goal(NamedTuple):
    """What shmq's figure must be, of the best other one."""

    name: str
    title: str
    factor: float
    larger_is_better: bool = False


GOALS: Final = (
    Goal("queued", "tasks/s, queued beforehand", 1.1, larger_is_better=True),
    Goal("live", "tasks/s, live", 1.1, larger_is_better=True),
    Goal("start", "apply_async to start, p50, ms", 0.9),
    Goal("broker", "broker's processor time per task, us", 1.0),
)
FLAT_MIB: Final = 5.0  # what a worker may grow by, however many tasks wait


def available() -> list[str]:
    """Return the names of the brokers that this host has."""
    names = ["shmq"]
    if any(Path(script).exists() for script in SCRIPTS):
        names.append("RabbitMQ")
    if find_program("redis-server") and importlib.util.find_spec("redis"):
        names.append("Redis")
    return names


def side_by_side(running: list[Broker], folder: Path, plan: argparse.Namespace) -> int:
    """Measure in rounds, print the table, return how many goals are missed."""
    rounds: dict[str, list[dict[str, float]]] = {broker.name: [] for broker in running}
    for _ in range(plan.rounds):
        for broker in running:
            rounds[broker.name].append(work.throughput(broker, folder, plan.tasks, plan.starts))
            print(broker.name, rounds[broker.name][-1], file=sys.stderr)
    print(f"| | {' | '.join(rounds)} | goal |\n|---|{'---:|' * len(rounds)}---|")
    missed = 0
    for goal in GOALS:
        median = {name: statistics.median(one[goal.name] for one in each) for name, each in rounds.items()}
        mine, others = median.pop("shmq"), list(median.values())
        said = "nobody to compare with"
        if others:
            best = (max if goal.larger_is_better else min)(others)
            met = mine >= goal.factor * best if goal.larger_is_better else mine <= goal.factor * best
            said = f"{mine / best:.2f}x of the best other, goal {goal.factor}x: {'met' if met else 'missed'}"
            missed += not met
        print(f"| {goal.title} | {' | '.join(f'{value:,.1f}' for value in (mine, *others))} | {said} |")
    return missed


def waiting(running: list[Broker], folder: Path, plan: argparse.Namespace) -> int:
    """Print what tasks cost that are due in an hour; return 1 where our worker's memory is not flat."""
    print("\n| | tasks that wait | sent/s | in the worker | worker grows by, MiB | broker grows by, MiB |")
    print(f"|---|{'---:|' * 5}")
    missed = 0
    for broker in running:
        count = plan.eta if broker.name == "shmq" else min(plan.eta, plan.eta_others)
        told = work.waiting(broker, folder, count)
        print(f"| {broker.name} | {count:,} | {told['sent']:,.0f} | {told['held']:,.0f} ", end="")
        print(f"| {told['worker']:,.1f} | {told['broker']:,.1f} |")
        missed += broker.name == "shmq" and told["worker"] > FLAT_MIB
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--starts", type=int, default=300)
    parser.add_argument("--eta", type=int, default=100_000)
    parser.add_argument("--eta-others", type=int, default=10_000, help="fewer: their workers keep them all in memory")
    parser.add_argument("--brokers", nargs="+", choices=available(), default=available())
    parser.add_argument("--storm", action="store_true", help="the storm alone")
    parser.add_argument("--workers", type=int, default=100, help="of the storm")
    parser.add_argument("--seconds", type=float, default=20, help="that the storm takes")
    plan = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, brokers(plan.brokers) as running:
        if plan.storm:
            return storm.side_by_side([one for one in running if one.name != "Redis"], plan.workers, plan.seconds)
        missed = side_by_side(running, Path(folder), plan) if plan.rounds else 0
        return 1 if missed + (waiting(running, Path(folder), plan) if plan.eta else 0) else 0


if __name__ == "__main__":
    raise SystemExit(main())
