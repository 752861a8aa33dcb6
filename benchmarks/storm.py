"""What a storm of events does to jobs in another queue: `python -m benchmarks.storm [--deaf | --bare] [--json]`.

Owns: the measurement and its figures. Each of many workers (processes) has an auto_delete queue bound with `worker.#`
to one topic exchange, consumes from it without acks, and publishes heartbeats there, so that every heartbeat is
delivered to all of them. Jobs go through a queue of their own meanwhile, from one process to another, published when
they are due and acked one by one. Calm and storm take turns; a job's time goes from when it was due to its delivery,
and figures are medians of turns.
With --deaf the workers consume nothing, heartbeats are large, and the memory watermark is low: the storm's queues are
stopped, jobs must go on.
With --bare heartbeats are rung at the workers' eventfds and nothing is published: what so many processes that wake at
once do to jobs on this host, whatever wakes them.
What is checked is of two kinds: what holds on a host of any speed (`wrong`), and figures that a host may miss which is
slow, or busy with other work (`too_slow`). Exits 1 for either.
"""

import argparse
import contextlib
import ctypes
import json
import math
import multiprocessing
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import psutil  # type: ignore[import-untyped] # ships no types

import shmq
from shmq.wire.fields import QueueInfo

EXCHANGE: Final = "events"
JOBS: Final = "jobs"
JOB: Final = struct.Struct("<qd")  # its number, and when it was due
RATIO_MAX: Final = 2.0  # p99 of jobs, with the storm to without
DEAF_P99_MS_MAX: Final = 250.0  # refusing ten thousand copies a second takes processor time, as taking them does
DELIVERIES_SHARE_MIN: Final = 0.95  # of what was asked for
MEMORY_GROWTH_MAX: Final = 1.1
PLACES_A_WORKER: Final = 10  # in a queue, beside what waited: see `places_max`
START_SECONDS: Final = 60.0
PATIENCE: Final = 30.0
SETTLE_SECONDS: Final = 0.5  # of each turn, before it is measured
WARM_BEATS: Final = 3  # of each worker, before anything is: the first one attaches to everybody's queue
MARK_BYTES: Final = 64 << 20  # with --deaf
DEAF_BODY: Final = 20_000
Counts: TypeAlias = "ctypes.Array[ctypes.c_int64]"
"""One a worker, which alone writes it."""
Flag: TypeAlias = ctypes.c_bool
"""Not an Event: setting one waits for all who wait, also for one that died."""
FORK = multiprocessing.get_context("fork")


class Plan(NamedTuple):
    """What to measure."""

    workers: int
    deliveries: int  # a second
    jobs: int  # a second
    turns: int
    seconds: float  # of a turn
    body: int
    deaf: bool
    bare: bool = False

    @property
    def pause(self) -> float:
        """Seconds between two heartbeats of a worker."""
        return self.workers**2 / self.deliveries


class Shared(NamedTuple):
    """What the processes have in common."""

    url: str
    plan: Plan
    ready: Barrier
    storming: Flag
    over: Flag
    delivered: Counts
    published: Counts
    refused: Counts  # heartbeats that some queue had no room for
    waiting: Counts  # the most that anybody's queue had, as this worker saw it when it had published
    handed_in: Counts  # jobs, by one process
    bells: list[int]  # of the workers, with --bare


def shared_by(url: str, plan: Plan) -> Shared:
    """Make it, for the workers, who hands in, who does, and who measures."""
    ready = FORK.Barrier(plan.workers + 3)
    delivered, published, refused, waiting = (FORK.RawArray(ctypes.c_int64, plan.workers) for _ in range(4))
    handed_in = FORK.RawArray(ctypes.c_int64, 1)
    storming, over = FORK.RawValue(ctypes.c_bool), FORK.RawValue(ctypes.c_bool)
    bells = [os.eventfd(0) for _ in range(plan.workers)]
    return Shared(url, plan, ready, storming, over, delivered, published, refused, waiting, handed_in, bells)


class Done(NamedTuple):
    """A job."""

    number: int
    due: float
    took: float


class Turn(NamedTuple):
    """One measured stretch."""

    storm: bool
    begin: float
    end: float
    deliveries: float  # a second
    shm_bytes: int  # at its end
    places: int  # for messages, that this is memory for
    used: int  # the most of them in one of the storm's queues, ever
    waiting: int  # the most messages in one, ever
    rss_bytes: int
    blocked: str
    stopped: set[str]  # queues


# -- processes --------------------------------------------------------------------------------------------------------


