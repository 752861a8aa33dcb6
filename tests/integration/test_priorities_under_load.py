"""Eight priorities under load, in processes of both modes: nothing is delivered while something more urgent is there;
with ageing nothing waits for ever.

Invariant of the checker: only what was certain counts. A message was there between the end of its publish and the begin
of the call that delivered it; it was published between begin and end of its publish, and delivered likewise.
"""

import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple

import numpy as np
import pytest

import shmq
from support.deadline import scaled, wait_until

pytestmark = pytest.mark.slow
QUEUE = "urgent"
LEVELS = 8
MESSAGES = 2_500  # of each producer
PRODUCERS = ("direct", "direct", "socket")
CONSUMERS = ("get direct", "consume direct", "get socket", "consume socket")
AGEING = 0.02  # seconds a level
WORK = 0.000_3  # seconds a consumer works at a message: producers are faster, so that a backlog grows
FORK = multiprocessing.get_context("fork")


class Published(NamedTuple):
    number: int
    level: int
    begin: int
    end: int


class Delivered(NamedTuple):
    number: int
    begin: int
    end: int


# -- the checker ------------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """What the processes wrote down, one element a message, in the order of its number."""

    level: Any
    published_begin: Any
    published_end: Any
    delivered_begin: Any
    delivered_end: Any


def run_of(published: list[Published], delivered: list[Delivered]) -> Run:
    """Every message was delivered once."""
    published, delivered = sorted(published), sorted(delivered)
    assert [one.number for one in published] == [one.number for one in delivered]
    columns = [[one.level for one in published]]
    columns += [[one.begin for one in published], [one.end for one in published]]
    columns += [[one.begin for one in delivered], [one.end for one in delivered]]
    return Run(*(np.array(column, dtype=np.int64) for column in columns))


def overtaken(run: Run, ageing_ns: int | None = None) -> Iterator[tuple[int, int]]:
    """Messages that were delivered while a more urgent one was there throughout, with that one.

    With ageing the one that was published earlier is, where a level counts as so many nanoseconds.
    """
    if ageing_ns is None:
        earliest = latest = -run.level
    else:
        earliest = run.published_begin - run.level * ageing_ns
        latest = run.published_end - run.level * ageing_ns
    for number in range(len(run.level)):
        there = (run.published_end < run.delivered_begin[number]) & (run.delivered_begin > run.delivered_end[number])
        others = np.flatnonzero(there & (latest < earliest[number]))
        if len(others):
            yield number, int(others[0])


# -- the processes ----------------------------------------------------------------------------------------------------


def produce(url: str, mode: Any, first: int, start: Any, says: Pipe) -> None:
    dice = random.Random(first)
    done: list[Published] = []
    with shmq.connect(url, mode=mode) as conn:
        start.wait(scaled(30))
        for number in range(first, first + MESSAGES):
            level, begin = dice.randrange(LEVELS), time.monotonic_ns()
            conn.publish(b"%d" % number, routing_key=QUEUE, priority=level, confirm="memory", timeout=scaled(30))
            done.append(Published(number, level, begin, time.monotonic_ns()))
    says.send(done)


def consume(url: str, kind: str, start: Any, over: Any, says: Pipe) -> None:
    how, _, mode = kind.partition(" ")
    with shmq.connect(url, mode=mode) as conn:  # type: ignore[arg-type] # one of its words
        start.wait(scaled(30))
        says.send(list((take if how == "get" else iterate)(conn, over)))


def take(conn: shmq.Connection, over: Any) -> Iterator[Delivered]:
    while True:
        ends = over.is_set()
        begin = time.monotonic_ns()
        message = conn.get(QUEUE, timeout=0 if ends else 0.05)
        end = time.monotonic_ns()
        if message is not None:
            yield Delivered(int(message.body), begin, end)
            time.sleep(WORK)
            message.ack()
        elif ends:
            return


