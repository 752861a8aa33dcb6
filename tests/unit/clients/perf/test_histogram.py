import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq_clients.perf.histogram import BUCKETS, Histogram, bucket_of, upper_bound

VALUES = st.integers(0, (1 << 63) - 1)


def recorded(*values: int) -> Histogram:
    histogram = Histogram()
    record = histogram.recorder()
    for value in values:
        record(value)
    return histogram


@given(VALUES)
def test_a_value_is_known_to_better_than_one_percent(value: int) -> None:
    bound = upper_bound(bucket_of(value))

    assert value <= bound <= value * 1.008


@given(VALUES)
def test_the_recorder_finds_the_bucket(value: int) -> None:
    assert recorded(value).counts[bucket_of(value)] == 1


def test_buckets_are_contiguous_and_bounds_grow() -> None:
    bounds = [upper_bound(bucket) for bucket in range(BUCKETS)]

    assert [bucket_of(bound) for bound in bounds] == list(range(BUCKETS))
    assert [bucket_of(bound + 1) for bound in bounds[:-1]] == list(range(1, BUCKETS))
    assert bounds[-1] == (1 << 63) - 1


@pytest.mark.parametrize("value", [-1, -300, -(1 << 40)])
def test_what_is_below_zero_counts_as_zero(value: int) -> None:
    assert recorded(value).counts[0] == 1
    assert bucket_of(value) == 0


@given(st.lists(VALUES, min_size=1), st.floats(0, 1))
def test_a_percentile_is_the_bound_of_the_value_of_that_rank(values: list[int], fraction: float) -> None:
    rank = max(math.ceil(fraction * len(values) - 1e-6), 1)

    assert recorded(*values).percentiles([fraction]) == [upper_bound(bucket_of(sorted(values)[rank - 1]))]


def test_percentiles_come_in_the_order_asked_for() -> None:
    histogram = recorded(*range(1, 101))

    assert histogram.percentiles([0.99, 0.5, 1.0, 0.0]) == [99, 50, 100, 1]


def test_without_values_all_figures_are_zero() -> None:
    empty = Histogram()

    assert (empty.total(), empty.lowest(), empty.mean(), empty.percentiles([0.5, 1.0])) == (0, 0, 0.0, [0, 0])


def test_lowest_and_mean() -> None:
    histogram = recorded(3, 5, 100)

    assert (histogram.lowest(), histogram.mean()) == (3, 36)


@given(st.lists(VALUES), st.lists(VALUES))
def test_merging_is_recording_all_in_one(first: list[int], second: list[int]) -> None:
    merged = Histogram.merged([recorded(*first).counts, recorded(*second).counts])

    assert merged.counts == recorded(*first, *second).counts


def test_the_difference_of_two_copies_is_what_came_between() -> None:
    histogram = recorded(1, 1_000_000)
    before = Histogram.merged([histogram.counts])
    histogram.recorder()(5)

    assert list(histogram.since(before).rows()) == [(5, 1)]


def test_counts_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="3 counts"):
        Histogram([0, 0, 0])
