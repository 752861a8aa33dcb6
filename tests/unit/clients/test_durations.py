"""shmq_clients.durations: seconds in, nanoseconds on, and times as people read them."""

import math

import pytest

from shmq.errors import InvalidArgument
from shmq.limits import TIME_NS_MAX
from shmq_clients.durations import milliseconds, nanoseconds, shown, wait_nanoseconds


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "0 s"),
        (85, "85 ns"),
        (1_023, "1.02 us"),
        (340_000_000, "340 ms"),
        (999_999_999, "1000 ms"),
        (2_500_000_000, "2.5 s"),
        (4_398_046_511_103, "1.22 h"),
        (90_000_000_000_000_000, "25000 h"),
    ],
)
def test_a_time_is_shown_in_the_largest_unit_that_fits(time_ns: int, text: str) -> None:
    assert shown(time_ns) == text


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "1", None, True])
def test_what_is_no_number_of_seconds_is_refused_by_name(seconds: object) -> None:
    with pytest.raises(InvalidArgument, match=r"timeout = .*a number of seconds"):
        nanoseconds(seconds, "timeout")  # type: ignore[arg-type] # that is what is tested


def test_a_wait_without_end_is_the_longest_there_is() -> None:
    assert wait_nanoseconds(None, "timeout") == wait_nanoseconds(math.inf, "timeout") == TIME_NS_MAX
    assert wait_nanoseconds(0.5, "timeout") == 500_000_000


def test_milliseconds_are_rounded_up_so_that_nothing_ends_early() -> None:
    assert milliseconds(0.0001, "expires") == 1
    assert milliseconds(None, "expires") is None
