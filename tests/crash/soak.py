"""A broker under steady work for a long time: does anything grow?

    make soak                                                    # 30 minutes
    PYTHONPATH=tests .venv/bin/python -m crash.soak --minutes 2

Steady loads in both modes, messages of 1 MiB, clients that come, declare, publish, nack, reject, delete and go, and one
a second that is killed with messages in hand. Every few seconds memory, descriptors, shared memory and slots are looked
at; at the end each has its slope, by least squares behind the first fifth of the time. Exits 1 if one of them grows.

Owns: what is looked at, what counts as growth. Does not own: the loads (shmq-perf).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import shmq
from support.shmqd import SHM, Shmqd, instance


class Load(NamedTuple):
    """A queue, how many bodies of which size it was full of once, and the load on it."""

    messages: int
    body_bytes: int
    arguments: str


LOADS: Final = {
    "direct": Load(2000, 64 << 10, "-x 2 -y 2 -r 2500 -s 64:8,4KiB:1,64KiB:1 --priorities 0:9,5:1 --mode direct"),
    "socket": Load(2000, 256, "-r 500 -q 100 --mode socket"),
    "large": Load(50, 1 << 20, "-r 20 -s 1MiB --zero-copy --mode direct"),
}
HOLDER: Final = """
import shmq, signal, sys
connection = shmq.connect(sys.argv[1])
message = connection.get(sys.argv[2], timeout=1)
print(flush=True)
signal.pause()
"""
SAMPLE_SECONDS: Final = 5.0
CHURN_SECONDS: Final = 0.1
KILL_EVERY: Final = 10  # clients that come and go
MIB: Final = 1 << 20
BLOCK_BYTES: Final = 512  # of st_blocks, stat(2)
WARM_UP: Final = 0.2  # of the time


class Limit(NamedTuple):
    """How much a thing may grow in an hour: what malloc's and Python's free lists do is less than this."""

    unit: str
    an_hour: float


LIMITS: Final = {
    "heap of the broker": Limit("MiB", 2.0),
    "heap of the supervisor": Limit("MiB", 2.0),
    "heap of the master": Limit("MiB", 1.0),
    "heap of the clients": Limit("MiB", 4.0),
    "descriptors of the daemon": Limit("", 1.0),
    "descriptors of the clients": Limit("", 1.0),
    "shared memory": Limit("MiB", 8.0),
    "segments": Limit("", 0.5),
    "slots in use": Limit("", 100.0),
}


def heap_mib(pid: int) -> float:
    """Return a process's own memory, without what it maps of others."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024


def descriptors(pid: int) -> int:
    """Return how many files a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def children(pid: int) -> list[int]:
    """Return a process and all under it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in below for found in children(int(child)))]


class Look(NamedTuple):
    """Everything, at one time (hours since the start)."""

    hours: float
    values: dict[str, float]


def look(daemon: Shmqd, conn: shmq.Connection, loads: list[int], hours: float) -> Look:
    """Look at everything once."""
    status = conn.status()
    pids = {process.role: process.pid for process in status.processes}
    clients = [pid for load in loads for pid in children(load)]
    values = {f"heap of the {role}": heap_mib(pid) for role, pid in pids.items()}
    values |= {
        "heap of the clients": sum(map(heap_mib, clients)),
        "descriptors of the daemon": sum(map(descriptors, pids.values())),
        "descriptors of the clients": sum(map(descriptors, clients)),
        "shared memory": sum((SHM / name).stat().st_blocks for name in _lasting(daemon)) * BLOCK_BYTES / MIB,
        "segments": len(_lasting(daemon)),
        "slots in use": sum(queue.totals["ready"] + queue.totals["unacked"] for queue in conn.queues()),
    }
    return Look(hours, {name: float(values[name]) for name in LIMITS})


def _lasting(daemon: Shmqd) -> list[str]:
    """The segments that are there and stay a moment; those that come and go are not looked at."""
    before = daemon.segments()
    time.sleep(2 * CHURN_SECONDS)
    return sorted(before & daemon.segments())


# -- clients that come and go -----------------------------------------------------------------------------------------


