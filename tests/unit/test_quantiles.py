"""shmq.quantiles. Invariant: at least the share asked for is at or below a quantile, and less is below the bucket
before it.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.quantiles import quantiles

BOUNDS = [10, 20, 40, 80]


@pytest.mark.parametrize(
    ("counts", "median", "p99"),
    [
        ([100, 0, 0, 0], 10, 10),
        ([99, 0, 0, 1], 10, 10),
        ([98, 0, 0, 2], 10, 80),
        ([0, 1, 0, 0], 20, 20),
        ([1, 1, 0, 0], 10, 20),
        ([0, 0, 0, 0], 0, 0),
    ],
)
def test_a_quantile_is_the_bound_of_the_bucket_of_its_rank(counts: list[int], median: int, p99: int) -> None:
    assert quantiles(counts, BOUNDS, (50, 99)) == (median, p99)


def test_no_buckets_have_no_quantiles() -> None:
    assert quantiles([], [], (50,)) == (0,)


@given(st.lists(st.integers(0, 2**64), min_size=4, max_size=4), st.integers(1, 100))
def test_the_share_is_reached_and_not_before(counts: list[int], percent: int) -> None:
    total = sum(counts)
    (found,) = quantiles(counts, BOUNDS, (percent,))
    at_or_below = sum(count for count, bound in zip(counts, BOUNDS, strict=True) if bound <= found)
    before = sum(count for count, bound in zip(counts, BOUNDS, strict=True) if bound < found)

    assert total == 0 or (at_or_below * 100 >= total * percent > before * 100)
