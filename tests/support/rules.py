"""Whether every rule of docs/SEMANTICS.md is shown in all combinations of client and mode, and what may be skipped.

Owns: what stands in the document, what the tests of conformance say about themselves, the judgement. It is a plugin of
pytest: a run that skips too much fails, and what was collected is written to the file that SHMQ_RULES names.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

DOCUMENT: Final = Path(__file__).parents[2] / "docs/SEMANTICS.md"
OUTPUT: Final = "SHMQ_RULES"
CLIENTS: Final = ("blocking", "asyncio")
MODES: Final = ("direct", "socket")
COMBINATIONS: Final = tuple(f"{client}, {mode}" for client, mode in product(CLIENTS, MODES))
SKIPS_MAX: Final = 10  # in each combination
NEVER_SKIPPED: Final = ("ROUTE", "SETTLE", "PRIORITY", "TTL", "DEATH")

_skips: list["Skipped"] = []


class Collected(NamedTuple):
    """One test of conformance. `combination` "": it does not ask for client and mode."""

    name: str
    combination: str
    rules: Sequence[str]
    marked_to_skip: Sequence[str] = ()  # the reasons


class Skipped(NamedTuple):
    """One that did not run."""

    test: Collected
    reason: str


def rules_of(text: str) -> list[str]:
    """Return the ids of a document, in order. Raises AssertionError for one that stands there twice."""
    ids = re.findall(r"^- \*\*([A-Z]+-\d+)\*\*", text, re.MULTILINE)
    twice = [rule for rule, count in Counter(ids).items() if count > 1]
    assert not twice, f"twice in the document: {twice}"
    return ids


def complaints(rules: Iterable[str], tests: Iterable[Collected]) -> list[str]:
    """Say which rules lack a case in which combination, and which marks name no rule."""
    known, shown = list(rules), set()
    found = []
    for test in tests:
        found += [f"{test.name}: there is no rule {rule}" for rule in test.rules if rule not in known]
        if not test.marked_to_skip:
            shown |= {(rule, test.combination) for rule in test.rules}
    found += [f"{rule}: no case in {where}" for rule in known for where in COMBINATIONS if (rule, where) not in shown]
    return found


def complaints_of_skips(skips: Iterable[Skipped]) -> list[str]:
    """Say which skips are too many, have no reason, or are where none may be."""
    found, counts = [], Counter[str]()
    for test, reason in skips:
        counts[test.combination] += 1
        if not reason:
            found.append(f"{test.name}: skipped without a reason")
        found += [f"{test.name}: {rule} may not be skipped" for rule in test.rules if rule.startswith(NEVER_SKIPPED)]
    found += [f"{where}: {count} skips, at most {SKIPS_MAX}" for where, count in counts.items() if count > SKIPS_MAX]
    return found


def described(item: pytest.Item) -> Collected:
    """Return what a test says about itself."""
    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    combination = f"{params['client']}, {params['mode']}" if {"client", "mode"} <= params.keys() else ""
    rules = [str(rule) for mark in item.iter_markers("rule") for rule in mark.args]
    return Collected(item.name, combination, rules, list(_reasons(item)))


def _reasons(item: pytest.Item) -> Iterator[str]:
    for mark in (*item.iter_markers("skip"), *item.iter_markers("skipif"), *item.iter_markers("xfail")):
        yield str(mark.kwargs.get("reason", ""))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down what was collected, where that is wanted."""
    if OUTPUT in os.environ:
        Path(os.environ[OUTPUT]).write_text(json.dumps([described(item) for item in session.items]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what is skipped, and why."""
    report = yield
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
        _skips.append(Skipped(described(item), reason.removeprefix("Skipped").removeprefix(": ")))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped what may not be skipped, or too much."""
    found = complaints_of_skips(_skips)
    if found:
        print(*found, sep="\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
