"""Every core operation stopped and killed before each of its instructions: the driver in `stepping/`, built and run.

`make test` looks at instructions evenly spaced from an offset that the seed gives; `make stepping` at every one. The
driver tells the story of a fault, and the command that repeats it.
"""

import platform
import re
import subprocess
from pathlib import Path

import pytest

from support.needs import missing, program

ROOT = Path(__file__).parents[2]
# As setup.py builds the extension, so that the instructions are nearly those of a client; lazy binding is not stepped.
FLAGS = [
    "-std=c11",
    "-O2",
    "-g",
    "-fPIC",
    "-fvisibility=hidden",
    "-include",
    "tests/crash/stale.h",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
]
INCLUDES = ["-Ishmq/core", "-Itests/c", "-Itests/crash/stepping"]
FIGURES = re.compile(r"(\d+) instructions, +(\d+) stepped, +(\d+) experiments, +(\d+) recovered, +(\d+) pairs")
SAMPLE, PAIRS = 90, 12  # instructions, and pairs of stopped children, of each scene in `make test`


@pytest.fixture(scope="session")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if platform.machine() != "x86_64":
        missing("the registers of x86-64")
    core = [path for path in sorted((ROOT / "shmq/core").glob("*.c")) if not path.name.startswith("py_")]
    harness = [*sorted((ROOT / "tests/crash/stepping").glob("*.c")), ROOT / "tests/c/support.c"]
    driver = tmp_path_factory.mktemp("stepping") / "stepping"
    command = [program("cc"), *FLAGS, *INCLUDES, *map(str, harness + core), "-Wl,-z,now", "-ldl", "-o", str(driver)]
    subprocess.run(command, cwd=ROOT, check=True)
    return driver


def run(driver: Path, *arguments: str) -> list[tuple[int, ...]]:
    """Run the driver, show what it says; return each scene's instructions, stepped, experiments, recovered, pairs."""
    scenes = []
    with subprocess.Popen([str(driver), *arguments], stdout=subprocess.PIPE, text=True) as stepping:
        assert stepping.stdout is not None
        for line in stepping.stdout:
            print(line, end="", flush=True)
            scenes += [tuple(map(int, found)) for found in FIGURES.findall(line)]
    assert stepping.returncode == 0, "the story is in the output above"
    return scenes


@pytest.mark.slow
def test_a_client_may_stop_or_die_at_any_instruction(stepping: Path) -> None:
    scenes = run(stepping, "--sample", str(SAMPLE), "--pairs", str(PAIRS))

    assert len(scenes) >= 80
    assert all(stepped >= min(instructions, SAMPLE // 2) for instructions, stepped, _, _, _ in scenes)
    assert all(experiments == recovered and pairs == PAIRS for _, _, experiments, recovered, pairs in scenes)


@pytest.mark.long
def test_a_client_may_stop_or_die_at_every_instruction(stepping: Path) -> None:
    scenes = run(stepping, "--pairs", "2000")

    assert len(scenes) >= 80
    assert all(stepped == instructions + 1 for instructions, stepped, _, _, _ in scenes)
    assert all(experiments == recovered and pairs == 2000 for _, _, experiments, recovered, pairs in scenes)
