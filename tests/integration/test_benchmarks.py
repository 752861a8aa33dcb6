"""The benchmarks as a person runs them, in their shortest form: shmq and the peers that need no server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import scaled

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


def side_by_side(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.side_by_side", "--quick", "--rounds", "1", "--seconds", "0.01"]
    return subprocess.run(
        [*command, "--output", str(output), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "plots"),
    [
        ("one_to_one", ["one_to_one"]),
        ("round_trip", ["round_trip_1", "round_trip_2"]),
        ("many", ["many"]),
        ("levels", ["levels"]),
    ],
)
def test_a_question_leaves_a_table_figures_and_plots(tmp_path: Path, question: str, plots: list[str]) -> None:
    run = side_by_side(tmp_path, question, "--only", "shmq,multiprocessing")

    assert run.returncode == 0, run.stderr
    assert "failed" not in run.stdout
    assert "| shmq " in run.stdout
    answers = json.loads((tmp_path / "results.json").read_text())["answers"]
    assert [cell for answer in answers for cell in answer["cells"] if "failed" in cell] == []
    assert (tmp_path / f"{plots[0]}.png").stat().st_size > 10_000
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == plots[: len(answers)]


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_that_is_asked_what_it_does_says_so_and_measures_nothing(script: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=scaled(20), check=False
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("usage: ")
