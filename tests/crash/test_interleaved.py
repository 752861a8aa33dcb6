"""The core itself in every order of a few operations with at most so many preemptions: `interleaved/`, built and run.

A fault is told with the order that led to it, and the command that repeats it.
"""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from support.core_build import CORE, ROOT, SUPPORT, CoreBuild

SOURCES: Final = tuple(sorted((ROOT / "tests/crash/interleaved").glob("*.c")))
FLAGS: Final = ("-O2", "-fPIC", "-include", "tests/crash/stale.h", "-include", "tests/crash/interleaved/seam.h")
FIGURES: Final = re.compile(r" (\d+) orders, up to +(\d+) points")
SCENES_LEAST: Final = 55


@pytest.fixture(scope="module")
def interleaved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CoreBuild(tmp_path_factory.mktemp("interleaved"), FLAGS).link("interleaved", [*CORE, SUPPORT, *SOURCES])


def orders(driver: Path, *arguments: str) -> list[int]:
    """Run the driver, show what it says, and return the number of orders of each scene."""
    done = subprocess.run([str(driver), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, "the story is in the output above"
    return [int(found[1]) for found in FIGURES.finditer(done.stdout)]


@pytest.mark.slow
def test_no_order_with_one_preemption_does_harm(interleaved: Path) -> None:
    scenes = orders(interleaved, "--preemptions", "1")

    assert len(scenes) >= SCENES_LEAST
    assert all(tried > 50 for tried in scenes)


@pytest.mark.slow
def test_no_random_order_does_harm(interleaved: Path) -> None:
    assert len(orders(interleaved, "--preemptions", "3", "--sample", "10000")) >= SCENES_LEAST


@pytest.mark.long
def test_no_order_with_two_preemptions_does_harm(interleaved: Path) -> None:
    assert len(orders(interleaved, "--preemptions", "2")) >= SCENES_LEAST


@pytest.mark.long
@pytest.mark.parametrize("preemptions", [3, 5])
def test_none_of_millions_of_random_orders_does_harm(interleaved: Path, preemptions: int) -> None:
    assert len(orders(interleaved, "--preemptions", str(preemptions), "--sample", "3000000")) >= SCENES_LEAST


@pytest.mark.slow
def test_a_taker_beside_a_turn_of_the_returned_ring_takes_the_oldest(interleaved: Path) -> None:
    scene = "returned, from the middle"

    assert orders(interleaved, "--preemptions", "3", "--sample", "20000", "--seed", "2", "--only", scene) == [20000]
