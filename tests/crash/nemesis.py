"""Who kills: workers with SIGKILL at moments of chance, again and again, and each is followed by its next life.

Owns: the workers of a run, whom to kill and when, which kills count. Does not own: processes of the daemon
(test_daemon_kills.py), what the history must show. Invariant: a kill counts only if the victim's own words say that
it was inside a call of shmq, or held a message it had not settled; they are read when it is dead.
"""

import os
import random
import select
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from crash import consuming, owning, producing
from crash.history import Consumer, History
from crash.logbook import DOING, HELD, READY, STEPS, STOP, Logbook, read_into
from crash.plan import Life
from crash.zygote import Zygote
from support.deadline import scaled

SHORT_LIVES: Final = 0.1  # unless told otherwise
PAUSE_MAX: Final = 0.004
STOP_SECONDS: Final = 2.0
START_SECONDS: Final = 20.0
DOING_NAMES: Final = {
    0: "no call, with messages in hand",
    producing.SINGLE: "publish",
    producing.BATCH: "publish_many, loan",
    producing.BARRIER: "wait_for_confirms",
    consuming.TAKE: "get, consume",
    consuming.SETTLE: "ack, nack, reject",
    owning.OWN: "a queue of its own",
}


@dataclass
class Worker:
    """A worker in its present life."""

    life: Life
    log: Logbook
    pid: int = 0
    pidfd: int = -1
    killed: dict[Consumer, tuple[int, int]] = field(default_factory=dict)


class Workers:
    """All workers of a run. short_lives: the share of lives that end by themselves."""

    def __init__(
        self, zygote: Zygote, folder: Path, lives: list[Life], dice: random.Random, *, short_lives: float = SHORT_LIVES
    ) -> None:
        self._zygote = zygote
        self._short_lives = short_lives
        self._dice = dice
        self._errors: list[str] = []
        self.counted: Counter[str] = Counter()
        self.kills = 0
        self.workers = [Worker(life, Logbook(folder / f"{life.worker}.log", create=True)) for life in lives]
        for worker in self.workers:
            self._start(worker)

    @property
    def victims(self) -> int:
        """How many kills counted."""
        return sum(self.counted.values())

    # -- lives --------------------------------------------------------------------------------------------------------

    def _start(self, worker: Worker) -> None:
        worker.log.words[READY] = 0
        worker.pid = self._zygote.fork(worker.life)
        worker.pidfd = os.pidfd_open(worker.pid)

    def _buried(self, worker: Worker) -> int:
        """Wait for a worker's end."""
        select.select([worker.pidfd], [], [], scaled(START_SECONDS))
        os.close(worker.pidfd)
        worker.pidfd = -1
        return self._zygote.reap(worker.pid)

    def _next_life(self, worker: Worker) -> None:
        worker.life = replace(
            worker.life, incarnation=worker.life.incarnation + 1, ends_by_itself=self._dice.random() < self._short_lives
        )
        self._start(worker)

    def restart_the_ended(self) -> None:
        """Give a next life to those who came to their own end."""
        poll = select.poll()
        by_fd = {worker.pidfd: worker for worker in self.workers if worker.pidfd >= 0}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(0):
            code = self._buried(by_fd[fd])
            if code:
                self._errors.append(f"worker {by_fd[fd].life.worker} ended with {code}")
            self._next_life(by_fd[fd])

    def _kill(self, worker: Worker) -> None:
        before = time.monotonic_ns()
        os.kill(worker.pid, signal.SIGKILL)
        code = self._buried(worker)
        if code != -signal.SIGKILL:  # it was over before we came
            return
        who = Consumer(worker.life.worker, worker.life.incarnation)
        worker.killed[who] = (before, time.monotonic_ns())
        self.kills += 1
        doing, held = worker.log.words[DOING], worker.log.words[HELD]
        if doing or held:
            self.counted[DOING_NAMES[doing]] += 1

    # -- the nemesis --------------------------------------------------------------------------------------------------

    def kill_until(self, counted: int, seconds: float) -> None:
        """Kill one at a time, at random, until so many kills counted."""
        deadline = time.monotonic() + scaled(seconds)
        while self.victims < counted:
            assert time.monotonic() < deadline, f"only {self.victims} of {counted} kills counted in {seconds} s"
            self.restart_the_ended()
            worker = self._dice.choice(self.workers)
            select.select([], [], [], self._dice.uniform(0, PAUSE_MAX))
            if worker.log.words[READY] and worker.log.words[STEPS] >= self._dice.randint(0, 5):
                self._kill(worker)
                self._next_life(worker)

    def end(self) -> None:
        """Kill all, for workers whose history nobody wants."""
        for worker in self.workers:
            self._kill(worker)

    def stop(self) -> None:
        """Let all come to their end; who still waits for messages then is killed as any."""
        for worker in self.workers:
            worker.log.words[STOP] = 1
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            ended = select.select([worker.pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]
            if ended:
                if self._buried(worker):
                    self._errors.append(f"worker {worker.life.worker} ended badly")
            else:
                self._kill(worker)

    # -- the history --------------------------------------------------------------------------------------------------

    def read_into(self, history: History) -> None:
        """Add what all have written, and who was killed."""
        history.errors += self._errors
        for worker in self.workers:
            lives = read_into(history, worker.life.worker, worker.log.records())
            history.ends += [
                life.as_end(killed=worker.killed.get(who))
                for who, life in lives.items()
                if who in worker.killed or life.ended
            ]
            errors = Path(worker.life.logbook).with_suffix(".errors")
            if errors.exists():
                history.errors.append(errors.read_text())
            worker.log.close()
