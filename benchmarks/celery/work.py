"""One worker, and the questions it answers: tasks a second, time to start, what waits for its ETA.

Owns: the measurements of one broker in one round. Does not own: rounds and tables (__main__), brokers.
Each figure is taken by Celery's own calls, and is the same for all brokers: a first and a last task write down when
they began; between them are tasks that do nothing.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped] # ships no types
from celery import Celery

from benchmarks.celery.brokers import Broker
from benchmarks.celery.tasks import URL

PATIENCE: Final = 180.0
LOOK: Final = 0.01
PACE: Final = 0.01  # seconds between tasks whose start is timed
HOUR: Final = 3600
QUIET_SECONDS: Final = 3
IDLING: Final = 0.1  # seconds of a core in a second
ROOT: Final = Path(__file__).parents[2]


@contextmanager
def worker(broker: Broker, log: Path) -> Iterator[psutil.Process]:
    """Run a worker with two processes, all else as Celery has it."""
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery.tasks", "worker", "-c", "2", "-l", "WARNING"]
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [*command, "-n", f"bench@{broker.name}"],
            stdout=out,
            stderr=out,
            cwd=ROOT,
            env=os.environ | {URL: broker.url},
            process_group=0,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def application(broker: Broker) -> Any:  # noqa: ANN401 - Celery has no types
    """Somebody who sends tasks."""
    return Celery("sender", broker=broker.url, set_as_current=False)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Look until it holds; the run ends where it does not."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {PATIENCE:g} s: {what}")
        time.sleep(LOOK)  # to the next look


def marks(path: Path) -> list[tuple[float, float]]:
    """When tasks were sent and began."""
    if not path.exists():
        return []
    return [(float(sent), float(began)) for sent, began in map(str.split, path.read_text().splitlines())]


def send(app: Any, path: Path, count: int) -> None:  # noqa: ANN401 - Celery's
    """Send a mark, many tasks that do nothing, and another mark."""
    app.send_task("mark", (str(path), time.monotonic()), ignore_result=True)
    for _ in range(count):
        app.send_task("nothing", ignore_result=True)
    app.send_task("mark", (str(path), time.monotonic()), ignore_result=True)


def rate(path: Path, count: int) -> float:
    """Return how many were done a second, when both marks are there."""
    wait_until(lambda: len(marks(path)) == 2, f"{count} tasks are done")  # noqa: PLR2004 - the first and the last
    (_, first), (_, last) = sorted(marks(path), key=lambda mark: mark[1])
    return count / (last - first)


def throughput(broker: Broker, folder: Path, count: int, starts: int) -> dict[str, float]:
    """Tasks queued before there is a worker; then live; then one by one, each timed from its sending to its start."""
    app, queued, live, timed = application(broker), folder / "queued", folder / "live", folder / "timed"
    for path in (queued, live, timed):
        path.unlink(missing_ok=True)
    before = broker.processor_seconds()
    send(app, queued, count)
    with worker(broker, folder / "worker.log"):
        figures = {"queued": rate(queued, count)}
        send(app, live, count)
        figures["live"] = rate(live, count)
        figures["broker"] = (broker.processor_seconds() - before) / (2 * count) * 1e6
        for _ in range(starts):
            app.send_task("mark", (str(timed), time.monotonic()), ignore_result=True)
            time.sleep(PACE)  # one at a time: none waits behind another
        wait_until(lambda: len(marks(timed)) == starts, "all have started")
    figures["start"] = statistics.median(began - sent for sent, began in marks(timed)) * 1e3
    app.close()
    return figures


def waiting(broker: Broker, folder: Path, count: int) -> dict[str, float]:
    """What a worker's memory grows by when tasks are sent that are due in an hour, and what the broker's does."""
    app, path = application(broker), folder / "eta"
    path.unlink(missing_ok=True)
    with worker(broker, folder / "worker.log") as process:
        app.send_task("mark", (str(path), 0.0), ignore_result=True)
        wait_until(lambda: len(marks(path)) == 1, "the worker works")
        before, brokers_own = process.memory_info().rss, broker.memory_mib()
        begun = time.monotonic()
        for _ in range(count):
            app.send_task("nothing", countdown=HOUR, ignore_result=True)
        took = time.monotonic() - begun
        settle(process, broker)
        grown = (process.memory_info().rss - before) / 2**20
        own = broker.memory_mib() - brokers_own
        held = app.control.inspect(timeout=10).scheduled() or {}
        process.kill()  # a warm end would give them all back, one by one
    app.control.purge()
    app.close()
    return {"count": count, "sent": count / took, "held": sum(map(len, held.values())), "worker": grown, "broker": own}


def settle(process: psutil.Process, broker: Broker) -> None:
    """Wait until neither the worker nor the broker has had anything to do for some seconds."""
    deadline, quiet, before = time.monotonic() + PATIENCE, 0, 0.0
    while quiet < QUIET_SECONDS and time.monotonic() < deadline:
        time.sleep(1)  # a look a second
        now = float(sum(process.cpu_times()[:2])) + broker.processor_seconds()
        quiet = quiet + 1 if now - before < IDLING else 0
        before = now
