"""A storm of events beside jobs, as benchmarks/storm.py makes it, with real processes: the jobs hardly notice, memory
stays as it is, and where nobody consumes the events the memory watermark stops their queues alone.

Other work on this host can only make the jobs' times longer, so the best of three counts.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled

ROOT = Path(__file__).parents[2]
TRIES = 3
SHORT = ("--workers", "40", "--deliveries", "4000", "--turns", "2", "--seconds", "0.8")
pytestmark = pytest.mark.slow


def storm(arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.storm", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=scaled(seconds),
        check=False,
    )
    assert run.returncode in {0, 1}, run.stderr
    assert run.stderr == ""
    figures: dict[str, Any] = json.loads(run.stdout)
    return figures


def best(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The first without a fault, or the last."""
    for _ in range(TRIES):
        figures = measure()
        print(f"\njobs p99 {figures['p99_ms'][0]:.2f} ms, in the storm {figures['p99_ms'][1]:.2f} ms", end="")
        if not figures["missed"]:
            break
    return figures


@pytest.mark.parametrize("kind", [[], ["--deaf"]], ids=["consumed", "deaf"])
def test_jobs_go_on_beside_a_storm(kind: list[str]) -> None:
    figures = best(lambda: storm([*SHORT, *kind], 60))

    assert figures["missed"] == []


@pytest.mark.long
@pytest.mark.parametrize("kind", [[], ["--deaf"]], ids=["consumed", "deaf"])
def test_jobs_go_on_beside_ten_thousand_deliveries_a_second(kind: list[str]) -> None:
    figures = best(lambda: storm(kind, 240))

    assert figures["missed"] == []
    if kind:
        assert len(figures["stopped"]) == 100
