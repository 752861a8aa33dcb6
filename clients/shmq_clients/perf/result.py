"""What a run amounts to, and a second of it: counts, rates, latencies.

Owns: the arithmetic and the form of the JSON. Does not own: how it is shown to people (report.py).
"""

from typing import Any, Final

import msgspec

from shmq._version import __version__
from shmq_clients.perf.histogram import Histogram
from shmq_clients.perf.plan import Plan

PERCENTILES: Final = {"p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99, "p99_9": 0.999, "p99_99": 0.9999, "max": 1.0}


class Interval(msgspec.Struct, frozen=True):
    """Between two looks. Rates are messages per second; times seconds, from the start of the run."""

    time: float
    published_per_s: float
    consumed_per_s: float
    latency_us: dict[str, float]


class Result(msgspec.Struct, frozen=True):
    """A whole run. `seconds`: from the first message due to the last one consumed."""

    version: str
    settings: Plan
    seconds: float
    published: int
    consumed: int
    published_per_s: float
    consumed_per_s: float
    consumed_mib_per_s: float
    latency_us: dict[str, float]
    histogram_ns: list[tuple[int, int]]  # upper bound of a bucket, count
    intervals: list[Interval]

    def facts(self) -> Any:  # noqa: ANN401 - what JSON can hold
        """Return it as plain data."""
        return msgspec.to_builtins(self)


class Moment(msgspec.Struct, frozen=True):
    """All tallies, summed, at one time."""

    time_ns: int
    published: int
    consumed: int
    latencies: Histogram


def interval(plan: Plan, start_ns: int, before: Moment, now: Moment) -> Interval:
    """Return what happened between two moments."""
    seconds = max(now.time_ns - before.time_ns, 1) / 1e9
    return Interval(
        round((now.time_ns - start_ns) / 1e9, 3),
        round((now.published - before.published) / seconds, 1),
        round((now.consumed - before.consumed) / seconds, 1),
        latencies_us(now.latencies.since(before.latencies)) if plan.measure_latency else {},
    )


def result(plan: Plan, start_ns: int, ends_ns: tuple[int, int], last: Moment, intervals: list[Interval]) -> Result:
    """Return the whole of a run. `ends_ns`: when the last was published and consumed."""
    publishing, consuming = (max(end - start_ns, 1) / 1e9 for end in ends_ns)
    return Result(
        __version__,
        plan,
        round(max(publishing, consuming), 6),
        last.published,
        last.consumed,
        round(last.published / publishing, 1),
        round(last.consumed / consuming, 1),
        round(last.consumed * plan.mean_bytes / consuming / (1 << 20), 3),
        latencies_us(last.latencies) if plan.measure_latency else {},
        list(last.latencies.rows()),
        intervals,
    )


def latencies_us(latencies: Histogram) -> dict[str, float]:
    """Return the usual percentiles in microseconds; empty without values."""
    if not latencies.total():
        return {}
    values = zip(PERCENTILES, latencies.percentiles(list(PERCENTILES.values())), strict=True)
    mean = {"min": latencies.lowest(), "mean": latencies.mean()}
    return {name: round(value / 1e3, 3) for name, value in [*mean.items(), *values]}
