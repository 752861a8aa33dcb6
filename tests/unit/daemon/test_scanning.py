"""Looking through a queue: in bounded steps, anew when asked for again, and not for what is gone."""

from types import SimpleNamespace
from typing import Any

import pytest

from shmq_daemon.scanning import ORPHANS_NS, SCANNED_MAX, Scans
from shmq_daemon.watched import Quarantine


@pytest.fixture
def watched() -> Any:
    core = SimpleNamespace(stats=lambda: {"slots_used_high": 2 * SCANNED_MAX + 1})
    return SimpleNamespace(core=core, queue=SimpleNamespace(queue_id=11), quarantined=False)


@pytest.fixture
def looks() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def scans(watched: Any, looks: list[tuple[int, int]]) -> Scans:
    quarantine = Quarantine(lambda _watched, _error: None)
    return Scans({11: watched}, quarantine, lambda _watched, first, slots: looks.append((first, slots)))


def run(scans: Scans, now_ns: int = 0) -> None:
    while (due_ns := scans.next_due()) is not None and due_ns <= now_ns:
        scans.tick(now_ns)


def test_a_queue_is_looked_through_once_in_steps(scans: Scans, watched: Any, looks: list[tuple[int, int]]) -> None:
    scans.begin(watched)
    scans.tick(0)
    assert looks == [(0, SCANNED_MAX)]
    run(scans)

    assert looks == [(first, SCANNED_MAX) for first in (0, SCANNED_MAX, 2 * SCANNED_MAX)]
    assert scans.next_due() is None


def test_who_asks_again_has_it_looked_through_from_the_start(
    scans: Scans, watched: Any, looks: list[tuple[int, int]]
) -> None:
    scans.begin(watched)
    scans.tick(0)
    scans.begin(watched)
    run(scans)

    assert [first for first, _ in looks] == [0, 0, SCANNED_MAX, 2 * SCANNED_MAX]


def test_what_is_asked_for_during_a_step_is_not_forgotten(watched: Any) -> None:
    looks: list[int] = []

    def take(at: Any, first: int, _slots: int) -> None:
        looks.append(first)
        if looks == [0]:
            asked.begin(at)

    asked = Scans({11: watched}, Quarantine(lambda _watched, _error: None), take)
    asked.begin(watched)
    run(asked)

    assert looks == [0, 0, SCANNED_MAX, 2 * SCANNED_MAX]


def test_those_who_die_together_cost_one_scan(scans: Scans, watched: Any, looks: list[tuple[int, int]]) -> None:
    for now_ns in (5, 6, 7):
        scans.begin_after_death(watched, now_ns)

    assert scans.next_due() == 5 + ORPHANS_NS
    scans.tick(4 + ORPHANS_NS)
    assert looks == []
    run(scans, 5 + ORPHANS_NS)
    assert len(looks) == 3
    assert scans.next_due() is None


def test_a_queue_that_is_gone_or_set_apart_is_let_go(scans: Scans, watched: Any, looks: list[tuple[int, int]]) -> None:
    scans.begin(watched)
    scans.begin_after_death(watched, 0)
    scans.forget(11)
    assert scans.next_due() is None

    watched.quarantined = True
    scans.begin(watched)
    scans.tick(0)
    assert scans.next_due() is None
    assert looks == []
