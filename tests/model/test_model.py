"""All interleavings of a few processes on small models of the ring, of growth, and of bells; and the models broken.

The models are in C, without the core: `explore.h` says what is looked at, each model what its steps are.
"""

import subprocess
from pathlib import Path

import pytest

from support.core_build import ROOT, CoreBuild

SOURCES = sorted((ROOT / "tests/model").glob("*.c"))
SUBJECTS = ("ring", "growth", "bell")
BROKEN = (
    "ring GENERATION_KEPT",
    "ring DELIVERY_WITHOUT_SWAP",
    "ring READY_RELAXED",
    "ring FULL_FROM_HINTS",
    "ring TAIL_NOT_HELPED",
    "ring HALF_DONE_TAKE_UNSEEN",
    "ring HEAD_MOVED_BLINDLY",
    "ring FREE_RELAXED",
    "ring CLEARED_BEFORE_TAIL",
    "growth BACK_RELAXED",
    "growth FRONT_WITHOUT_SEAL",
    "growth EMPTY_WITHOUT_BACK",
    "growth BACK_LOADED_FIRST",
    "bell SLEEP_WITHOUT_LOOK",
    "bell REGISTER_WITHOUT_FENCE",
    "bell RING_WITHOUT_FENCE",
    "bell TOKEN_AFTER_COUNT",
    "bell LEAVES_WITH_TOKEN",
    "bell PASSES_NOTHING_ON",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CoreBuild(tmp_path_factory.mktemp("model"), ("-O2",)).link("model", SOURCES)


def run(model: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([str(model), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_interleaving_does_harm(model: Path, subject: str) -> None:
    assert run(model, subject)[0] == 0


@pytest.mark.long
@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_interleaving_of_more_operations_does_harm(model: Path, subject: str) -> None:
    assert run(model, subject, "--more")[0] == 0


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_model_is_caught(model: Path, broken: str) -> None:
    code, said = run(model, *broken.split())

    assert code == 1
    assert "FAULT" in said


def test_all_broken_models_are_tried(model: Path) -> None:
    assert run(model, "--list")[1].splitlines() == list(BROKEN)
