"""What does it cost the traffic that somebody reads statistics? `shmqctl queues`, twice a second, beside shmq-perf.

    python benchmarks/reading.py [--pairs 15] [--messages 3000000] [--queues 20]

Runs with and without the reader follow each other, in turns; the figure is the median of what a run with it carried
against the one before without. Both cores are busy with the traffic, so the reader's own time is in it.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence

import shmq

COST = 0.02  # the figure to meet
SECONDS = 0.5  # between two looks


@contextlib.contextmanager
def reader(url: str) -> Iterator[None]:
    """Read statistics until the end of the `with`."""
    command = [sys.executable, "-m", "shmq_clients.cli", "queues", "--watch", str(SECONDS), "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own module
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def rate(url: str, messages: int) -> float:
    """Return the messages a second of one run."""
    command = [
        sys.executable,
        "-m",
        "shmq_clients.perf.main",
        "-h",
        url,
        "-u",
        "traffic",
        "-p",
        "--json",
        "--no-latency",
    ]
    done = subprocess.run([*command, "-C", str(messages)], capture_output=True, text=True, check=True)  # noqa: S603 - our own
    return float(json.loads(done.stdout)["consumed_per_s"])


def measure(pairs: int, messages: int, queues: int) -> float:
    """Print each pair. Returns what reading costs, as a share of the traffic."""
    ratios = []
    with shmq.local() as url, shmq.connect(url) as conn:
        conn.declare_queue("traffic", capacity_messages=100_000)
        for number in range(queues - 1):
            conn.declare_queue(f"beside-{number}")
        for number in range(1, pairs + 1):
            alone = rate(url, messages)
            with reader(url):
                watched = rate(url, messages)
            ratios.append(watched / alone)
            print(f"{number:3}: {alone:>11,.0f} msg/s alone, {watched:>11,.0f} watched, {ratios[-1]:.3f}x", flush=True)
    return 1 - statistics.median(ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 where the figure to meet is not met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("pairs", 15), ("messages", 3_000_000), ("queues", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    print(
        f"shmq {shmq.__version__}; {platform.python_implementation()} {platform.python_version()}; "
        f"{platform.system()} {platform.release()}; load before: {os.getloadavg()[0]:.2f}"
    )
    cost = measure(**vars(parser.parse_args(arguments)))
    print(f"reading every {SECONDS} s costs {cost:+.1%} of the traffic (median), to meet: {COST:.0%}: ", end="")
    print("met" if cost <= COST else "NOT MET")
    return int(cost > COST)


if __name__ == "__main__":
    sys.exit(main())
