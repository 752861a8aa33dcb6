"""The benchmark of Celery as a person runs it, in its shortest form and on shmq alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import scaled

ROOT = Path(__file__).parents[2]
SHORT = ("--rounds", "1", "--tasks", "100", "--starts", "10", "--eta", "0")
WAITING = ("--rounds", "0", "--eta", "100")
STORM = ("--storm", "--workers", "10", "--seconds", "3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "row"),
    [
        (SHORT, "| tasks/s, live |"),
        (STORM, "| jobs lost | 0.0 |"),
        pytest.param(WAITING, "| shmq | 100 |", marks=pytest.mark.long),
    ],
)
def test_it_ends_with_its_table(plan: tuple[str, ...], row: str) -> None:
    command = [sys.executable, "-m", "benchmarks.celery", "--brokers", "shmq", *plan]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(120), check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert row in done.stdout
