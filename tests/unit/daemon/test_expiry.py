"""When a queue is looked at for what expired: when the first message does, and a large one not too often."""

import time
from typing import Any

import pytest

from shmq_daemon.expiry import REST, Expiry


class Core:
    def __init__(self) -> None:
        self.first = 0
        self.steps: list[int] = []  # slots to go on with
        self.looks: list[int] = []  # first slots looked from
        self.after = 0  # the first expiry, once looked

    def next_expiry_ns(self) -> int:
        return self.first

    def expire_from(self, _now_ns: int, first: int) -> tuple[int, int]:
        self.looks.append(first)
        behind = self.steps.pop(0) if self.steps else 0
        self.first = self.first if behind else self.after
        return 2, behind


class Quarantine:
    @staticmethod
    def run(watched: Any, work: Any, _otherwise: Any) -> Any:
        return work(watched)


@pytest.fixture
def watched() -> Any:
    queue = type("Queue", (), {"queue_id": 11})()
    return type("Watched", (), {"core": Core(), "queue": queue, "quarantined": False})()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that takes 100 ns for each look."""
    now = [0]

    def tick() -> int:
        now[0] += 100
        return now[0]

    monkeypatch.setattr(time, "monotonic_ns", tick)
    return now


@pytest.fixture
def due(watched: Any, clock: list[int]) -> Expiry:
    assert clock == [0]
    return Expiry({11: watched}, Quarantine())  # type: ignore[arg-type] # what it needs of one


def test_nothing_is_looked_at_before_it_is_due(due: Expiry, watched: Any) -> None:
    watched.core.first = 5000
    due.note(watched)

    assert due.tick(4999) == 0
    assert due.next_due() == 5000
    assert due.tick(5000) == 2
    assert watched.core.looks == [0]
    assert due.next_due() is None


def test_a_look_goes_on_in_steps(due: Expiry, watched: Any) -> None:
    watched.core.first, watched.core.steps = 10, [65_536, 131_072]
    due.note(watched)

    assert [due.tick(10) for _ in range(2)] == [2, 2]
    assert due.next_due() == 0
    assert due.tick(10) == 2
    assert watched.core.looks == [0, 65_536, 131_072]
    assert due.next_due() is None


def test_a_look_that_cost_is_rested_from(due: Expiry, watched: Any, clock: list[int]) -> None:
    watched.core.first, watched.core.after = 10, 20
    due.note(watched)
    due.tick(10)

    assert due.next_due() == clock[0] + REST * 100


def test_a_queue_that_is_set_apart_is_let_go(due: Expiry, watched: Any) -> None:
    watched.core.first, watched.core.steps = 10, [65_536]
    due.note(watched)
    due.tick(10)
    watched.quarantined = True

    assert due.tick(20) == 0
    assert due.next_due() is None


def test_a_queue_that_is_gone_is_let_go(due: Expiry, watched: Any) -> None:
    watched.core.first = 10
    due.note(watched)
    due.forget(11)

    assert due.next_due() is None
    assert due.tick(10) == 0
