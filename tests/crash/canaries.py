"""Small workers that notice what clients must not notice: a direct pair that plays ping-pong, and one that waits.

Owns: what they measure. Does not own: what it is compared with. Invariant: a stall is the time that an exchange took
beyond what its two processes waited for a processor: that is the host's, not the broker's.
"""

import os
import select
import struct
import time
from pathlib import Path
from typing import Any, Final

import shmq
from crash.logbook import STEPS, WORST, Logbook
from crash.plan import Life

PAUSE: Final = 0.001  # between two exchanges: a canary must not be the load
PATIENCE: Final = 5.0
DELAY: Final = struct.Struct("<Q")


def open_schedstat(pid: int | str = "self") -> int:
    """Return a descriptor for `run_delay_ns`."""
    return os.open(Path(f"/proc/{pid}/schedstat"), os.O_RDONLY)


def run_delay_ns(fd: int) -> int:
    """How long a process has waited for a processor, so far (proc(5): schedstat, second number)."""
    return int(os.pread(fd, 64, 0).split()[1])


def echo(life: Life, conn: shmq.Connection, log: Logbook) -> None:
    """Answer each message of the first queue in the second, with the time this process has waited for a processor."""
    fd = open_schedstat()
    there, back = (rules.name for rules in life.queues)
    for message in conn.consume(there, prefetch=1):
        conn.publish(DELAY.pack(run_delay_ns(fd)), routing_key=back)
        message.ack()
        log.words[STEPS] += 1


def ping(life: Life, conn: shmq.Connection, log: Logbook) -> None:
    """Exchange messages with `echo` until told to stop; `words[WORST]` is the longest stall in nanoseconds."""
    fd = open_schedstat()
    there, back = (rules.name for rules in life.queues)
    _exchange(conn, there, back)
    theirs = _exchange(conn, there, back)
    while not log.has_to_stop:
        ours, started = run_delay_ns(fd), time.monotonic_ns()
        answer = _exchange(conn, there, back)
        took = time.monotonic_ns() - started
        stall = took - (run_delay_ns(fd) - ours) - (answer - theirs)
        theirs = answer
        log.words[WORST] = max(log.words[WORST], stall, 0)
        log.words[STEPS] += 1
        select.select([], [], [], PAUSE)


def _exchange(conn: shmq.Connection, there: str, back: str) -> int:
    conn.publish(b"ping", routing_key=there)
    message = conn.get(back, timeout=PATIENCE)
    assert message is not None, f"no answer within {PATIENCE:g} s"
    (delay,) = DELAY.unpack(message.body)
    message.ack()
    return int(delay)


def wait(life: Life, conn: shmq.Connection, log: Logbook) -> None:
    """Wait for messages of the first queue; `words[STEPS]` says how many came."""
    message: Any
    for message in conn.consume(life.queues[0].name, prefetch=1):
        message.ack()
        log.words[STEPS] += 1
