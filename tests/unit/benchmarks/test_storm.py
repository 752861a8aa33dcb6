"""benchmarks.storm: what holds on any host and what a slow one may miss are told apart, and each is noticed."""

from typing import Any

import pytest

from benchmarks.storm import JOBS, Done, Plan, Turn, of_jobs, said, too_slow, wrong

CONSUMED = Plan(workers=2, deliveries=100, jobs=10, turns=1, seconds=1.0, body=64, deaf=False)
DEAF = CONSUMED._replace(deaf=True)
CALM = Turn(False, 0.0, 1.0, 0.0, 1000, 128, 25, 5, 5000, "", set())
STORM = Turn(True, 1.0, 2.0, 100.0, 1000, 128, 25, 5, 5000, "", set())
STOPPED = STORM._replace(blocked="too much", stopped={"one", "two"})


def figures(*turns: Turn, done: list[int] | None = None, left: int = 0, took: float = 0.001, **changes: Any) -> Any:
    """Of a calm turn and what follows, with ten jobs in each."""
    turns = (CALM, *turns)
    jobs = [Done(i, turn.begin + i % 10 / 10, took) for turn in turns for i in range(10)]
    numbers = list(range(10)) if done is None else done
    of_processes = {"heartbeats": 5, "refused": 0, "failed": 0}
    return said(list(turns), jobs) | of_jobs(10, numbers, left=left) | of_processes | changes


def test_what_is_as_it_should_be_is_neither() -> None:
    for plan, turn in ((CONSUMED, STORM), (DEAF, STOPPED)):
        assert [*wrong(plan, figures(turn)), *too_slow(plan, figures(turn))] == []


@pytest.mark.parametrize(
    ("done", "left"),
    [([0, 1, 2, 3, 4, 5, 6, 7, 9], 0), ([0, 1, 2, 3, 4, 5, 6, 7, 9, 9], 0), ([*range(10), 3], 0), ([*range(10)], 1)],
    ids=["lost", "lost, and another one done again", "done again", "not settled"],
)
@pytest.mark.parametrize(("plan", "turn"), [(CONSUMED, STORM), (DEAF, STOPPED)], ids=["consumed", "deaf"])
def test_a_job_that_is_not_done_once_is_wrong(plan: Plan, turn: Turn, done: list[int], left: int) -> None:
    assert list(wrong(plan, figures(turn, done=done, left=left))) == ["each job that was handed in is done, and once"]


@pytest.mark.parametrize(
    "turn",
    [
        STORM._replace(blocked="too much"),
        STOPPED._replace(stopped={"one"}),
        STOPPED._replace(stopped={"one", JOBS}),
        STOPPED._replace(stopped={"one", "two", JOBS}),
        STOPPED._replace(blocked=""),
    ],
    ids=["none", "not all", "jobs instead of one", "jobs too", "not told"],
)
def test_the_storm_is_stopped_that_nobody_consumes_and_it_alone(turn: Turn) -> None:
    assert len(list(wrong(DEAF, figures(turn)))) == 1


@pytest.mark.parametrize("changes", [{"failed": 1}, {"refused": 1}, {"blocked": "too much"}, {"stopped": ["one"]}])
def test_with_consumers_nothing_is_in_the_way(changes: dict[str, Any]) -> None:
    assert len(list(wrong(CONSUMED, figures(STORM, **changes)))) == 1


@pytest.mark.parametrize(
    "changes",
    [{"used": 26}, {"shm_bytes": 1101}, {"shm_bytes": 2201, "places": 256}, {"rss_bytes": 5501}],
    ids=["places", "queues", "queues with more places", "daemon"],
)
def test_more_memory_than_what_waits_needs_is_wrong(changes: dict[str, Any]) -> None:
    assert len(list(wrong(CONSUMED, figures(STORM, STORM._replace(**changes))))) == 1


def test_a_host_that_holds_up_workers_has_longer_queues() -> None:
    later = STORM._replace(shm_bytes=2000, places=256, used=100, waiting=90)

    assert list(wrong(CONSUMED, figures(STORM, later))) == []
    assert list(too_slow(CONSUMED, figures(STORM, later))) == ["memory stays as it is, because nothing waits"]


@pytest.mark.parametrize(
    ("plan", "turn", "changes"),
    [
        (CONSUMED, STORM, {"ratio": 2.1}),
        (CONSUMED, STORM._replace(deliveries=94.0), {}),
        (DEAF, STOPPED, {"took": 0.3}),
    ],
    ids=["ratio", "deliveries", "deaf"],
)
def test_times_are_of_the_host(plan: Plan, turn: Turn, changes: dict[str, Any]) -> None:
    missed = figures(turn, **changes)

    assert list(wrong(plan, missed)) == []
    assert len(list(too_slow(plan, missed))) == 1
