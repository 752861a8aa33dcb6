"""How late delayed messages come, with a million of them waiting, and what those that wait cost.

    python benchmarks/delays.py [--waiting 1000000] [--rate 1000] [--seconds 10] [--mode direct]

First `waiting` messages are scheduled for an hour from now, then `rate` a second for each of `seconds` seconds.
Lateness is the time from when a message was due to when its consumer has it. The supervisor's processor time is read
while nothing but waiting happens, and while messages come due. A broker of its own (shmq.local).
"""

import argparse
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped] # ships no types

import shmq

QUEUE: Final = "delayed"
HOUR: Final = 3600.0
BATCH: Final = 1000
IDLE_SECONDS: Final = 5.0
LEAD_SECONDS: Final = 2.0  # from the last publish to the first that is due
PATIENCE_SECONDS: Final = 10.0
LATENESS_MS: Final = 10.0
DUE: Final = struct.Struct("d")


def supervisor_of(conn: shmq.Connection) -> psutil.Process:
    """Return the process that fires what is due."""
    return psutil.Process(next(one.pid for one in conn.status().processes if one.role == "supervisor"))


def processor_seconds(process: psutil.Process) -> float:
    """Return what a process has used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def run_queue_seconds(process: psutil.Process) -> float:
    """Return how long it was ready to run and others ran: the host's part of the lateness."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def schedule_waiting(conn: shmq.Connection, waiting: int) -> float:
    """Return how long it took to schedule them, and to have them taken up."""
    start = time.monotonic()
    for first in range(0, waiting, BATCH):
        bodies = [b"waits"] * min(BATCH, waiting - first)
        conn.publish_many(bodies, routing_key=QUEUE, delay=HOUR, confirm="memory")
    return time.monotonic() - start


def settle_down(supervisor: psutil.Process) -> None:
    """Wait until the supervisor has taken up all there is."""
    before = -1.0
    while processor_seconds(supervisor) > before:
        before = processor_seconds(supervisor)
        time.sleep(1)  # a look a second


def schedule_due(conn: shmq.Connection, rate: int, seconds: int) -> int:
    """Publish what is due at a steady rate, in a random looking order."""
    count = rate * seconds
    begin = time.monotonic() + LEAD_SECONDS + count / 50_000
    for index in range(count):
        due = begin + (index * 7919 % count) / rate  # 7919 is prime: each place once
        conn.publish(DUE.pack(due), routing_key=QUEUE, delay=max(0.0, due - time.monotonic()), confirm="memory")
    return count


def lateness(conn: shmq.Connection, count: int) -> list[float]:
    """Return how late each came, in milliseconds, in order."""
    late: list[float] = []
    while len(late) < count:
        message = conn.get(QUEUE, timeout=PATIENCE_SECONDS, no_ack=True)
        if message is None:
            raise SystemExit(f"only {len(late)} of {count} messages came")
        late.append((time.monotonic() - DUE.unpack(message.body)[0]) * 1000)
    return sorted(late)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--mode", choices=("direct", "socket"), default="direct")
    plan = parser.parse_args(arguments)
    with shmq.local() as url, shmq.connect(url, mode=plan.mode) as conn:
        count = plan.rate * plan.seconds
        conn.declare_queue(QUEUE, capacity_messages=plan.waiting + count + BATCH)
        supervisor = supervisor_of(conn)
        took = schedule_waiting(conn, plan.waiting)
        settle_down(supervisor)
        memory = Path(f"/proc/{supervisor.pid}/smaps_rollup").read_text(encoding="ascii")
        pss_mib = next(int(line.split()[1]) / 1024 for line in memory.splitlines() if line.startswith("Pss_Anon"))
        before = processor_seconds(supervisor)
        time.sleep(IDLE_SECONDS)
        idle = (processor_seconds(supervisor) - before) / IDLE_SECONDS
        print(f"{plan.waiting:,} scheduled at {plan.waiting / took:,.0f} a second")
        print(f"waiting: {idle:.2%} of a core in the supervisor, {pss_mib:.0f} MiB of its own")
        before, start, waited = processor_seconds(supervisor), time.monotonic(), run_queue_seconds(supervisor)
        late = lateness(conn, schedule_due(conn, plan.rate, plan.seconds))
        busy = (processor_seconds(supervisor) - before) / (time.monotonic() - start)
        waited = run_queue_seconds(supervisor) - waited
        p50, p99, worst = (late[int(part * (len(late) - 1))] for part in (0.5, 0.99, 1))
        verdict = "met" if p99 <= LATENESS_MS else "missed"
        print(f"{plan.rate:,} due a second: late by p50 {p50:.2f} ms, p99 {p99:.2f} ms, at most {worst:.1f} ms")
        print(f"firing: {busy:.1%} of a core in the supervisor, which waited {waited * 1000:.0f} ms for a free one")
        print(f"p99 <= {LATENESS_MS:g} ms is {verdict}")
    return 0 if p99 <= LATENESS_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
