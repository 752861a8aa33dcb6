"""Run it all on a broker of its own: `python -m examples.celery_app`. Prints what came of it; 1 when something did not.

The order of things: tasks are sent before any worker is there, and wait in shared memory.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import shmq

from . import tasks

PATIENCE = 60.0
WORKER = [sys.executable, "-m", "celery", "-A", "examples.celery_app.tasks", "worker", "-c", "1", "-l", "WARNING"]
TEXT = "a message is kept until a worker has done what a message asks for"
MOST = {"a": 3, "message": 2, "is": 1}


def run(url: str, folder: Path) -> bool:
    """Send tasks, start a worker, wait for the results."""
    tasks.app.conf.broker_url = url
    calm = [tasks.report.apply_async(("calm",), priority=0) for _ in range(3)]
    urgent = tasks.report.apply_async(("urgent",), priority=9)
    later = tasks.report.apply_async(("later",), countdown=3600)
    with subprocess.Popen(WORKER, env=os.environ | {"SHMQ_URL": url}) as worker:  # noqa: S603 - our own interpreter
        try:
            first = urgent.get(timeout=PATIENCE) < min(one.get(timeout=PATIENCE) for one in calm)
            print("the urgent task came first:", first)
            print("words:", words := tasks.count_words.delay(TEXT).get(timeout=PATIENCE))
            print("killed in the middle:", again := tasks.fragile.delay(str(folder / "mark")).get(timeout=PATIENCE))
            in_hand = (tasks.app.control.inspect(timeout=5).scheduled() or {}).values()
            with shmq.connect(url) as connection:
                held = connection.queue_info("celery").totals["delayed"]
            print(f"due in an hour: {held} held by the broker, {sum(map(len, in_hand))} by the worker ({later.id[:8]})")
        finally:
            worker.terminate()
    tasks.app.close()
    return first and words == MOST and again.startswith("done") and held == 1


def main() -> int:
    """Run, with a broker that is gone at the end."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, shmq.local() as url:
        good = run(url, Path(folder))
    print(f"{'all as it should be' if good else 'NOT as it should be'}, {time.monotonic() - begun:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
