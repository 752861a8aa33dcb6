"""One life of a worker process, from its connection to its end, which is mostly a SIGKILL.

Owns: the connection, the life's begin and end in the logbook, what goes wrong. Does not own: the work (producing.py,
consuming.py), the process (zygote.py).
"""

import traceback
from pathlib import Path

import shmq
from crash.consuming import Consumer
from crash.history import Outcome
from crash.logbook import READY, Logbook
from crash.plan import Life
from crash.producing import Producer


def live(life: Life) -> int:
    """Live it. Returns the exit status; what should never have happened is written beside the logbook."""
    log = Logbook(Path(life.logbook))
    queues = Consumer.choose(life)[1] if life.role == "consume" else ()
    log.begin(life.incarnation, queues, socket=life.mode == "socket")
    try:
        _work(life, log)
    except Exception:  # noqa: BLE001 - a worker's last word, for the history
        with Path(life.logbook).with_suffix(".errors").open("a") as errors:
            errors.write(f"worker {life.worker}, life {life.incarnation}, {life.mode}:\n{traceback.format_exc()}\n")
        return 1
    return 0


def _work(life: Life, log: Logbook) -> None:
    conn = shmq.connect(life.url, mode=life.mode, timeout=10.0)
    log.words[READY] = 1
    work = Producer(life, conn, log) if life.role == "publish" else Consumer(life, conn, log)
    work.work()
    record = log.ending()
    conn.close()
    log.ended(record, Outcome.OK)
