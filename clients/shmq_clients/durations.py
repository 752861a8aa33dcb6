"""Times as callers say them (seconds) in the units that others want; each checked once, here.

Owns: conversion, bounds. Does not own: clocks and deadlines. Anything that is not a finite number of seconds from 0 up
is refused, except infinity where a wait may have no end.
"""

import math
from typing import Final

from shmq.errors import InvalidArgument
from shmq.limits import TIME_NS_MAX

SECOND_NS: Final = 1_000_000_000
SECOND_MS: Final = 1_000
ROUNDED_FROM: Final = 100  # shown without a fraction
UNITS: Final = (
    (3_600 * SECOND_NS, "h"),
    (60 * SECOND_NS, "min"),
    (SECOND_NS, "s"),
    (10**6, "ms"),
    (10**3, "us"),
    (1, "ns"),
)


def nanoseconds(seconds: float, argument: str) -> int:
    """Return whole nanoseconds. Raises InvalidArgument."""
    return int(_checked(seconds, argument) * SECOND_NS)


def milliseconds(seconds: float | None, argument: str) -> int | None:
    """Return whole milliseconds, rounded up so that nothing ends early; None stays None. Raises InvalidArgument."""
    return None if seconds is None else math.ceil(_checked(seconds, argument) * SECOND_MS)


def wait_nanoseconds(seconds: float | None, argument: str) -> int:
    """Return how long a call may wait; None and infinity are the longest there is. Raises InvalidArgument."""
    if seconds is None or seconds == math.inf:
        return TIME_NS_MAX
    return nanoseconds(seconds, argument)


def shown(nanoseconds: int) -> str:
    """Return a time for people, with three digits at most: `85 ns`, `1.2 us`, `340 ms`, `2.5 s`, `1.3 h`."""
    value, unit = next(((nanoseconds / size, unit) for size, unit in UNITS if nanoseconds >= size), (0.0, "s"))
    return f"{value:.3g} {unit}" if value < ROUNDED_FROM else f"{value:.0f} {unit}"


def _checked(seconds: object, argument: str) -> float:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= TIME_NS_MAX // SECOND_NS:  # type: ignore[operator] # checked just before
        raise InvalidArgument(argument=argument, value=seconds, allowed="a number of seconds, 0 or more")
    return seconds  # type: ignore[return-value] # as above
