"""Refusals that wait for a call to raise them: in order, each once, their number never silently less."""

import itertools
import threading

import pytest

from shmq.errors import NotFound, ShmqError, StaleDelivery
from shmq_clients.failures import FAILURES_MAX, LATE, OF_DELIVERIES, Failures


def of(count: int) -> tuple[Failures, list[ShmqError]]:
    failures, errors = Failures(), [NotFound(name=str(number)) for number in range(count)]
    for error in errors:
        failures.add(error)
    return failures, list(errors)


def test_each_is_taken_once_the_oldest_first_and_says_whose_it_is() -> None:
    failures, errors = of(3)

    assert failures.kept
    assert list(iter(failures.next, None)) == errors
    assert not failures.kept
    assert all(error.__notes__ == [LATE] for error in errors)


def test_of_more_than_are_kept_the_number_is_told_with_the_last() -> None:
    failures, errors = of(FAILURES_MAX + 7)

    taken = list(iter(failures.next, None))

    assert taken == errors[:FAILURES_MAX]
    assert any("7 more were refused after this" in note for note in taken[-1].__notes__)
    failures.add(again := NotFound())
    assert (failures.next(), again.__notes__) == (again, [LATE])


def test_what_nobody_was_told_is_told_next_and_an_error_of_the_call_itself_is_not() -> None:
    failures, _ = of(2)
    first = failures.next()
    assert first is not None

    failures.put_back(NotFound())
    failures.put_back(first)

    assert (failures.next(), first.__notes__) == (first, [LATE])


def test_at_the_end_one_is_raised_and_the_others_are_counted_but_those_of_deliveries() -> None:
    failures, errors = of(3)
    failures.add(StaleDelivery())

    with pytest.raises(NotFound) as raised:
        failures.raise_last()
    failures.raise_last()

    assert raised.value is errors[0]
    assert raised.value.__notes__ == [LATE, "2 more were refused after this"]


def test_what_is_forgiven_is_passed_over() -> None:
    failures, errors = Failures(), (StaleDelivery(), NotFound())
    failures.forgiven = OF_DELIVERIES
    for error in errors:
        failures.add(error)

    with pytest.raises(NotFound):
        failures.raise_oldest()
    failures.raise_oldest()


def test_threads_that_take_at_a_time_take_each_once() -> None:
    failures, errors = of(FAILURES_MAX)
    taken: list[list[ShmqError]] = [[] for _ in range(4)]

    def take(mine: list[ShmqError]) -> None:
        mine.extend(iter(failures.next, None))

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(id, itertools.chain(*taken))) == sorted(map(id, errors))
