"""Waiting in tests: never a bare sleep, always a deadline, all deadlines scaled by one variable.

SHMQ_TEST_SCALE=5 gives a slow host five times as long. Figures that a test asserts are not scaled, only its patience.
"""

import os
import time
from collections.abc import Callable

SCALE = float(os.environ.get("SHMQ_TEST_SCALE", "1"))


def scaled(seconds: float) -> float:
    """Return `seconds` as long as this host needs them to be."""
    return seconds * SCALE


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> float:
    """Wait until `condition` holds and return how long it took; fail with `what` after `seconds` (scaled)."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > scaled(seconds):
            raise AssertionError(f"not within {scaled(seconds):g} s: {what}")
        time.sleep(0.001)  # to the next look
    return time.monotonic() - start