def work(shared: Shared, number: int) -> None:
    """Be a worker: hear everybody's heartbeats, and send one's own."""
    deaf = shared.plan.deaf
    with shmq.connect(shared.url, timeout=START_SECONDS) as conn:
        queue = conn.declare_queue("", auto_delete=True).name
        conn.bind_queue(queue, EXCHANGE, "worker.#")
        consumer = conn.consume(queue, prefetch=int(deaf), no_ack=not deaf)
        heart = threading.Thread(target=beat, args=(shared, number, conn, consumer))
        shared.ready.wait(START_SECONDS)
        heart.start()
        if shared.plan.bare:
            while not shared.over.value:
                shared.delivered[number] += os.eventfd_read(shared.bells[number])
        elif not deaf:
            for _message in consumer:
                shared.delivered[number] += 1
        heart.join()


def beat(shared: Shared, number: int, conn: shmq.Connection, consumer: Any) -> None:  # noqa: ANN401 - of either mode
    """Publish a heartbeat when one is due, while there is a storm; the workers' times are spread evenly."""
    plan = shared.plan
    due = time.monotonic() + plan.pause * number / plan.workers
    body = bytes(plan.body)
    while not shared.over.value:
        time.sleep(max(0.0, due - time.monotonic()))  # until it is due
        due = max(due + plan.pause, time.monotonic())
        if shared.over.value or not shared.storming.value:
            continue
        try:
            if plan.bare:
                ring(shared.bells)
            else:
                conn.publish(body, exchange=EXCHANGE, routing_key=f"worker.heartbeat.{number}", timeout=plan.pause)
            shared.published[number] += 1
            shared.waiting[number] = max(shared.waiting[number], sum(shared.published) - min(shared.delivered))
        except shmq.QueueFull:
            shared.refused[number] += 1
    consumer.cancel()


def ring(bells: list[int]) -> None:
    """Wake everybody."""
    for bell in bells:
        os.eventfd_write(bell, 1)


def hand_in(shared: Shared) -> None:
    """Publish jobs when they are due, and those that were due before the end in any case."""
    with shmq.connect(shared.url, mode="direct", timeout=START_SECONDS) as conn:
        shared.ready.wait(START_SECONDS)
        due, end = time.monotonic(), math.inf
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))  # until it is due
            conn.publish(JOB.pack(shared.handed_in[0], due), routing_key=JOBS, timeout=PATIENCE)
            shared.handed_in[0] += 1
            due += 1 / shared.plan.jobs
            if shared.over.value:
                end = min(end, time.monotonic())
        conn.publish(b"", routing_key=JOBS, timeout=PATIENCE)


def do_jobs(shared: Shared, results: Any) -> None:  # noqa: ANN401 - a pipe's end
    """Take jobs until the last one; then tell of each when it was due, and how long it took."""
    done: list[Done] = []
    with shmq.connect(shared.url, mode="direct", timeout=START_SECONDS) as conn:
        shared.ready.wait(START_SECONDS)
        for message in conn.consume(JOBS, prefetch=1):
            now = time.monotonic()
            message.ack()
            if not message.body:
                break
            number, due = JOB.unpack(message.body)
            done.append(Done(number, due, now - due))
    results.send(done)


# -- the measurement --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def daemon(plan: Plan) -> Iterator[str]:
    """Run one of our own, with a mark where the storm is not consumed."""
    folder = Path(tempfile.mkdtemp(prefix="shmq-"))
    places = ["--socket", str(folder / "shmq.sock"), "--data", str(folder / "data")]
    settings = folder / "shmqd.toml"
    settings.write_text(f'log_level = "error"\nmemory_watermark_bytes = {MARK_BYTES if plan.deaf else 0}\n')
    command = [sys.executable, "-P", "-m", "shmq_daemon.main", "--ephemeral", "--config", str(settings), *places]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own module, by our own interpreter
    try:
        url = f"shmq://{folder / 'shmq.sock'}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if time.monotonic() > deadline:
                raise SystemExit("shmqd does not answer")
        yield url
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(START_SECONDS)
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    with contextlib.suppress(shmq.DaemonNotRunning):
        shmq.connect(url).close()
        return True
    time.sleep(0.01)  # to the next try
    return False


def measure(plan: Plan) -> dict[str, Any]:
    """Take all turns. Returns what they say."""
    with daemon(plan) as url, shmq.connect(url) as conn:
        conn.declare_exchange(EXCHANGE, "topic")
        conn.declare_queue(JOBS)
        shared = shared_by(url, plan)
        hears, says = FORK.Pipe(duplex=False)
        processes = [FORK.Process(target=work, args=(shared, number)) for number in range(plan.workers)]
        processes += [FORK.Process(target=hand_in, args=(shared,)), FORK.Process(target=do_jobs, args=(shared, says))]
        try:
            for process in processes:
                process.start()
            turns = take_turns(shared, conn)
            shared.over.value = True
            ring(shared.bells)
            done: list[Done] = hears.recv() if hears.poll(PATIENCE) else []
            deadline = time.monotonic() + PATIENCE
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in processes:
                process.kill()
        failed = sum(process.exitcode != 0 for process in processes)
        jobs = conn.queue_info(JOBS)
        return (
            said(turns, done)
            | of_jobs(shared.handed_in[0], [job.number for job in done], left=jobs.messages + jobs.unacked)
            | {"heartbeats": sum(shared.published), "refused": sum(shared.refused), "failed": failed}
        )


