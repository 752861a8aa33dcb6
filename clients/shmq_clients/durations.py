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


def _checked(seconds: object, argument: str) -> float:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= TIME_NS_MAX // SECOND_NS:  # type: ignore[operator] # checked just before
        raise InvalidArgument(argument=argument, value=seconds, allowed="a number of seconds, 0 or more")
    return seconds  # type: ignore[return-value] # as above
