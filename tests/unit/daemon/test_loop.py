"""Timers run in order and can be taken back; descriptors call back until they are removed."""

import os
from collections.abc import Iterator

import pytest

from shmq_daemon.loop import READ, Loop, Timers


def timers(now_ns: int = 0) -> Timers:
    return Timers(lambda: now_ns)


def test_what_is_due_runs_in_order_and_the_next_deadline_is_told() -> None:
    found: list[int] = []
    clock = timers()
    for due in (30, 10, 20):
        clock.at(due, lambda _now, due=due: found.append(due))  # type: ignore[misc] # mypy infers no lambda that has a default

    assert clock.tick(20) == 30
    assert found == [10, 20]


def test_after_counts_from_now() -> None:
    clock = timers(100)
    clock.after(5, lambda _now: None)

    assert clock.tick(104) == 105


def test_a_cancelled_timer_does_nothing() -> None:
    found: list[int] = []
    clock = timers()
    clock.at(10, found.append).cancel()

    assert clock.tick(20) is None
    assert found == []


def test_cancelled_timers_do_not_pile_up() -> None:
    clock = timers()
    for _ in range(10_000):
        clock.at(10**12, lambda _now: None).cancel()

    assert len(clock) < 200


def test_a_timer_cancelled_after_it_ran_counts_for_nothing() -> None:
    clock = timers()
    timer = clock.at(1, lambda _now: None)
    clock.tick(2)
    timer.cancel()

    assert len(clock) == 0


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_a_readable_descriptor_calls_back_until_it_is_removed(loop: Loop) -> None:
    found: list[int] = []
    fd = os.eventfd(1)
    loop.add(fd, found.append)
    loop.poll(0)
    loop.remove(fd)
    loop.poll(0)
    os.close(fd)

    assert found == [READ]


def test_removing_what_is_not_there_is_fine(loop: Loop) -> None:
    loop.remove(4711)


def test_an_event_is_not_for_who_got_the_descriptor_within_its_batch(loop: Loop) -> None:
    first, second = os.pipe(), os.pipe()
    called: list[str] = []
    spare = os.pipe()

    def take_its_place(mine: int, other: int) -> None:
        called.append("old")
        loop.remove(mine)
        loop.remove(other)
        os.dup2(spare[0], other)
        loop.add(other, lambda _events: called.append("new"))

    for mine, other in ((first, second), (second, first)):
        os.write(mine[1], b"x")
        loop.add(mine[0], lambda _events, fds=(mine[0], other[0]): take_its_place(*fds))  # type: ignore[misc] # mypy infers no lambda that has a default
    loop.poll(10**9)

    assert called == ["old"]
    os.write(spare[1], b"x")
    loop.poll(10**9)
    assert called == ["old", "new"]
    for fd in (*first, *second, *spare):
        os.close(fd)
