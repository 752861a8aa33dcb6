"""Quantiles of a histogram of times: a pure function of counts and the upper bounds of their buckets.

Owns: the rule. Does not own: who counted what (the core, `Queue.histogram`), how it is shown.
A quantile is the upper bound of the bucket in which its rank lies, so it is never too low, and too high by less than
the width of a bucket (an eighth of a power of two).
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


def quantiles(counts: Sequence[int], bounds: Sequence[int], percents: Sequence[int]) -> tuple[int, ...]:
    """For each percent (1 to 100) the bound below or at which so many of all are; zeros when nothing was counted."""
    reached = list(accumulate(counts))
    total = reached[-1] if reached else 0
    if total == 0:
        return (0,) * len(percents)
    return tuple(bounds[bisect_left(reached, -(-total * percent // 100))] for percent in percents)
