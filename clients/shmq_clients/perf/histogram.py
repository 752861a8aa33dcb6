"""A log-linear histogram of nanoseconds: 128 steps for each power of two, so a value is known to better than 1 %.

Owns: buckets, merging, percentiles. Does not own: where the counts live; they may be shared with another process.
Invariants: counts only grow, so the difference of two copies is the histogram of the time between them. The layout is
that of HdrHistogram (2 significant digits): exact up to 255 ns, then buckets of 2, 4, 8... ns.
"""

from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from typing import Final, Self

STEP_BITS: Final = 7
EXACT_BITS: Final = STEP_BITS + 1  # values of so many bits have a bucket each
VALUE_BITS: Final = 63
BUCKETS: Final = ((VALUE_BITS - EXACT_BITS) << STEP_BITS) + (1 << EXACT_BITS)


def bucket_of(value: int) -> int:
    """Return the bucket of a value; what is below 0 counts as 0."""
    if value <= 0:
        return 0
    shift = value.bit_length() - EXACT_BITS
    return (shift << STEP_BITS) + (value >> shift) if shift > 0 else value


def upper_bound(bucket: int) -> int:
    """Return the largest value of a bucket."""
    shift = max((bucket >> STEP_BITS) - 1, 0)
    return (((bucket - (shift << STEP_BITS)) + 1) << shift) - 1


class Histogram:
    """Counts by bucket; `counts` may be any sequence of BUCKETS numbers."""

    __slots__ = ("counts",)

    def __init__(self, counts: MutableSequence[int] | memoryview | None = None) -> None:
        self.counts = [0] * BUCKETS if counts is None else counts
        if len(self.counts) != BUCKETS:
            raise ValueError(f"{len(self.counts)} counts, a histogram has {BUCKETS}")

    @classmethod
    def merged(cls, parts: Iterable[Sequence[int] | memoryview]) -> Self:
        """Return the sum of several histograms' counts."""
        return cls([sum(counts) for counts in zip([0] * BUCKETS, *parts, strict=True)])

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return what was recorded after the copy `earlier` was made."""
        return Histogram([now - then for now, then in zip(self.counts, earlier.counts, strict=True)])

    def recorder(self) -> Callable[[int], None]:
        """Return a function that records a value: `counts[bucket_of(value)] += 1`, fit for the middle of a hot loop."""
        counts = self.counts

        def record(value: int) -> None:
            shift = value.bit_length() - EXACT_BITS
            if shift > 0:
                counts[(shift << STEP_BITS) + (value >> shift) if value > 0 else 0] += 1
            else:
                counts[max(value, 0)] += 1

        return record

    def total(self) -> int:
        """Return how many values were recorded."""
        return sum(self.counts)

    def percentiles(self, fractions: Sequence[float]) -> list[int]:
        """Return for each fraction the smallest bound that so much of all values does not exceed; 0 without values."""
        total = self.total()
        ranks = sorted((max(min(int(fraction * total + 0.999_999), total), 1), fraction) for fraction in fractions)
        found: dict[float, int] = {}
        seen = 0
        for bound, count in self.rows():
            seen += count
            while ranks and ranks[0][0] <= seen:
                found[ranks.pop(0)[1]] = bound
        return [found.get(fraction, 0) for fraction in fractions]

    def lowest(self) -> int:
        """Return the bound of the lowest bucket with a value, 0 without values."""
        return next((bound for bound, _ in self.rows()), 0)

    def mean(self) -> float:
        """Return the mean of the values, as exact as the buckets are; 0 without values."""
        total = self.total()
        return sum(bound * count for bound, count in self.rows()) / total if total else 0.0

    def rows(self) -> Iterator[tuple[int, int]]:
        """Yield the bound and the count of each bucket that is not empty."""
        return ((upper_bound(bucket), count) for bucket, count in enumerate(self.counts) if count)