def take_turns(shared: Shared, conn: shmq.Connection) -> list[Turn]:
    """Calm first and last, when all are there and what happens once has happened."""
    plan = shared.plan
    shared.ready.wait(START_SECONDS)
    shared.storming.value = True
    time.sleep(WARM_BEATS * plan.pause)  # until each has attached to all queues
    if plan.deaf:
        fill(shared, conn)
    return [take_turn(shared, conn, storm=bool(number % 2)) for number in range(2 * plan.turns + 1)]


def fill(shared: Shared, conn: shmq.Connection) -> None:
    """Let it blow until its queues are stopped, and that is told, however long this host takes for it."""
    deadline = time.monotonic() + PATIENCE
    while len(stopped(conn.queues())) < shared.plan.workers or not conn.blocked:
        if time.monotonic() > deadline:
            return  # the figures tell
        time.sleep(SETTLE_SECONDS / 10)  # to the next look


def take_turn(shared: Shared, conn: shmq.Connection, *, storm: bool) -> Turn:
    """Let it blow, or not."""
    shared.storming.value = storm
    time.sleep(SETTLE_SECONDS)  # what the turn before left is gone
    begin, before = time.monotonic(), sum(shared.delivered)
    time.sleep(shared.plan.seconds)  # what is measured
    end, after = time.monotonic(), sum(shared.delivered)
    infos = conn.queues()
    storms = [info.totals for info in infos if info.definition.name != JOBS]
    pids = [process.pid for process in conn.status().processes]
    return Turn(
        storm,
        begin,
        end,
        (after - before) / (end - begin),
        sum(info.totals["memory_bytes"] for info in infos),
        sum(info.totals["slots_committed"] for info in infos),
        max(totals["slots_used_high"] for totals in storms),
        max(shared.waiting),
        sum(psutil.Process(pid).memory_info().rss for pid in pids),
        conn.blocked,
        stopped(infos),
    )


def stopped(infos: Sequence[QueueInfo]) -> set[str]:
    """Names of those that may not grow."""
    return {info.definition.name for info in infos if info.totals["share_bytes"]}


def of_jobs(handed_in: int, done: list[int], *, left: int) -> dict[str, int]:
    """Figures of jobs, whose numbers count up from 0: what became of those that were handed in, by what was delivered
    and acked, and what is in the queue in the end.
    """
    return {
        "handed_in": handed_in,
        "done": len(done),
        "lost": len(set(range(handed_in)).difference(done)),
        "done_again": len(done) - len(set(done)),
        "left": left,
    }


def said(turns: list[Turn], done: list[Done]) -> dict[str, Any]:
    """Figures of all turns."""
    p50: dict[bool, list[float]] = {False: [], True: []}
    p99: dict[bool, list[float]] = {False: [], True: []}
    for turn in turns:
        parts = statistics.quantiles([1e3 * job.took for job in done if turn.begin <= job.due < turn.end], n=100)
        p50[turn.storm].append(parts[49])
        p99[turn.storm].append(parts[98])
    storms = [turn for turn in turns if turn.storm]
    calm, storm = statistics.median(p99[False]), statistics.median(p99[True])
    return {
        "p50_ms": [statistics.median(p50[False]), statistics.median(p50[True])],
        "p99_ms": [calm, storm],
        "p99_ms_of_each_turn": [p99[False], p99[True]],
        "ratio": storm / calm,
        "deliveries_a_second": statistics.median(turn.deliveries for turn in storms),
        "shm_bytes": [storms[0].shm_bytes, storms[-1].shm_bytes],
        "places": [storms[0].places, storms[-1].places],
        "used": storms[-1].used,
        "waiting": storms[-1].waiting,
        "rss_bytes": [storms[0].rss_bytes, storms[-1].rss_bytes],
        "blocked": next((turn.blocked for turn in turns if turn.blocked), ""),
        "stopped": sorted(set().union(*(turn.stopped for turn in turns))),
    }


