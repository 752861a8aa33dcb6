"""The tasks: as little as Celery allows, so that what is measured is everything else. For workers of the run."""

import os
import time

from celery import Celery

URL = "SHMQ_BENCH_BROKER"  # in the environment

app = Celery("bench", broker=os.environ.get(URL))
app.conf.update(task_ignore_result=True)


@app.task(name="nothing")
def nothing() -> None:
    """Do nothing."""


@app.task(name="mark")
def mark(path: str, sent: float) -> None:
    """Add a line: when this was sent and when it began, by the clock that all processes share."""
    line = f"{sent!r} {time.monotonic()!r}\n".encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line)
    os.close(descriptor)
