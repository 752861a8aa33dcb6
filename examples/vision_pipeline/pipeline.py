"""One run as its main process sees it: publish, watch, kill one worker, collect, count.

The story, told by the share of tiles that are done: at LATE the urgent photograph is published and overtakes all
others; at KILL a worker dies of SIGKILL while it holds unacked tiles.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

import shmq

from .photos import TileFile
from .topology import DEAD_LETTERS, RESULT, RESULTS, STAGES, URGENT_PRIORITY, carried_on, first_headers
from .workers import Workers

LATE, KILL = 0.2, 0.5
KILLED_STAGE = "features"
STALLED_S = 20.0  # without a result: give up and say what is lost


@dataclass(frozen=True)
class Result:
    """What came out for one tile; times are seconds since the start of the run."""

    values: Any  # a RESULT record
    finished_s: float
    headers: Mapping[str, Any]


@dataclass
class Outcome:
    """What went in and what came out, by tile id."""

    published_s: dict[str, float] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    dead_letters: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # headers
    duplicates: int = 0

    @property
    def lost(self) -> set[str]:
        """The ids that went in and are neither a result nor a dead letter (yet)."""
        return self.published_s.keys() - self.results.keys() - self.dead_letters.keys()


class Pipeline:
    """Drives one run. `tell` is called with a line for people, `show` with the number of settled tiles by stage."""

    def __init__(
        self,
        conn: shmq.Connection,
        workers: Workers,
        tell: Callable[[str], None],
        show: Callable[[Mapping[str, int]], None],
    ) -> None:
        self.outcome = Outcome()
        self._conn, self._workers, self._tell, self._show = conn, workers, tell, show
        self._start = self._moved = time.monotonic()

    def run(self, files: Sequence[TileFile]) -> Outcome:
        """Publish all files and collect until each is a result or a dead letter, or nothing moves any more."""
        results = self.outcome.results
        self.publish([file for file in files if not file.urgent], priority=0)
        self.collect_until(lambda: len(results) >= LATE * len(files))
        self._tell("the urgent photograph comes late, with priority")
        self.publish([file for file in files if file.urgent], priority=URGENT_PRIORITY)
        self.collect_until(lambda: len(results) >= KILL * len(files))
        self.kill_a_worker()
        self.collect_until(lambda: not self.outcome.lost and self.all_acked())
        return self.outcome

    def publish(self, files: Sequence[TileFile], priority: int) -> None:
        """Publish image files to the first stage."""
        for file in files:
            headers = first_headers(file.tile_id)
            self._conn.publish(file.content, routing_key=STAGES[0], headers=headers, priority=priority)
            self.outcome.published_s[file.tile_id] = self.now_s()

    def kill_a_worker(self) -> None:
        """Kill with -9 one worker that holds unacked tiles: another one if the first was between two batches."""
        before = self.redelivered(KILLED_STAGE)
        while self.redelivered(KILLED_STAGE) == before and not self.stalled():
            self._tell(f"kill -9 {self._workers.kill(KILLED_STAGE)}, one of the {KILLED_STAGE} workers")
            deadline_s = self.now_s() + 1
            while self.redelivered(KILLED_STAGE) == before and self.now_s() < deadline_s:
                self.collect()
        self._tell("what it held unacked is redelivered")

    def redelivered(self, stage: str) -> int:
        """Return how many deliveries of this stage were made again."""
        return self._conn.queue_info(stage).totals["requeued"]

    def collect_until(self, reached: Callable[[], bool]) -> None:
        """Take results and dead letters until `reached`, or until nothing has moved for long."""
        while not reached() and not self.stalled():
            self.collect()

    def collect(self) -> None:
        """Take what is there, or comes soon; replace dead workers; show how far it is."""
        for message in self._conn.get_batch(RESULTS, max_messages=64, max_wait=0.05):
            self.take_result(message)
        while letter := self._conn.get(DEAD_LETTERS, timeout=0):
            self.outcome.dead_letters[letter.headers["tile_id"]] = letter.headers
            letter.ack()
        self._workers.tend()
        self._show(self.settled())

    def take_result(self, message: shmq.Message) -> None:
        """Keep the first result of each tile; a worker that died before its ack may have caused a second."""
        tile_id = message.headers["tile_id"]
        if tile_id in self.outcome.results:
            self.outcome.duplicates += 1
        else:
            values = np.frombuffer(message.view(), RESULT)[0].copy()
            headers = carried_on(message, time.monotonic_ns())
            self.outcome.results[tile_id] = Result(values, self.now_s(), headers)
            self._moved = time.monotonic()
        message.ack()

    def settled(self) -> dict[str, int]:
        """Return how many tiles each stage need not wait for any more: handed on, or dead there or before."""
        totals = {stage: self._conn.queue_info(stage).totals for stage in STAGES}
        dead = accumulate(counts["dead"] for counts in totals.values())
        done = {stage: totals[stage]["acked"] + gone for stage, gone in zip(totals, dead, strict=True)}
        return done | {RESULTS: len(self.outcome.results) + len(self.outcome.dead_letters)}

    def all_acked(self) -> bool:
        """Whether the queues are empty: a worker acks after the last result is here, and a duplicate may follow."""
        infos = [self._conn.queue_info(queue) for queue in (*STAGES, RESULTS)]
        return not any(info.messages or info.unacked for info in infos)

    def stalled(self) -> bool:
        """Whether nothing has come out for long."""
        return time.monotonic() - self._moved > STALLED_S

    def now_s(self) -> float:
        """Return the seconds since the start of the run."""
        return time.monotonic() - self._start