def wrong(plan: Plan, figures: dict[str, Any]) -> Iterator[str]:
    """What is not as it must be on a host of any speed."""
    if figures["lost"] or figures["done_again"] or figures["left"] or not figures["handed_in"]:
        yield "each job that was handed in is done, and once"
    if figures["failed"]:
        yield "each process ends well"
    if plan.deaf:
        if len(figures["stopped"]) != plan.workers or JOBS in figures["stopped"]:
            yield "the storm's queues are stopped, and they alone"
        if not figures["blocked"]:
            yield "connections are told of it"
        return
    if figures["blocked"] or figures["stopped"] or figures["refused"]:
        yield "nothing is blocked"
    if figures["used"] > places_max(plan, figures["waiting"]):
        yield "a queue has places for what waited, and no more"
    (first, last), (first_places, last_places) = figures["shm_bytes"], figures["places"]
    if has_grown(first / first_places, last / last_places) or has_grown(*figures["rss_bytes"]):
        yield "memory stays as it is, but for what waits"


def too_slow(plan: Plan, figures: dict[str, Any]) -> Iterator[str]:
    """What is not as it should be, of what a host that holds up our processes can miss."""
    if plan.deaf:
        if figures["p99_ms"][1] > DEAF_P99_MS_MAX:
            yield f"jobs go on: p99 at most {DEAF_P99_MS_MAX:g} ms"
        return
    if figures["ratio"] > RATIO_MAX:
        yield f"p99 of jobs at most {RATIO_MAX:g} times that without the storm"
    if figures["deliveries_a_second"] < plan.deliveries * DELIVERIES_SHARE_MIN:
        yield f"{plan.deliveries} deliveries a second"
    if has_grown(*figures["shm_bytes"]):
        yield "memory stays as it is, because nothing waits"


def places_max(plan: Plan, waiting: int) -> int:
    """Most places that a queue needs for so many messages. Each worker keeps 8 in reserve (docs/SHM_LAYOUT.md, 5), may
    have published one that it has not counted yet, and one before it looked how many wait.
    """
    return waiting + PLACES_A_WORKER * plan.workers


def has_grown(before: float, after: float) -> bool:
    """Whether memory has."""
    return after > before * MEMORY_GROWTH_MAX


def shown(plan: Plan, figures: dict[str, Any]) -> Iterator[str]:
    """Lines for a person."""
    (calm50, storm50), (calm99, storm99) = figures["p50_ms"], figures["p99_ms"]
    what = "are rung" if plan.bare else "do not consume" if plan.deaf else "consume"
    yield f"{plan.workers} workers that {what}, {plan.jobs} jobs a second"
    yield f"  jobs                     {figures['handed_in']:,} handed in, {figures['done']:,} done"
    yield f"  jobs without the storm   p50 {calm50:7.3f} ms   p99 {calm99:7.3f} ms"
    yield f"  jobs with the storm      p50 {storm50:7.3f} ms   p99 {storm99:7.3f} ms   {figures['ratio']:.2f} times"
    yield f"  deliveries a second      {figures['deliveries_a_second']:,.0f}"
    yield f"  heartbeats               {figures['heartbeats']:,} published, {figures['refused']:,} refused"
    for name, key in (("queues in /dev/shm", "shm_bytes"), ("daemon's memory", "rss_bytes")):
        before, after = (size / (1 << 20) for size in figures[key])
        yield f"  {name:<24} {before:.1f} MiB after the first storm, {after:.1f} MiB after the last"
    yield f"  heartbeats in a queue    {figures['waiting']:,} at most, in {figures['used']:,} places"
    yield f"  stopped                  {len(figures['stopped'])} queues"
    if figures["blocked"]:
        yield f"  connections are told     {figures['blocked']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--deliveries", type=int, default=10_000, help="a second, of heartbeats to workers")
    parser.add_argument("--jobs", type=int, default=500, help="a second")
    parser.add_argument("--turns", type=int, default=12, help="of storm, between as many and one of calm")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--deaf", action="store_true", help="workers do not consume, and the memory watermark is low")
    how.add_argument("--bare", action="store_true", help="workers are woken by eventfds alone")
    parser.add_argument("--json", action="store_true", help="figures for a program")
    given = parser.parse_args(arguments)
    body = DEAF_BODY if given.deaf else 64
    plan = Plan(given.workers, given.deliveries, given.jobs, given.turns, given.seconds, body, given.deaf, given.bare)
    figures = measure(plan)
    faults, late = list(wrong(plan, figures)), list(too_slow(plan, figures))
    if given.json:
        print(json.dumps(figures | {"wrong": faults, "too_slow": late}))
    else:
        print(*shown(plan, figures), *(f"missed: {what}" for what in (*faults, *late)), sep="\n")
    return bool(faults or late)


if __name__ == "__main__":
    sys.exit(main())
