"""The threaded tests of the core, with threads that lose the processor at any access to a shared word."""

import os
import subprocess
from pathlib import Path

import pytest

from support.needs import program

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c11", "-O2", "-g", "-include", "tests/crash/preempted/preempted.h", "-Ishmq/core", "-Itests/c"]


def build(folder: Path, test: str) -> Path:
    core = [path for path in sorted((ROOT / "shmq/core").glob("*.c")) if not path.name.startswith("py_")]
    sources = [
        ROOT / f"tests/c/{test}.c",
        ROOT / "tests/c/support.c",
        ROOT / "tests/crash/preempted/preempted.c",
        *core,
    ]
    driver = folder / test
    command = [program("cc"), *FLAGS, *map(str, sources), "-pthread", "-o", str(driver)]
    subprocess.run(command, cwd=ROOT, check=True)
    return driver


def run(driver: Path, once_in: int, rounds: int) -> None:
    environment = {**os.environ, "SHMQ_PREEMPT": str(once_in)}
    done = subprocess.run([str(driver), str(rounds)], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, "the seed is in the output above; it repeats the choices, not the schedule"


@pytest.mark.slow
@pytest.mark.parametrize("once_in", [20, 1000])
def test_every_message_is_settled_once_whoever_loses_the_processor(tmp_path: Path, once_in: int) -> None:
    run(build(tmp_path, "test_stress"), once_in, 1)


@pytest.mark.slow
def test_nobody_sleeps_beside_a_message_whoever_loses_the_processor(tmp_path: Path) -> None:
    run(build(tmp_path, "test_sleep"), 10, 5000)


@pytest.mark.long
@pytest.mark.parametrize("once_in", [3, 20, 100, 1000, 10000])
def test_every_message_is_settled_once_in_many_rounds(tmp_path: Path, once_in: int) -> None:
    run(build(tmp_path, "test_stress"), once_in, 100)


@pytest.mark.long
@pytest.mark.parametrize("once_in", [3, 20, 100, 1000])
def test_nobody_sleeps_beside_a_message_in_many_rounds(tmp_path: Path, once_in: int) -> None:
    run(build(tmp_path, "test_sleep"), once_in, 500_000)
