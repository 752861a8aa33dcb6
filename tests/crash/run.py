"""One run from its plan to its verdict: workers at work, faults, everything healed and drained, the history checked.

Owns: the order of these steps. Does not own: each of them. Invariant: a run in which nothing happened, or in which
fewer than 1,000 messages were confirmed, shows nothing and fails.
"""

import os
import random
import select
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import shmq
from crash import bodies, checker, counters, kinds, owning
from crash.consuming import Consumer
from crash.history import History, QueueRules
from crash.logbook import Logbook, read_into
from crash.nemesis import SHORT_LIVES, Workers
from crash.plan import ASKING, WAYS, Life, Mode, Role, connects_in, declare, queues_of
from crash.zygote import Zygote
from shmq import core
from support.deadline import scaled

CANARY: Final = 100  # number of the first one
CONFIRMED_MIN: Final = 1_000
DRAIN_SECONDS: Final = 20.0
HEAL_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 0.3  # without a message and with every counter at rest, before a queue counts as drained
SEED_VARIABLE: Final = "SHMQ_CRASH_SEED"


def seed() -> int:
    """The seed of a run: the one asked for, else a new one. It is printed, so that the run can be repeated."""
    number = int(os.environ.get(SEED_VARIABLE, "0")) or random.SystemRandom().randrange(1, 1 << 31)
    print(f"{SEED_VARIABLE}={number}")
    return number


class Run:
    """Workers of the given modes at the queues of one seed. calm: nobody kills them, they end by themselves.
    every_kind: queues and exchanges are those of kinds.py.
    """

    def __init__(
        self,
        number: int,
        url: str,
        folder: Path,
        roles: list[tuple[Role, Mode]],
        *,
        calm: bool = False,
        every_kind: bool = False,
    ) -> None:
        self.number = number
        self.url = url
        self.folder = folder
        self.every_kind = every_kind
        self.queues = kinds.queues_of(number) if every_kind else queues_of(number)
        self.routes = kinds.routes_of(number) if every_kind else ()
        self.copies = 0b101
        self.dice = random.Random(number)
        bodies.prepare(number)
        with shmq.connect(url) as conn:
            if every_kind:
                kinds.declare(conn, number)
            else:
                declare(conn, self.queues, self.copies)
        self.zygote = Zygote(number)
        lives = [
            replace(self._life(index, role, mode), ways=ASKING if calm and index % 2 else WAYS)
            for index, (role, mode) in enumerate(roles)
        ]
        self.workers = Workers(self.zygote, folder, lives, self.dice, short_lives=1.0 if calm else SHORT_LIVES)
        self.history = History(list(self.queues))

    def _life(self, worker: int, role: Role, mode: Mode) -> Life:
        logbook = str(self.folder / f"{worker}.log")
        return Life(
            run=self.number,
            worker=worker,
            incarnation=1,
            role=role,
            mode=mode,
            url=self.url,
            logbook=logbook,
            queues=self.queues,
            copies=self.copies,
            routes=self.routes,
            ends_by_itself=role == "consume" and self.dice.random() < 0.5,
        )

    def canaries(self, *kinds: tuple[Role, Mode, Sequence[str]]) -> Workers:
        """Start workers whose doings are no part of the history, at queues of their own."""
        lives = [
            replace(self._life(CANARY + index, role, mode), queues=tuple(map(QueueRules, queues)))
            for index, (role, mode, queues) in enumerate(kinds)
        ]
        with shmq.connect(self.url) as conn:
            for life in lives:
                for rules in life.queues:
                    conn.declare_queue(rules.name)
        return Workers(self.zygote, self.folder, lives, self.dice)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.zygote.close()

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish(self, *, drain_by: Mode = "direct") -> History:
        """Stop all, drain all queues, return the history."""
        self.workers.stop()
        self.zygote.close()
        self.workers.read_into(self.history)
        self._drain(drain_by)
        return self.history

    def _drain(self, mode: Mode) -> None:
        worker = len(self.workers.workers)
        log = Logbook(self.folder / f"{worker}.log", create=True)
        log.begin(1, range(len(self.queues)), socket=mode == "socket")
        life = self._life(worker, "consume", mode)
        with shmq.connect(self.url, mode=connects_in(life)) as conn, shmq.connect(self.url, mode="direct") as looking:
            segments = [looking._attachments.attach(rules.name).queue for rules in self.queues]
            consumer = Consumer(life, conn, log)
            self.drained = self._drain_all(conn, consumer, segments)
            self.rests = [self._rest(conn, queue, segment) for queue, segment in enumerate(segments)]
            if self.every_kind:
                left = owning.left_behind(conn)
                self.history.errors += [f"{name} did not go with its owner" for name in left]
                kinds.forget(conn, self.number)
            for rules in self.queues:
                conn.delete_queue(rules.name)
        read_into(self.history, worker, log.records())
        log.close()

    def _drain_all(self, conn: shmq.Connection, consumer: Consumer, segments: list[core.Queue]) -> list[int]:
        """Until nothing comes and nothing is expected any more; returns how many there were."""
        drained = [0] * len(self.queues)
        deadline = time.monotonic() + scaled(DRAIN_SECONDS)
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            for queue, segment in enumerate(segments):
                count = consumer.drain(queue)
                drained[queue] += count
                if count or not counters.is_at_rest(conn.queue_info(self.queues[queue].name).totals, _held(segment)):
                    quiet_since = time.monotonic()
            if time.monotonic() > deadline:
                self.history.errors.append(f"still not drained after {DRAIN_SECONDS:g} s")
                break
        return drained

    def _rest(self, conn: shmq.Connection, queue: int, segment: core.Queue) -> counters.Rest:
        """What is left of a drained queue, looked at in its segment once the healer had its time."""
        deadline = time.monotonic() + scaled(HEAL_SECONDS)
        while (faults := segment.check()) and time.monotonic() < deadline:
            select.select([], [], [], 0.01)
        return counters.Rest(queue, conn.queue_info(self.queues[queue].name).totals, segment.count_states(), faults)

    def verdict(self) -> list[checker.Violation]:
        """What is wrong with this run."""
        found = checker.check(self.history)
        found += [checker.Violation("conservation", text) for text in counters.check(self.history, self.rests)]
        confirmed = self.history.confirmed()
        if confirmed < CONFIRMED_MIN:
            found.append(checker.Violation("idle", f"only {confirmed} messages were confirmed"))
        return found


def _held(segment: core.Queue) -> int:
    """How many slots are not free."""
    return sum(count for state, count in segment.count_states().items() if state != core.FREE)
