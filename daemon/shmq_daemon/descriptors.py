"""File descriptors in groups: copied and closed together, so that a failure in the midst of it leaves none open.

Owns: that, and nothing else. Does not own: what they are.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator


def copies(*descriptors: int) -> tuple[int, ...]:
    """Return a copy of each. Raises OSError; then there is none."""
    made: list[int] = []
    with closed_on_failure(made):
        for fd in descriptors:
            made.append(os.dup(fd))  # noqa: PERF401 - one that fails must leave the ones before it known
    return tuple(made)


def close_all(descriptors: Iterable[int]) -> None:
    """Close each."""
    for fd in descriptors:
        os.close(fd)


@contextlib.contextmanager
def closed_on_failure(descriptors: list[int]) -> Iterator[None]:
    """Close what is in the list when what is done meanwhile raises."""
    try:
        yield
    except BaseException:
        close_all(descriptors)
        raise
