"""How many messages a second go from producers to consumers through one queue, each acked by itself; public API only.

    python benchmarks/one_to_one.py [--size 256] [--n 1000000] [--runs 5] [--mode direct] [--batch 1]
                                    [--producers 1] [--consumers 1] [--capacity 100000] [--uids 61000 61001 61002]

Each run: all processes are connected and wait for each other; the time goes from the first publish to the last ack. A
batch above 1 goes through publish_many, get_batch and ack_many. Every body is read. A broker of its own (shmq.local).
With --uids, as root: daemon, producers and consumers are three users, and a policy lets the latter two work directly.
"""

import argparse
import contextlib
import encodings.ascii  # noqa: F401 - now: a process of another user may not be able to read Python's files
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import shmq
from shmq.core import LAYOUT
from shmq.limits import PROTOCOL
from shmq_daemon import main as shmqd

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Barrier

QUEUE = "one-to-one"
START_SECONDS = 60
FIGURES = {1: 1_000_000, 100: 2_000_000}  # by batch: direct, 256 B, 1 to 1, on 2 cores
FORK = multiprocessing.get_context("fork")
POLICY = """
socket_mode = 0o666
log_level = "error"
[[permissions]]
any = true
write = ["*"]
read = ["*"]
direct = ["*"]
"""


class Plan(NamedTuple):
    """What to measure."""

    size: int
    n: int
    runs: int
    mode: Any  # one of connect's words
    batch: int
    producers: int
    consumers: int
    capacity: int
    uids: Sequence[int] | None  # of the daemon, of producers, of consumers; None: all are one user's


class Shared(NamedTuple):
    """What the processes of a run have in common."""

    url: str
    plan: Plan
    barrier: "Barrier"
    left: "Synchronized[int]"  # producers that have not ended
    came: "Synchronized[int]"  # messages that came
    starts: "SimpleQueue[float]"
    ends: "SimpleQueue[float]"


# -- users ------------------------------------------------------------------------------------------------------------


def become(uid: int) -> None:
    """Be another user for the rest of this process."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


@contextlib.contextmanager
def daemon_of(uid: int) -> Iterator[str]:
    """Run a daemon as this user, for everybody, and give its URL."""
    folder = Path(tempfile.mkdtemp(prefix="shmq-"))
    folder.chmod(0o711)
    os.chown(folder, uid, uid)
    (folder / "shmqd.toml").write_text(POLICY)
    (folder / "shmqd.toml").chmod(0o644)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.dup2(read, sys.stdin.fileno())
        become(uid)
        places = ["--socket", str(folder / "shmq.sock"), "--data", str(folder / "data")]
        os._exit(shmqd.main([*places, "--config", str(folder / "shmqd.toml"), "--ephemeral"]))
    os.close(read)
    try:
        yield wait_for(f"shmq://{folder / 'shmq.sock'}")
    finally:
        os.close(write)
        os.waitpid(pid, 0)
        shutil.rmtree(folder)


def wait_for(url: str) -> str:
    """Return the URL when a daemon answers there."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            shmq.connect(url).close()
        except shmq.ShmqError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # to the next try
        else:
            return url


# -- workers ----------------------------------------------------------------------------------------------------------


