"""Who kills processes of the daemon under clients at work, and waits for their successors.

Owns: which process, when, how long its successor took, how long direct clients stood still meanwhile. Does not own:
what the history must show. Invariant: what successors waited for a processor while starting is not counted: that is
the host's load, ours and others'.
"""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import shmq
from crash.canaries import open_schedstat, run_delay_ns
from crash.history import Outage
from crash.logbook import STEPS, WORST
from crash.nemesis import Workers
from crash.plan import Mode, Role
from crash.run import Run
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd

Victim = Literal["master", "broker", "supervisor", "all"]
UNWANTED: Final = re.compile(r'event="(process|request) failed"|event="child ended".*exit_code=(?!-9\b)|Traceback')
WORK_STEPS: Final = 100  # of the canaries together between two kills
WORKERS: Final[list[tuple[Role, Mode]]] = [
    ("publish", "direct"),
    ("publish", "socket"),
    ("consume", "direct"),
    ("consume", "socket"),
    ("consume", "socket"),
    ("consume", "direct"),
]


@dataclass
class Deaths:
    """A finished run, the seconds after which each successor was there, and the longest stall of direct clients."""

    run: Run
    back: list[float]
    stall_ns: int


def kill_at_work(daemon: Shmqd, folder: Path, number: int, victim: Victim, kills: int) -> Deaths:
    """Kill the victim again and again, each time when everybody works."""
    with Run(number, daemon.url, folder, WORKERS, calm=True) as run:
        queues = [f"ping-{number}", f"pong-{number}"]
        canaries = run.canaries(("echo", "direct", queues), ("ping", "direct", queues))
        _wait_for_steps(canaries, 10)
        back = [_kill_once(daemon, run, canaries, victim) for _ in range(kills)]
        stall_ns = canaries.workers[1].log.words[WORST]
        canaries.end()
        run.finish()
        with daemon.connect() as conn:
            for queue in queues:
                conn.delete_queue(queue)
    run.history.errors += complaints(daemon)
    return Deaths(run, back, stall_ns)


def complaints(daemon: Shmqd) -> list[str]:
    """What the daemon's log says of deaths that nobody here has caused, and of faults."""
    return [line for line in daemon.log.read_text().splitlines() if UNWANTED.search(line)]


def _kill_once(daemon: Shmqd, run: Run, canaries: Workers, victim: Victim) -> float:
    enough = _steps(canaries) + WORK_STEPS
    wait_until(lambda: _steps_with_next_lives(canaries, run.workers) >= enough, "everybody works", 20.0)
    outage = kill(daemon, victim)
    run.history.outages.append(outage)
    successors = [daemon.pid, daemon.child("broker")] if victim == "master" else [daemon.child(victim)]
    return (outage.after - outage.before - sum(map(_waited_ns, successors))) / 1e9


def kill(daemon: Shmqd, victim: Victim) -> Outage:
    """Kill a process of the daemon, and wait for its successor."""
    pid = daemon.pid if victim in {"master", "all"} else daemon.child(victim)
    started = time.monotonic_ns()
    if victim == "all":
        daemon.kill_all()
    else:
        os.kill(pid, signal.SIGKILL)
    if victim in {"master", "all"}:
        assert daemon.process is not None
        daemon.process.wait(scaled(5))
        daemon.start()
    else:
        wait_until(lambda: pid_of(daemon, victim) not in {pid, 0}, f"{victim} is back", 10.0)
    ended = time.monotonic_ns()
    return Outage(started, ended, broker=victim != "supervisor", supervisor=victim != "broker")


def _waited_ns(pid: int) -> int:
    fd = open_schedstat(pid)
    try:
        return run_delay_ns(fd)
    finally:
        os.close(fd)


def pid_of(daemon: Shmqd, role: str) -> int:
    """The pid the broker knows; 0 while there is no broker, or it knows none."""
    try:
        return daemon.child(role)
    except (shmq.ShmqError, StopIteration):
        return 0


def _steps(workers: Workers) -> int:
    return sum(worker.log.words[STEPS] for worker in workers.workers)


def _steps_with_next_lives(canaries: Workers, workers: Workers) -> int:
    workers.restart_the_ended()
    return _steps(canaries)


def _wait_for_steps(workers: Workers, steps: int) -> None:
    wait_until(lambda: all(worker.log.words[STEPS] >= steps for worker in workers.workers), "canaries sing", 20.0)
