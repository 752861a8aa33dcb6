"""Asks the questions, prints tables, draws plots.

    python -m benchmarks.side_by_side                     all questions, all peers: about 40 minutes
    python -m benchmarks.side_by_side --quick             3 minutes
    python -m benchmarks.side_by_side sizes --only shmq,zeromq --rounds 3

Writes results.json, report.md and a PNG for each plot to out/benchmarks.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from . import host, plots, registry
from .measure import Measuring, Pace
from .question import Answer, Question
from .questions import backlog, levels, many, one_to_one, round_trip, sizes
from .servers.servers import Servers
from .tables import answer_text, goals_text

QUESTIONS: Final[dict[str, Question]] = {
    "one_to_one": one_to_one.ask,
    "round_trip": round_trip.ask,
    "sizes": sizes.ask,
    "many": many.ask,
    "levels": levels.ask,
    "backlog": backlog.ask,
}
FULL: Final = Pace()
QUICK: Final = Pace(rounds=3, seconds=0.1, trips=1_000, quick=True)


def main(arguments: Sequence[str]) -> None:
    """Ask what the command line asks for."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    found = registry.find(options.only)
    pace = pace_of(options)
    report = Report(options.output)
    report.say("# shmq and its peers, side by side\n")
    facts = host.facts(found.peers, pace)
    for name, fact in facts.items():
        report.say(f"- {name}: {fact}")
    for name, reason in found.skipped.items():
        report.say(f"- skipped {name}: {reason}")
    answers: list[Answer] = []
    with Servers() as servers:
        measuring = Measuring(servers, pace)
        for name in options.questions or QUESTIONS:
            start = time.monotonic()
            new = QUESTIONS[name](measuring, found.peers)
            for number, answer in enumerate(new):
                plots.draw(f"{name}_{number + 1}" if len(new) > 1 else name, answer, options.output)
                report.say(answer_text(answer))
            report.say(f"\n({time.monotonic() - start:.0f} s)")
            answers += new
            report.write({"host": facts, "skipped": found.skipped, "answers": [a.facts() for a in answers]})
    report.say(goals_text([figure for answer in answers for figure in answer.figures]))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser("benchmarks.side_by_side", description=__doc__.partition("\n")[0])
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], help="default: all", metavar="QUESTION")
    parser.add_argument("--quick", action="store_true", help="3 minutes: fewer rounds, points and messages")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="peers whose name contains one of these"
    )
    parser.add_argument("--rounds", type=int, help=f"default: {FULL.rounds}, quick: {QUICK.rounds}")
    parser.add_argument("--seconds", type=float, help=f"of a round; default: {FULL.seconds}, quick: {QUICK.seconds}")
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks"), metavar="DIR")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def pace_of(options: argparse.Namespace) -> Pace:
    """Return how thorough the run is to be."""
    base = QUICK if options.quick else FULL
    return Pace(options.rounds or base.rounds, options.seconds or base.seconds, base.trips, base.quick)


class Report:
    """What is printed, kept as Markdown, and the data beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._text = folder / "report.md"
        self._text.write_text("")

    def say(self, text: str) -> None:
        """Print and keep."""
        print(text, flush=True)
        with self._text.open("a") as file:
            file.write(text + "\n")

    def write(self, facts: dict[str, Any]) -> None:
        """Keep the data."""
        (self._folder / "results.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports it