def produce(conn: shmq.Connection, plan: Plan, share: int) -> None:
    """Publish so many messages."""
    body = bytes(plan.size)
    if plan.batch == 1:
        publish = conn.publish
        for _ in range(share):
            publish(body, routing_key=QUEUE)
        return
    bodies = [body] * plan.batch
    for _ in range(share // plan.batch):
        conn.publish_many(bodies, routing_key=QUEUE)
    if share % plan.batch:
        conn.publish_many(bodies[: share % plan.batch], routing_key=QUEUE)


def consume(conn: shmq.Connection, plan: Plan) -> int:
    """Take, read and ack messages until an empty one. Returns how many were full."""
    count = 0
    if plan.batch == 1:
        for message in conn.consume(QUEUE, prefetch=100):
            message.ack()
            if not message.body:
                return count
            count += 1
    while True:
        messages = conn.get_batch(QUEUE, max_messages=plan.batch, max_wait=0.01)
        bodies = [message.body for message in messages]
        if b"" in bodies:
            return count + end(conn, messages)
        conn.ack_many(messages)
        count += len(messages)


def end(conn: shmq.Connection, messages: Sequence[shmq.Message]) -> int:
    """Ack the last batch but for the empty messages of other consumers. Returns how many were full."""
    full = [message for message in messages if message.body]
    mine, *others = [message for message in messages if not message.body]
    conn.ack_many([*full, mine])
    for message in others:
        message.nack()
    return len(full)


def producer(shared: Shared, share: int) -> None:
    """Be one producer. The last one to end tells the consumers, by an empty message each."""
    if shared.plan.uids:
        become(shared.plan.uids[1])
    with shmq.connect(shared.url, mode=shared.plan.mode) as conn:
        shared.barrier.wait(START_SECONDS)
        shared.starts.put(time.monotonic())
        produce(conn, shared.plan, share)
        with shared.left.get_lock():
            shared.left.value -= 1
            is_last = shared.left.value == 0
        if is_last:
            conn.wait_for_confirms()
            conn.publish_many([b""] * shared.plan.consumers, routing_key=QUEUE)
            conn.wait_for_confirms()


def consumer(shared: Shared) -> None:
    """Be one consumer."""
    if shared.plan.uids:
        become(shared.plan.uids[2])
    with shmq.connect(shared.url, mode=shared.plan.mode) as conn:
        shared.barrier.wait(START_SECONDS)
        count = consume(conn, shared.plan)
        conn.wait_for_confirms()
        shared.ends.put(time.monotonic())
        with shared.came.get_lock():
            shared.came.value += count


# -- runs -------------------------------------------------------------------------------------------------------------


def run(url: str, plan: Plan) -> float:
    """Return the messages a second of one run."""
    barrier = FORK.Barrier(plan.producers + plan.consumers)
    left, count = FORK.Value("i", plan.producers), FORK.Value("q", 0)
    shared = Shared(url, plan, barrier, left, count, FORK.SimpleQueue(), FORK.SimpleQueue())
    shares = [plan.n // plan.producers + (i < plan.n % plan.producers) for i in range(plan.producers)]
    workers = [FORK.Process(target=consumer, args=(shared,)) for _ in range(plan.consumers)]
    workers += [FORK.Process(target=producer, args=(shared, share)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers) or count.value != plan.n:
        sys.exit(f"a worker failed, or messages did: {count.value:,} of {plan.n:,} came")
    first = min(shared.starts.get() for _ in range(plan.producers))
    last = max(shared.ends.get() for _ in range(plan.consumers))
    return plan.n / (last - first)


def measure(plan: Plan, say: Callable[[str], None]) -> list[float]:
    """Return the messages a second of each run."""
    rates = []
    with daemon_of(plan.uids[0]) if plan.uids else shmq.local() as url:
        with shmq.connect(url) as conn:
            conn.declare_queue(QUEUE, capacity_messages=plan.capacity)
        for number in range(1, plan.runs + 1):
            rates.append(run(url, plan))
            say(f"run {number}: {rates[-1]:>12,.0f} msg/s")
        with shmq.connect(url) as conn:
            totals = conn.queue_info(QUEUE).totals
    expected = plan.runs * (plan.n + plan.consumers)
    if {totals["published"], totals["acked"]} != {expected}:
        sys.exit(f"the broker counts otherwise: {totals}")
    return rates


# -- words ------------------------------------------------------------------------------------------------------------


def facts(plan: Plan) -> list[str]:
    """Return what a figure needs beside it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    versions = f"shmq {shmq.__version__}, protocol {PROTOCOL}, layout {LAYOUT}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    how = "acked one by one" if plan.batch == 1 else f"publish_many, get_batch and ack_many of {plan.batch}"
    who = f"{plan.mode} mode, {plan.size} B, {plan.producers} to {plan.consumers}"
    if plan.uids:
        who += ", daemon, producers and consumers under uids " + ", ".join(map(str, plan.uids))
    return [
        f"{versions}; {python}; {platform.system()} {platform.release()}",
        f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB; load before: {os.getloadavg()[0]:.2f}",
        f"{who}, {how}, {plan.n:,} messages a run, a queue of {plan.capacity:,}",
    ]


def verdict(plan: Plan, median: float) -> str:
    """Say whether the figure to meet is met, where there is one for this plan."""
    figure = FIGURES.get(plan.batch)
    if figure is None or (plan.mode, plan.size, plan.producers, plan.consumers) != ("direct", 256, 1, 1):
        return ""
    return f", to meet: {figure:,}: {'met' if median >= figure else 'NOT MET'}"


def parse(arguments: Sequence[str] | None = None) -> Plan:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (
        ("size", 256),
        ("n", 1_000_000),
        ("runs", 5),
        ("batch", 1),
        ("producers", 1),
        ("consumers", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--capacity", type=int, default=100_000, help="messages that the queue holds")
    parser.add_argument("--mode", choices=("direct", "socket"), default="direct")
    parser.add_argument("--uids", type=int, nargs=3, help="of the daemon, of producers, of consumers; only as root")
    plan = Plan(**vars(parser.parse_args(arguments)))
    if plan.uids and os.geteuid() != 0:
        parser.error("--uids: only root can be three users")
    if min(plan.size, plan.n, plan.runs, plan.batch, plan.producers, plan.consumers) < 1:
        parser.error("every number is at least 1")
    return plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 where the figure to meet is not met."""
    plan = parse(arguments)
    print("\n".join(facts(plan)), flush=True)
    median = statistics.median(measure(plan, lambda line: print(line, flush=True)))
    words = verdict(plan, median)
    print(f"median: {median:>11,.0f} msg/s{words}")
    return int("NOT" in words)


if __name__ == "__main__":
    sys.exit(main())