def iterate(conn: shmq.Connection, over: Any) -> Iterator[Delivered]:
    """With a prefetch of one the broker takes the next message when it hears of the ack, not before."""
    begin = time.monotonic_ns()
    consumer = conn.consume(QUEUE, prefetch=1)
    ending = threading.Thread(target=cancel_at_end, args=(conn, consumer, over))
    ending.start()
    for message in consumer:
        yield Delivered(int(message.body), begin, time.monotonic_ns())
        time.sleep(WORK)
        begin = time.monotonic_ns()
        message.ack()
    ending.join()


def cancel_at_end(conn: shmq.Connection, consumer: Any, over: Any) -> None:
    over.wait(scaled(120))
    wait_until(lambda: not held(conn), "all is consumed", 60)
    consumer.cancel()


def held(conn: shmq.Connection) -> int:
    info = conn.queue_info(QUEUE)
    return info.messages + info.unacked


def under_load(**arguments: Any) -> Run:
    """Let them all work at one queue."""
    with shmq.local() as url, shmq.connect(url) as conn:
        conn.declare_queue(QUEUE, max_priority=LEVELS - 1, **arguments)
        start, over = FORK.Barrier(len(PRODUCERS) + len(CONSUMERS)), FORK.Event()
        producers = [Worker(produce, url, mode, i * MESSAGES, start) for i, mode in enumerate(PRODUCERS)]
        consumers = [Worker(consume, url, kind, start, over) for kind in CONSUMERS]
        published = [one for worker in producers for one in worker.result()]
        over.set()
        delivered = [one for worker in consumers for one in worker.result()]
    return run_of(published, delivered)


class Worker:
    """A process that does one of these, and what it says."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._hears, says = FORK.Pipe(duplex=False)
        self._process = FORK.Process(target=work, args=(*arguments, says), daemon=True)
        self._process.start()
        says.close()

    def result(self) -> Any:
        assert self._hears.poll(scaled(60)), "a worker says nothing"
        result = self._hears.recv()
        self._process.join(scaled(10))
        assert self._process.exitcode == 0
        return result


# -- what must hold ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict() -> Run:
    return under_load()


def longest_wait(run: Run, level: int) -> float:
    """Seconds from publish to delivery."""
    return float((run.delivered_end - run.published_end)[run.level == level].max()) / 1e9


def test_nothing_is_delivered_while_something_more_urgent_is_there(strict: Run) -> None:
    assert list(overtaken(strict)) == []
    waits = [longest_wait(strict, level) for level in range(LEVELS)]
    print("\nlongest wait by level, ms:", *(f"{1e3 * wait:.0f}" for wait in waits))
    assert waits[0] > 10 * waits[-1], "there was no backlog, so nothing was tried"


def test_with_ageing_nothing_is_passed_by_what_came_much_later() -> None:
    run = under_load(priority_ageing=AGEING)
    assert list(overtaken(run, int(AGEING * 1e9))) == []
    waits = [longest_wait(run, level) for level in range(LEVELS)]
    print("\nlongest wait by level, ms:", *(f"{1e3 * wait:.0f}" for wait in waits))
    assert list(overtaken(run)), "ageing is to let the urgent wait sometimes"


def test_without_ageing_the_least_urgent_starve_and_the_checker_says_so(strict: Run) -> None:
    assert list(overtaken(strict, int(AGEING * 1e9)))


@pytest.mark.parametrize("seed", range(20))
def test_the_checker_finds_one_inversion(strict: Run, seed: int) -> None:
    """Two messages that lay there together are delivered in each other's stead."""
    dice, begin, end = random.Random(seed), strict.delivered_begin.copy(), strict.delivered_end.copy()
    low = high = 0
    while not (
        strict.level[low] < strict.level[high]
        and max(strict.published_end[low], strict.published_end[high]) < begin[high]
        and end[high] < begin[low]
    ):
        low, high = dice.randrange(len(begin)), dice.randrange(len(begin))
    begin[[low, high]], end[[low, high]] = begin[[high, low]], end[[high, low]]

    assert low in dict(overtaken(strict._replace(delivered_begin=begin, delivered_end=end)))
