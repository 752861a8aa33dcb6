"""The slow work that goes round all queues: recovery after a start, healing, expiry, ack timeouts.

Owns: whose turn it is, and how much of a core it may cost. Does not own: what is done to a queue (the core), giving
memory back (arenas.py), how much of it there is (watermark.py).
Invariants: a step is bounded; sweeping costs at most 1/DUTY of a core, however many queues there are; queues with an
ack timeout are looked at twice a second, and memory is given back, all the same; a queue in which a client died is
looked at next, as often as it takes the healer to find what the death left half done.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

from shmq_daemon import segments
from shmq_daemon.arenas import Arenas
from shmq_daemon.dead_letters import Alarms
from shmq_daemon.log import Logger
from shmq_daemon.watched import Quarantine, Watched

TICK_NS: Final = 250_000_000
DUTY: Final = 800  # for each nanosecond of sweeping, so many of rest
QUEUES_PER_TICK: Final = 16
HEAL_APART_NS: Final = 200_000_000  # between two looks at one queue
HURRY_NS: Final = 110_000_000  # between two looks at a queue in which a client died: the healer wants 100 ms
HURRIED_LOOKS: Final = 3  # one may have been under way; then two
SLOTS_PER_LOOK: Final = 16_384  # of the core's healer
TIMEOUT_LOOK_NS: Final = 500_000_000
NS_PER_MS: Final = 1_000_000
CANT_GROW: Final = "queue-cant-grow"
HELD: Final = ("ready", "unacked", "delayed", "dead_pending")
NEARLY_ALL: Final = 0.9
SLOT_BYTES: Final = 64  # of a slot beside its inline area


class Sweep:
    """Goes round."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        watched: dict[int, Watched],
        quarantine: Quarantine,
        alarms: Alarms,
        recover: Callable[[Watched], None],
        rescan: Callable[[Watched], None],
        look_at_rings: Callable[[Watched], None],
        look_at_memory: Callable[[int], None],
        log: Logger,
    ) -> None:
        self._watched = watched
        self._quarantine = quarantine
        self._alarms = alarms
        self._recover = recover
        self._rescan = rescan
        self._look_at_rings = look_at_rings
        self._look_at_memory = look_at_memory
        self._log = log
        self._round: deque[int] = deque()
        self._looked_ns: dict[int, int] = {}
        self._to_recover: deque[int] = deque()
        self._on_recovered: Callable[[], None] | None = None
        self._timeouts: set[int] = set()
        self._timeouts_due_ns = 0
        self._round_due_ns = 0
        self._hurried: dict[int, int] = {}  # queues in which a client died, and how many looks they still need
        self._hurry_due_ns = 0
        self._arenas = Arenas(watched, quarantine, log)
        self.counts: Counter[str] = Counter()

    @property
    def due_ns(self) -> int:
        """When there is work again."""
        giving = self._arenas.due_ns
        due_ns = self._round_due_ns if giving is None else min(giving, self._round_due_ns)
        return min(due_ns, self._hurry_due_ns) if self._hurried else due_ns

    @property
    def recovering(self) -> bool:
        return bool(self._to_recover)

    def add(self, watched: Watched) -> None:
        queue_id = watched.queue.queue_id
        self._round.append(queue_id)
        if watched.queue.definition.ack_timeout_ms is not None:
            self._timeouts.add(queue_id)

    def remove(self, watched: Watched) -> None:
        self._timeouts.discard(watched.queue.queue_id)
        self._arenas.forget(watched)
        self._looked_ns.pop(watched.queue.queue_id, None)  # the round drops what is gone by itself

    def hurry(self, watched: Watched, now_ns: int) -> None:
        """A client of this queue died: look for what it left half done without waiting for the round."""
        passes = 1 + watched.core.stats()["slots_used_high"] // SLOTS_PER_LOOK
        if not self._hurried:
            self._hurry_due_ns = now_ns + HURRY_NS
        self._hurried[watched.queue.queue_id] = HURRIED_LOOKS * passes

    def recover_all(self, then: Callable[[], None]) -> None:
        self._to_recover.extend(self._watched)
        self._on_recovered = then

    def tick(self, now_ns: int) -> None:
        """One queue's recovery, or what is due of the round."""
        if self._to_recover or self._on_recovered is not None:
            self._recover_one()
            return
        self._arenas.tick(now_ns)
        self._look_at_hurried(now_ns)
        if now_ns < self._round_due_ns:
            return
        # Not the clock: on a busy host that counts others' work, and healing would starve.
        before = time.thread_time_ns()
        self._look_round(now_ns)
        self._look_at_timeouts(now_ns)
        self._look_at_memory(now_ns)
        spent = time.thread_time_ns() - before
        self._round_due_ns = now_ns + max(TICK_NS, spent * DUTY)
        if self._timeouts:
            self._round_due_ns = min(self._round_due_ns, self._timeouts_due_ns)
        self.counts.update(self._arenas.counts)
        self._arenas.counts.clear()

    def _recover_one(self) -> None:
        if self._to_recover:
            watched = self._watched.get(self._to_recover.popleft())
            if watched is not None:
                self._quarantine.run(watched, self._recover, None)
        if not self._to_recover and self._on_recovered is not None:
            then, self._on_recovered = self._on_recovered, None
            then()

    def _look_at_hurried(self, now_ns: int) -> None:
        if not self._hurried or now_ns < self._hurry_due_ns:
            return
        self._hurry_due_ns = now_ns + HURRY_NS
        for queue_id in list(self._hurried)[:QUEUES_PER_TICK]:
            looks, watched = self._hurried.pop(queue_id), self._watched.get(queue_id)
            if watched is None:
                continue
            if looks > 1:
                self._hurried[queue_id] = looks - 1  # behind the others
            self._looked_ns[queue_id] = now_ns
            self._quarantine.run(watched, lambda w: self._look_at(w, now_ns), None)

    def _look_round(self, now_ns: int) -> None:
        for _ in range(min(QUEUES_PER_TICK, len(self._round))):
            queue_id = self._round.popleft()
            watched = self._watched.get(queue_id)
            if watched is None:
                continue
            self._round.append(queue_id)
            if now_ns - self._looked_ns.get(queue_id, 0) >= HEAL_APART_NS:
                self._looked_ns[queue_id] = now_ns
                self._quarantine.run(watched, lambda w: self._look_at(w, now_ns), None)

    def _look_at(self, watched: Watched, now_ns: int) -> None:
        self._look_at_rings(watched)  # who has the bell of an earlier broker was not heard
        self.counts["expired"] += watched.core.expire_due(now_ns)
        found = watched.core.heal()
        rescan = found.pop("rescan", 0)
        healed = sum(found.values())
        if healed:
            self.counts["healed"] += healed
            tell = self._log.info if found.get("references") else self._log.debug  # bits lag behind a growing queue
            tell("queue healed", queue=watched.name, **found)
        if rescan:
            self._rescan(watched)
        figures = watched.core.stats()
        self._warn_of_failures(watched, figures["often_failed"])
        self._watch_growth(watched, figures)
        self._arenas.look(watched, figures, now_ns)

    def _warn_of_failures(self, watched: Watched, often_failed: int) -> None:
        """Nothing ends the rounds of a message that always fails, where there is neither a limit nor dead letters."""
        more = often_failed - watched.often_failed
        watched.often_failed = often_failed
        if more > 0:
            self._log.warning(
                "messages failed 20 times, and nothing limits that",
                queue=watched.name,
                messages=more,
                hint="set x-delivery-limit or x-dead-letter-exchange; x-delivery-limit = -1 says that it is meant",
            )

    def _look_at_timeouts(self, now_ns: int) -> None:
        if now_ns < self._timeouts_due_ns:
            return
        self._timeouts_due_ns = now_ns + TIMEOUT_LOOK_NS
        for queue_id in self._timeouts:
            watched = self._watched.get(queue_id)
            if watched is not None:
                self._quarantine.run(watched, lambda w: self._requeue_overdue(w, now_ns), None)

    def _requeue_overdue(self, watched: Watched, now_ns: int) -> None:
        timeout_ms = watched.queue.definition.ack_timeout_ms
        if timeout_ms is None:
            return
        requeued = watched.core.overdue(timeout_ms * NS_PER_MS, now_ns)
        if requeued:
            self.counts["overdue"] += requeued
            self._log.info("ack timeout, requeued", queue=watched.name, requeued=requeued, ack_timeout_ms=timeout_ms)

    def _watch_growth(self, watched: Watched, figures: Mapping[str, int]) -> None:
        """A queue doubles what it has committed: one that has used it up and can't double is as good as full."""
        used = sum(figures[name] for name in HELD)
        _, slots, inline_bytes, _, arena_bytes = watched.queue.geometry
        committed, arena = figures["slots_committed"], figures["arena_committed_bytes"]
        needed = 0
        if committed < slots and used >= committed * NEARLY_ALL:
            needed = committed * (inline_bytes + SLOT_BYTES)
        if arena < arena_bytes and figures["arena_used_bytes"] >= arena * NEARLY_ALL:
            needed = max(needed, arena)
        memory = os.statvfs(segments.SHM)
        free = memory.f_bavail * memory.f_frsize
        if free < needed:
            text = f"queue {watched.name!r} can't grow by {needed >> 20} MiB, {segments.SHM} has {free >> 20} MiB free"
            self._alarms.raise_alarm(CANT_GROW, watched.name, text)
        else:
            self._alarms.clear_alarm(CANT_GROW, watched.name)
