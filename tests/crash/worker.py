"""One life of a worker process, from its connection to its end, which is mostly a SIGKILL.

Owns: the connection, the life's begin and end in the logbook, what goes wrong. Does not own: the work (producing.py,
consuming.py), the process (zygote.py).
"""

import select
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import shmq
from crash import canaries, owning
from crash.consuming import Consumer
from crash.history import Outcome
from crash.logbook import READY, Logbook
from crash.plan import Life, connects_in
from crash.producing import Producer
from support.deadline import scaled

CONNECT_SECONDS: Final = 10.0
ROLES: Final[dict[str, Callable[[Life, shmq.Connection, Logbook], None]]] = {
    "publish": lambda life, conn, log: Producer(life, conn, log).work(),
    "consume": lambda life, conn, log: Consumer(life, conn, log).work(),
    "echo": canaries.echo,
    "ping": canaries.ping,
    "wait": canaries.wait,
    "own": owning.own,
}


def live(life: Life) -> int:
    """Live it. Returns the exit status; what should never have happened is written beside the logbook."""
    log = Logbook(Path(life.logbook))
    queues = Consumer.choose(life)[1] if life.role == "consume" else ()
    by_frames = life.mode == "socket" or any(life.queues[queue].single_active for queue in queues)
    log.begin(life.incarnation, queues, socket=by_frames)
    try:
        _work(life, log)
    except Exception:  # noqa: BLE001 - a worker's last word, for the history
        with Path(life.logbook).with_suffix(".errors").open("a") as errors:
            errors.write(f"worker {life.worker}, life {life.incarnation}, {life.mode}:\n{traceback.format_exc()}\n")
        return 1
    return 0


def _connect(life: Life) -> shmq.Connection:
    """Connect; where there is no daemon at the moment, wait for the next one."""
    deadline = time.monotonic() + scaled(CONNECT_SECONDS)
    while True:
        try:
            return shmq.connect(life.url, mode=connects_in(life), timeout=CONNECT_SECONDS)
        except shmq.SessionError:
            if time.monotonic() > deadline:
                raise
            select.select([], [], [], 0.01)


def _work(life: Life, log: Logbook) -> None:
    conn = _connect(life)
    log.words[READY] = 1
    ROLES[life.role](life, conn, log)
    record = log.ending()
    conn.close()
    log.ended(record, Outcome.OK)
