"""The memory watermark: what all queues have of /dev/shm, and which of them may not take more for now.

Owns: the alarms about /dev/shm, the fair shares, the words in the queues' headers by which publishers know. Does not
own: what is stopped (the core: a publish that would have to commit memory), who is told (the broker).
Invariants: a queue is stopped only while all queues together are above the mark, or have not come below where it clears
since, and only while it has more than its fair share; consumers never are. The words outlive us: the next supervisor
goes on where they say.
"""

import functools
import os
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from shmq_daemon import segments
from shmq_daemon.dead_letters import Alarms
from shmq_daemon.watched import Quarantine, Watched

SHM_FULL: Final = "shm-full"
MEMORY: Final = "memory-watermark"
STOPPED: Final = "queue-stopped"
SHM_LOW, SHM_FINE = 0.02, 0.04  # free share of /dev/shm that raises and clears the alarm
SHARE_MIN: Final = 256 << 10  # bytes: what every queue may have, however many there are
LOOK_NS: Final = 250_000_000  # between two looks while we are above the mark
HURRY_NS: Final = 20_000_000  # between two looks while queues grow
ROOM: Final = 0.75  # used of what a stopped queue has: its publishers find room again
QUIET_NS: Final = 1_000_000_000  # without a publisher that was stopped


class Marks(NamedTuple):
    """The settings: a share of what queues have and could have, an absolute one (0: none), and where they clear."""

    share: float
    bytes: int
    clear: float

    def of(self, had: int, free: int) -> int:
        """What all queues may have, in bytes, when they have so many and so many are free."""
        mark = int((had + free) * self.share)
        return min(mark, self.bytes) if self.bytes else mark


class Stop:
    """A queue that may not grow."""

    __slots__ = ("refused", "refused_ns", "told")

    def __init__(self, refused: int) -> None:
        self.refused = refused  # publishes until now
        self.refused_ns = 0  # when we last saw another one
        self.told = False


class Watermark:
    """Of all watched queues. `due_ns`: when the next look is, None when the round of the sweep is soon enough."""

    def __init__(self, watched: Mapping[int, Watched], quarantine: Quarantine, alarms: Alarms, marks: Marks) -> None:
        self._watched = watched
        self._quarantine = quarantine
        self._alarms = alarms
        self._marks = marks
        self._above = self._told = False
        self._stops: dict[int, Stop] = {}
        self._looked_ns = 0
        self.due_ns: int | None = None

    def add(self, watched: Watched) -> None:
        """Take over what the header says of an earlier supervisor's time."""
        if self._quarantine.run(watched, lambda w: w.core.stats()["share_bytes"], 0):
            self._above = True
            self._stops[watched.queue.queue_id] = Stop(0)
            self.due_ns = 0

    def remove(self, watched: Watched) -> None:
        self._stops.pop(watched.queue.queue_id, None)

    def grown(self) -> None:
        """A queue has grown, perhaps."""
        due_ns = self._looked_ns + HURRY_NS
        self.due_ns = due_ns if self.due_ns is None else min(due_ns, self.due_ns)

    def tick(self, now_ns: int) -> None:
        if self.due_ns is not None and now_ns >= self.due_ns:
            self.look(now_ns)

    def look(self, now_ns: int) -> None:
        """Measure, then stop who has too much, or let all go."""
        self._looked_ns = now_ns
        figures = os.statvfs(segments.SHM)
        self._watch_free(figures)
        free = figures.f_bavail * figures.f_frsize
        taken = (figures.f_blocks - figures.f_bfree) * figures.f_frsize
        if self._above or taken > self._marks.of(taken, free):  # else queues, a part of it, are below their mark too
            self._hold_against(free, now_ns)
        self.due_ns = now_ns + LOOK_NS if self._above else None

    def _watch_free(self, figures: os.statvfs_result) -> None:
        free = figures.f_bavail / max(figures.f_blocks, 1)
        if free < SHM_LOW:
            free_mib = figures.f_bavail * figures.f_frsize >> 20
            text = f"{segments.SHM} is full: {free_mib} MiB free; consume, purge or enlarge it"
            self._alarms.raise_alarm(SHM_FULL, str(segments.SHM), text)
        elif free > SHM_FINE:
            self._alarms.clear_alarm(SHM_FULL, str(segments.SHM))

    # -- the mark -----------------------------------------------------------------------------------------------------

    def _hold_against(self, free: int, now_ns: int) -> None:
        sizes = {key: self._quarantine.run(w, lambda w: w.core.memory_bytes(), 0) for key, w in self._watched.items()}
        had = sum(sizes.values())
        mark = self._marks.of(had, free)
        low = int(mark * self._marks.clear)
        self._above = had > mark or (self._above and had > low)
        self._tell(had, mark)
        share = max(fair_share(sizes.values(), low), SHARE_MIN)
        for queue_id, size in sizes.items():
            watched = self._watched[queue_id]
            if self._above and size > share:
                stop = functools.partial(self._stop, size=size, share=share, mark=mark, now_ns=now_ns)
                self._quarantine.run(watched, stop, None)
            elif queue_id in self._stops:
                self._quarantine.run(watched, self._let_go, None)
        if not self._above:
            self._told = False
            self._alarms.clear_alarm(MEMORY, str(segments.SHM))

    def _tell(self, had: int, mark: int) -> None:
        """Once, with the figures of that moment."""
        if self._above and not self._told:
            self._told = True
            text = (
                f"queues have {_mib(had)} of {segments.SHM}, their mark is {_mib(mark)}: those with more than their"
                " fair share may not grow, and their publishers wait for room; consume, purge or delete queues"
            )
            self._alarms.raise_alarm(MEMORY, str(segments.SHM), text)

    def _stop(self, watched: Watched, *, size: int, share: int, mark: int, now_ns: int) -> None:
        figures = watched.core.stats()
        stop = self._stops.setdefault(watched.queue.queue_id, Stop(figures["stopped"]))
        watched.core.set_share(share, mark)
        if figures["stopped"] != stop.refused:
            stop.refused, stop.refused_ns = figures["stopped"], now_ns
            if not stop.told:
                stop.told = True
                text = (
                    f"queue {watched.name!r} has {_mib(size)} of shared memory, its fair share is {_mib(share)}: it may"
                    f" not grow, and its publishers wait. Consume from {watched.name!r}, purge or delete it"
                )
                self._alarms.raise_alarm(STOPPED, watched.name, text)
        elif stop.told and now_ns - stop.refused_ns > QUIET_NS and has_room(figures):
            stop.told = False
            self._alarms.clear_alarm(STOPPED, watched.name)

    def _let_go(self, watched: Watched) -> None:
        del self._stops[watched.queue.queue_id]
        watched.core.set_share(0, 0)
        self._alarms.clear_alarm(STOPPED, watched.name)


def fair_share(sizes: Iterable[int], budget: int) -> int:
    """The largest size such that all would have no more than the budget, if none had more: what some leave of theirs is
    the others'.
    """
    rising = sorted(sizes)
    left = budget
    for count, size in zip(range(len(rising), 0, -1), rising, strict=True):
        if size * count >= left:
            return left // count
        left -= size
    return budget


def has_room(figures: Mapping[str, int]) -> bool:
    """Whether a queue that may not grow has room in what it has."""
    held = sum(figures[name] for name in ("ready", "unacked", "delayed", "dead_pending"))
    arena = figures["arena_committed_bytes"]
    return held < figures["slots_committed"] * ROOM and (not arena or figures["arena_used_bytes"] < arena * ROOM)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
