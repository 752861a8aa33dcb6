"""The application: settings that make Celery keep its promises, and three tasks.

`celery -A examples.celery_app.tasks worker` runs it, against the daemon that $SHMQ_URL names, or this user's.
"""

import os
import signal
import time
from collections import Counter
from pathlib import Path

# Neither has types of its own, nor has Celery's decorator.
from celery import Celery  # type: ignore[import-not-found, import-untyped, unused-ignore]
from kombu import Queue  # type: ignore[import-not-found, import-untyped, unused-ignore]

app = Celery("celery_app", broker=os.environ.get("SHMQ_URL", "shmq://"), backend="rpc://")
app.conf.update(
    task_acks_late=True,  # acked when it is done, so that a death in between loses nothing
    task_reject_on_worker_lost=True,  # and so for the death of a process of the pool
    worker_prefetch_multiplier=1,  # one task reserved for each process: what waits, waits in the queue
    task_queues=[Queue("celery", max_priority=9)],
)


@app.task  # type: ignore[misc, untyped-decorator, unused-ignore] # as above
def count_words(text: str) -> dict[str, int]:
    """Return the three most frequent words."""
    return dict(Counter(text.lower().split()).most_common(3))


@app.task  # type: ignore[misc, untyped-decorator, unused-ignore] # as above
def report(subject: str) -> float:
    """Return when it was run; give it a priority or a countdown."""
    del subject
    return time.time()


@app.task  # type: ignore[misc, untyped-decorator, unused-ignore] # as above
def fragile(mark: str) -> str:
    """Die with the process the first time, as by the kernel's OOM killer; succeed the second time."""
    first = not Path(mark).exists()
    Path(mark).touch()
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done by the second process"
