"""The tasks that the suite of Celery gives to its workers: `celery -A support.celery_tasks worker`.

What they did stands in files, a line for each time: that survives the death of whoever did it. The settings are those
of the process that started the worker (support.celery_worker).
"""

import json
import os
import signal
import time
from pathlib import Path

from celery import Celery

SETTINGS = "SHMQ_TEST_CELERY"  # in the environment, as JSON
PATIENCE = 60.0  # of a task that waits to be let go

app = Celery("suite")
app.conf.update(json.loads(os.environ.get(SETTINGS, "{}")))


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="total")
def total(numbers: list[int], path: str) -> None:
    """Add a line with the sum."""
    write(path, str(sum(numbers)))


@app.task(name="pid")
def pid() -> int:
    return os.getpid()


@app.task(name="note")
def note(path: str, text: str) -> None:
    """Add a line, in one write."""
    write(path, text)


@app.task(name="when")
def when(path: str) -> None:
    """Add the time at which this runs."""
    write(path, repr(time.time()))


@app.task(name="hold")
def hold(path: str, text: str) -> str:
    """Say that it has begun and end when the file `<path>.go` is there."""
    write(path, text)
    go, deadline = Path(f"{path}.go"), time.monotonic() + PATIENCE
    while not go.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody made {go}")
        time.sleep(0.005)  # to the next look
    return text


@app.task(name="die_once")
def die_once(path: str) -> None:
    """Kill the process that runs it, the first time."""
    first = not Path(path).exists()
    write(path, str(os.getpid()))
    if first:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="nap")
def nap(path: str, text: str, seconds: float) -> None:
    """Add a line, after a while."""
    time.sleep(seconds)
    write(path, text)


def write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)
