"""One run: makes the queue, lets the workers go, looks at them until it is over, takes the queue away again.

Owns: when a run is over, the queue and the exchange it made. Does not own: what workers do, the form of the report.
A run is over when its time is up, when somebody interrupts it, or when all counts are reached: consumers without a
count of their own go on until they have all that was published.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from shmq.errors import NotFound, ShmqError
from shmq_clients.connection import Connection, connect
from shmq_clients.perf.histogram import Histogram
from shmq_clients.perf.plan import Plan
from shmq_clients.perf.result import Interval, Moment, Result, interval, result
from shmq_clients.perf.workers import Worker, Workers

LOOK_SECONDS: Final = 0.005


def run(plan: Plan, url: str, show: Callable[[Interval], None]) -> Result:
    """Run the plan against the broker at `url`; `show` gets each interval. Raises ShmqError, WorkerFailed."""
    with _topology(plan, url) as make_room, Workers(plan, url) as workers:
        watch = _Watch(plan, workers, show)
        try:
            with suppress(KeyboardInterrupt):
                watch.until_over()
            return watch.result()
        finally:
            workers.stop(make_room)


class _Watch:
    """Looks at the tallies of running workers."""

    def __init__(self, plan: Plan, workers: Workers, show: Callable[[Interval], None]) -> None:
        self._plan = plan
        self._workers = workers
        self._show = show
        self._intervals: list[Interval] = []
        self._start_ns = workers.start()
        self._before = self._now()

    def until_over(self) -> None:
        """Return when the run is over."""
        deadline_ns = self._start_ns + int((self._plan.seconds or 1e9) * 1e9)
        next_ns = self._start_ns + int(self._plan.interval * 1e9)
        while (now_ns := time.monotonic_ns()) < deadline_ns and not self._is_done():
            if now_ns >= next_ns:
                self._tell()
                self._workers.check()
                next_ns += int(self._plan.interval * 1e9)
            time.sleep(LOOK_SECONDS)
        self._workers.check()

    def _end(self, workers: list[Worker], now_ns: int) -> int:
        """When the last of them came to its end, now if one still works."""
        ends = [worker.tally.ended_ns or now_ns for worker in workers]
        return max(ends, default=self._start_ns)

    def _is_done(self) -> bool:
        producers, consumers = self._workers.producers, self._workers.consumers
        if not all(worker.tally.ended_ns for worker in producers):
            return bool(consumers) and all(worker.tally.ended_ns for worker in consumers)
        if all(worker.tally.ended_ns for worker in consumers):
            return True
        return bool(producers) and _sum(consumers) >= _sum(producers)

    def _now(self) -> Moment:
        """Look at running workers: what is measured is counted from one copy, and what was published after it."""
        now_ns, consumers = time.monotonic_ns(), self._workers.consumers
        latencies = Histogram.merged(worker.tally.latencies.counts for worker in consumers)
        consumed = latencies.total() if self._plan.measure_latency else _sum(consumers)
        return Moment(now_ns, _sum(self._workers.producers), consumed, latencies)

    def _tell(self) -> None:
        now = self._now()
        self._intervals.append(interval(self._plan, self._start_ns, self._before, now))
        self._before = now
        self._show(self._intervals[-1])

    def result(self) -> Result:
        """Return the whole, once the run is over and before the workers are stopped."""
        last = self._now()
        ends_ns = (self._end(self._workers.producers, last.time_ns), self._end(self._workers.consumers, last.time_ns))
        return result(self._plan, self._start_ns, ends_ns, last, self._intervals)


def _sum(workers: list[Worker]) -> int:
    return sum(worker.tally.messages for worker in workers)


@contextmanager
def _topology(plan: Plan, url: str) -> Iterator[Callable[[], None]]:
    """Make what is missing, and at the end delete what was made; yields how to make room in the queue."""
    if plan.predeclared:
        yield lambda: time.sleep(LOOK_SECONDS)
        return
    with connect(url) as connection:
        made = _declare(plan, connection)

    def make_room() -> None:
        if "queue" in made:
            with suppress(ShmqError), connect(url) as connection:
                connection.purge_queue(plan.queue)

    try:
        yield make_room
    finally:
        with suppress(NotFound), connect(url) as connection:
            if "queue" in made:
                connection.delete_queue(plan.queue)
            if "exchange" in made:
                connection.delete_exchange(plan.exchange)


def _declare(plan: Plan, connection: Connection) -> set[str]:
    made = set()
    try:
        connection.declare_queue(plan.queue, passive=True)
    except NotFound:
        priority = {"x-max-priority": plan.highest_priority} if plan.highest_priority else {}
        connection.declare_queue(plan.queue, arguments={**priority, **plan.queue_arguments})
        made.add("queue")
    if plan.exchange:
        try:
            connection.declare_exchange(plan.exchange, plan.exchange_type, passive=True)
        except NotFound:
            connection.declare_exchange(plan.exchange, plan.exchange_type)
            made.add("exchange")
        connection.bind_queue(plan.queue, plan.exchange, plan.key)
    return made
