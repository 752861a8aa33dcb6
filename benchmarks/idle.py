"""What a broker costs that has nothing to do: time to be ready, memory, processor, shared memory of idle queues.

    python benchmarks/idle.py [--seconds 30] [--starts 7] [--queues 1000] [--connections 20]

Ready: from exec to the first answered Status. Memory: PSS of all its processes (smaps_rollup). Processor: user and
system time of all its processes over so many seconds: alone, with idle queues, and with connections whose consumers
wait. Shared memory: blocks that the file system has given to its segments.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import shmq

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
SETTLE_SECONDS = 2.0  # behind what was just done, before the processor's time is looked at
MIB = 1 << 20
BLOCK_BYTES = 512  # of st_blocks, stat(2)

READY_SECONDS, PSS_MIB, CPU_SHARE, SHM_MIB = 0.5, 80, 0.003, 100  # the figures to meet


class Broker(NamedTuple):
    """A broker of the benchmark's own, and how long it took to answer."""

    url: str
    ready_seconds: float


# -- measuring --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def broker() -> Iterator[Broker]:
    """Run shmqd and end it with all it made."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder, "shmq.sock")
        command = [sys.executable, "-P", "-m", "shmq_daemon.main", "--ephemeral", "--socket", str(socket)]
        started = time.monotonic()
        with subprocess.Popen(  # noqa: S603 - our own module
            [*command, "--data", folder], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
        ) as process:
            url = f"shmq://{socket}"
            while not answers(url):
                if process.poll() is not None:
                    sys.exit("shmqd ended before it was ready")
            try:
                yield Broker(url, time.monotonic() - started)
            finally:
                assert process.stdin is not None
                process.stdin.close()


def answers(url: str) -> bool:
    """Whether Status is answered."""
    try:
        with shmq.connect(url, timeout=0.2) as conn:
            conn.status()
    except (shmq.SessionError, OSError):
        time.sleep(0.001)
        return False
    return True


def start_times(starts: int) -> list[float]:
    """Return how long each of so many starts took."""
    seconds = []
    for _ in range(starts):
        with broker() as started:
            seconds.append(started.ready_seconds)
    return seconds


def pids(conn: shmq.Connection) -> list[int]:
    """Return the processes of the broker."""
    return [process.pid for process in conn.status().processes]


def pss_mib(processes: Sequence[int]) -> float:
    """Return their proportional set size: each page counts for each process by its share."""
    lines = [line for pid in processes for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_seconds(processes: Sequence[int]) -> float:
    """Return the user and system time that all their threads have used, in nanoseconds' resolution."""
    tasks = [task for pid in processes for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def cpu_share(processes: Sequence[int], seconds: float) -> float:
    """Return what part of one core they use while nobody asks for anything."""
    time.sleep(SETTLE_SECONDS)
    before, started = cpu_seconds(processes), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(processes) - before) / (time.monotonic() - started)


def shm_mib(instance: str) -> float:
    """Return what the segments of an instance have of /dev/shm."""
    return sum(entry.stat().st_blocks for entry in SHM.glob(f"shmq-{instance}-*")) * BLOCK_BYTES / MIB


@contextlib.contextmanager
def waiting(url: str, connections: int) -> Iterator[None]:
    """Hold connections, half of either mode, each with a consumer that has found nothing."""
    with contextlib.ExitStack() as stack:
        for number in range(connections):
            conn = stack.enter_context(shmq.connect(url, mode="direct" if number % 2 else "socket"))
            name = conn.declare_queue(f"waiting-{number % 5}").name
            conn.consume(name, prefetch=1)
            conn.get(name, timeout=0.01)
        yield


def declare(conn: shmq.Connection, queues: int) -> float:
    """Make idle queues. Returns what they have of /dev/shm, in MiB."""
    instance = conn.status().instance
    before = shm_mib(instance)
    for number in range(queues):
        conn.declare_queue(f"idle-{number}")
    return shm_mib(instance) - before


# -- words ------------------------------------------------------------------------------------------------------------


def line(what: str, figure: str, *, met: bool, limit: str) -> bool:
    """Print one figure beside the one to meet."""
    print(f"{what:<52}{figure:>12}   to meet: {limit:<10} {'met' if met else 'NOT MET'}", flush=True)
    return met


def cpu_line(what: str, share: float) -> bool:
    """Print a share of a core."""
    return line(f"processor, {what}", f"{share:.3%}", met=share <= CPU_SHARE, limit=f"{CPU_SHARE:.1%}")


def measure(seconds: float, starts: int, queues: int, connections: int) -> bool:
    """Print all figures. Returns whether all are met."""
    ready = statistics.median(start_times(starts))
    met = [line(f"ready, median of {starts}", f"{ready:.3f} s", met=ready <= READY_SECONDS, limit=f"{READY_SECONDS} s")]
    with broker() as running, shmq.connect(running.url) as conn:
        processes = pids(conn)
        met.append(cpu_line("alone", cpu_share(processes, seconds)))
        pss = pss_mib(processes)
        met.append(line("PSS of all processes", f"{pss:.1f} MiB", met=pss <= PSS_MIB, limit=f"{PSS_MIB} MiB"))
        with waiting(running.url, connections):
            met.append(cpu_line(f"{connections} connections that wait", cpu_share(processes, seconds)))
        shm = declare(conn, queues)
        what = f"shared memory of {queues:,} idle queues"
        met.append(line(what, f"{shm:.1f} MiB", met=shm <= SHM_MIB, limit=f"{SHM_MIB} MiB"))
        met.append(cpu_line(f"{queues:,} idle queues", cpu_share(processes, seconds)))
        print(f"{f'PSS with {queues:,} idle queues':<52}{pss_mib(processes):>8.1f} MiB")
    return all(met)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 where a figure to meet is not met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    for name, default in (("starts", 7), ("queues", 1000), ("connections", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    print(
        f"shmq {shmq.__version__}; {platform.python_implementation()} {platform.python_version()}; "
        f"{platform.system()} {platform.release()}; load before: {os.getloadavg()[0]:.2f}"
    )
    return 0 if measure(**vars(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
