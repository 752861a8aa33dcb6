"""What a case saw at one broker, in a form that can be compared and read, and what stands in docs/DIFFERENCES.md.

Owns: the registry of cases, what is left out of a comparison, the comparison. Does not own: brokers, cases.
Invariants: an observation is compared whole unless NEWER names what is left out; a difference is either listed, with
both values, or a failure; so is one that is listed and is no more.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from reference.driver import Broker, Refused

DIFFERENCES: Final = Path(__file__).parents[2] / "docs/DIFFERENCES.md"

# Headers that RabbitMQ 4.3 writes by its documentation ("Dead Letter Exchanges", "Quorum Queues") and 3.10 does not.
NEWER: Final = frozenset({
    "x-last-death-queue",
    "x-last-death-reason",
    "x-last-death-exchange",
    "x-delivery-count",
})  # fmt: skip
RECENT: Final = timedelta(minutes=5)


class Saw:
    """The observations of one case at one broker, by their labels."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def __call__(self, label: str, value: object) -> None:
        """Write down what was seen."""
        assert label not in self.values, f"two observations are called {label!r}"
        self.values[label] = repr(_comparable(value))

    def answer(self, label: str, call: Callable[..., object], *arguments: Any, **keywords: Any) -> None:
        """Write down what the broker answered: a reply code, or that it was done."""
        try:
            call(*arguments, **keywords)
        except Refused as refusal:
            self(label, refusal.code)
        else:
            self(label, "done")


Case = Callable[[Broker, Saw], None]

CASES: Final[dict[str, Case]] = {}


def case(function: Case) -> Case:
    """Register a case by the name of its function."""
    assert function.__name__ not in CASES, function.__name__
    CASES[function.__name__] = function
    return function


class Pair(NamedTuple):
    """What the two brokers answered, as it is written."""

    rabbitmq: str
    shmq: str


def differences(rabbitmq: Mapping[str, str], shmq: Mapping[str, str]) -> dict[str, Pair]:
    """Return where two records of one case are not the same."""
    nothing = "not observed"
    labels = [*rabbitmq, *(label for label in shmq if label not in rabbitmq)]
    pairs = {label: Pair(rabbitmq.get(label, nothing), shmq.get(label, nothing)) for label in labels}
    return {label: pair for label, pair in pairs.items() if pair.rabbitmq != pair.shmq}


def listed(text: str) -> dict[str, dict[str, Pair]]:
    """Return the differences that a document lists, by case and label: rows of four cells in backquotes."""
    found: dict[str, dict[str, Pair]] = {}
    for name, label, *pair in re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", text, re.MULTILINE):
        assert label not in found.get(name, {}), f"{name}, {label!r} is listed twice"
        found.setdefault(name, {})[label] = Pair(*pair)
    return found


def as_rows(name: str, found: Mapping[str, Pair]) -> str:
    """Return differences as the document lists them."""
    return "\n".join(f"| `{name}` | `{label}` | `{pair.rabbitmq}` | `{pair.shmq}` |" for label, pair in found.items())


def judge(name: str, found: Mapping[str, Pair], here: Mapping[str, Pair]) -> str:
    """Return what is wrong with the differences of a case, given those that are listed; "" if nothing is."""
    unlisted = {label: pair for label, pair in found.items() if here.get(label) != pair}
    ended = {label: pair for label, pair in here.items() if found.get(label) != pair}
    complaints = {"not listed in": unlisted, "no more, but listed in": ended}
    return "\n".join(f"{what} {DIFFERENCES.name}:\n{as_rows(name, rows)}" for what, rows in complaints.items() if rows)


def _comparable(value: object) -> object:
    """Leave out what is newer, and when exactly something happened."""
    if isinstance(value, Mapping):
        return {name: _comparable(value[name]) for name in sorted(value) if name not in NEWER}
    if isinstance(value, list | tuple):
        return [_comparable(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)  # of pika's own kinds too
    if isinstance(value, datetime):
        age = datetime.now(UTC) - (value if value.tzinfo else value.replace(tzinfo=UTC))
        return "recent" if abs(age) < RECENT else value.isoformat()
    return value