def come_and_go(url: str, number: int) -> None:
    """One short life, with something of everything in it."""
    name = f"passing-{number}"
    with shmq.connect(url, mode="direct" if number % 2 else "socket") as conn:
        conn.declare_queue(name, max_priority=number % 10 or None, delivery_limit=2)
        conn.publish_many([b"x" * size for size in (0, 100, 5_000, 100_000)], routing_key=name)
        for message in conn.get_batch(name, max_messages=3):
            (message.ack, message.nack, message.reject)[number % 3]()
        if number % KILL_EVERY == 0:
            _die_with_messages(url, name)
        conn.delete_queue(name)


def _die_with_messages(url: str, name: str) -> None:
    """In a process of its own that is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, url, name], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()


@contextmanager
def churn(url: str) -> Iterator[list[int]]:
    """Have clients come and go; yields a list whose length says how many did."""
    done: list[int] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(CHURN_SECONDS):
            come_and_go(url, len(done))
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


@contextmanager
def load(url: str, name: str, of: Load, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Run shmq-perf on a queue that was full once: a queue keeps the slots that its deepest backlog needed."""
    with shmq.connect(url) as conn:
        conn.declare_queue(name, max_priority=9, capacity_messages=of.messages)
        for _ in range(of.messages):
            conn.publish(bytes(of.body_bytes), routing_key=name)
        conn.purge_queue(name)
    command = [sys.executable, "-m", "shmq_clients.perf.main", "-h", url, "-u", name, "-p", "-z", str(seconds)]
    with subprocess.Popen(
        [*command, *of.arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


# -- growth -----------------------------------------------------------------------------------------------------------


def floors(looks: list[Look]) -> list[Look]:
    """Return the least values of each minute: what comes and goes is not growth."""
    minutes = groupby(looks, key=lambda one: int(one.hours * 60))
    groups = [(minute / 60, list(group)) for minute, group in minutes]
    return [Look(at, {name: min(one.values[name] for one in group) for name in LIMITS}) for at, group in groups]


def slope(looks: list[Look], name: str) -> float:
    """Return how much it grows in an hour."""
    return statistics.linear_regression([one.hours for one in looks], [one.values[name] for one in looks]).slope


def verdict(looks: list[Look]) -> bool:
    """Print the table. Returns whether all is flat."""
    warm = floors(looks[int(len(looks) * WARM_UP) :])
    print("\n| what | at first | at last | growth an hour | at most | |\n|---|---:|---:|---:|---:|---|")
    flat = True
    for name, limit in LIMITS.items():
        growth = slope(warm, name)
        flat &= (fine := growth <= limit.an_hour)
        first, last = warm[0].values[name], warm[-1].values[name]
        words = "flat" if fine else "GROWS"
        print(f"| {name} | {first:,.1f} {limit.unit} | {last:,.1f} | {growth:+,.2f} | {limit.an_hour:g} | {words} |")
    return flat


def soak(seconds: float) -> bool:
    """Work and look; returns whether all is flat."""
    looks: list[Look] = []
    with ExitStack() as stack:
        daemon = stack.enter_context(instance(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        conn = stack.enter_context(daemon.connect())
        loads = [stack.enter_context(load(daemon.url, name, of, seconds + 60)) for name, of in LOADS.items()]
        lives = stack.enter_context(churn(daemon.url))
        started = time.monotonic()
        while (since := time.monotonic() - started) < seconds:
            time.sleep(SAMPLE_SECONDS)
            looks.append(look(daemon, conn, [process.pid for process in loads], since / 3600))
            if any(process.poll() is not None for process in loads):
                raise SystemExit("a load has ended")
            if len(looks) % 12 == 0:
                values = ", ".join(f"{name} {value:,.1f}" for name, value in looks[-1].values.items())
                print(f"{since / 60:5.1f} min, {len(lives):,} clients came and went: {values}", flush=True)
        restarts = sum(process.restarts for process in conn.status().processes)
    flat = verdict(looks)
    print(f"\n{len(lives):,} clients came and went, {restarts} processes of the daemon had to be started again")
    return flat and not restarts


if __name__ == "__main__":
    parser = argparse.ArgumentParser("crash.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    sys.exit(0 if soak(parser.parse_args().minutes * 60) else 1)
