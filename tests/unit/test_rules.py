"""Each rule of docs/SEMANTICS.md has a case in every combination of client and mode, and hardly any is skipped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import scaled
from support.rules import (
    COMBINATIONS,
    DOCUMENT,
    OUTPUT,
    Collected,
    Skipped,
    complaints,
    complaints_of_skips,
    rules_of,
)

ROOT = Path(__file__).parents[2]


SKIPPING = """
import pytest

@pytest.mark.rule("TTL-1")
@pytest.mark.parametrize("client", ["asyncio"])
@pytest.mark.parametrize("mode", ["direct"])
def test_it(client, mode):
    pytest.skip("no time")
"""


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "pytest", "-q", "-p", "support.rules", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "tests"} | environment,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> list[Collected]:
    """What pytest finds in tests/conformance, and what that says about itself."""
    output = tmp_path_factory.mktemp("rules") / "collected.json"
    run = run_pytest("--collect-only", "tests/conformance", **{OUTPUT: str(output)})
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    return [Collected(*fields) for fields in json.loads(output.read_text())]


def test_every_rule_has_a_case_in_every_combination(collected: list[Collected]) -> None:
    found = complaints(rules_of(DOCUMENT.read_text()), collected)

    assert not found, "\n".join(found)


def test_skips_that_are_marked_are_few_and_have_reasons(collected: list[Collected]) -> None:
    skips = [Skipped(test, reason) for test in collected for reason in test.marked_to_skip]
    found = complaints_of_skips(skips)

    assert not found, "\n".join(found)


def everywhere(rule: str) -> list[Collected]:
    return [Collected("test_it", combination, [rule]) for combination in COMBINATIONS]


def test_a_rule_without_a_case_in_one_combination_is_told() -> None:
    tests = everywhere("A-1") + everywhere("A-2")[1:]

    assert complaints(["A-1", "A-2"], tests) == [f"A-2: no case in {COMBINATIONS[0]}"]


def test_a_case_that_is_skipped_shows_nothing() -> None:
    tests = [test._replace(marked_to_skip=["later"]) for test in everywhere("A-1")]

    assert len(complaints(["A-1"], tests)) == len(COMBINATIONS)


def test_a_mark_that_names_no_rule_is_told() -> None:
    assert "there is no rule A-2" in complaints(["A-1"], [*everywhere("A-1"), Collected("test_it", "", ["A-2"])])[0]


@pytest.mark.parametrize(
    ("rules", "reason", "count", "complaint"),
    [
        (["NAME-1"], "", 1, "without a reason"),
        (["DEATH-1"], "no time", 1, "DEATH-1 may not be skipped"),
        (["NAME-1"], "no time", 11, "11 skips"),
        (["NAME-1"], "no time", 10, ""),
    ],
)
def test_skips_that_may_not_be_are_told(rules: list[str], reason: str, count: int, complaint: str) -> None:
    skips = [Skipped(Collected("test_it", COMBINATIONS[0], rules), reason)] * count

    assert complaint in "".join(complaints_of_skips(skips))
    assert bool(complaint) == bool(complaints_of_skips(skips))


def test_an_id_that_stands_twice_is_told() -> None:
    assert rules_of("- **A-1** one\n- text\n- **A-2** two\n") == ["A-1", "A-2"]
    with pytest.raises(AssertionError, match="A-1"):
        rules_of("- **A-1** one\n- **A-1** again\n")


def test_a_run_that_skips_what_may_not_be_fails(tmp_path: Path) -> None:
    test = tmp_path / "test_skipping.py"
    test.write_text(SKIPPING)
    run = run_pytest("-c", "pyproject.toml", "--rootdir", str(tmp_path), str(test))

    assert run.returncode == 1, run.stdout + run.stderr
    assert "TTL-1 may not be skipped" in run.stdout
    assert "1 skipped" in run.stdout
