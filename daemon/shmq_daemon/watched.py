"""A queue as the supervisor looks after it: its memory, what is known to be dead or delayed in it.

Owns: opening a queue's segment for the supervisor, its bells, the boundary behind which a damaged segment stops only
itself.
Does not own: what is done with it (reaping.py, dead_letters.py, delays.py, sweep.py).
Invariant: a queue whose segment failed a check is not touched again by this supervisor; the others go on.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from shmq.core._core import Queue as CoreQueue
from shmq.errors import ShmqError
from shmq_daemon import segments
from shmq_daemon.descriptors import close_all, closed_on_failure, copies
from shmq_daemon.events import Queue

QUARANTINED: Final = "queue-quarantined"  # the alarm
Result = TypeVar("Result")
SlotWord = tuple[int, int]
"""(slot, control word): one message in one state."""


class Watched:
    """One queue."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        queue: Queue,
        epoch: int,
        bells: tuple[int, int],
        supervisor_bell: int,
        owner: int,
        segment: int = -1,
    ) -> None:
        """Takes over `segment`; without one it is opened by its name."""
        self.queue = queue
        self.epoch = epoch
        self.bells = bells  # ours: kept for the next broker
        self.quarantined = False
        self.stuck: dict[SlotWord, set[int]] = {}  # dead ones that some target has not taken; ids of those that have
        self.has_more_dead = False  # in no ring, and not among the stuck for want of room
        self.retry_ns = 0  # when stuck ones are tried again
        self.recovered = False
        descriptors = [segments.open_existing(queue.segment) if segment < 0 else segment]
        with closed_on_failure(descriptors):
            descriptors += copies(*bells, supervisor_bell)
            fd, *mine = descriptors
            ours = (mine[0], mine[1], mine[2])
            self.core = CoreQueue(fd, queue.geometry, owner, queue_id=queue.queue_id, bells=ours, epoch=epoch)
        self.often_failed = self.core.stats()["often_failed"]

    @property
    def name(self) -> str:
        return self.queue.name

    def close(self) -> None:
        self.core.close()
        close_all(self.bells)


class Quarantine:
    """Runs what touches a segment; keeps those that failed apart."""

    def __init__(self, report: Callable[[Watched, Exception], None]) -> None:
        self._report = report

    def run(self, watched: Watched, work: Callable[[Watched], Result], otherwise: Result) -> Result:
        if watched.quarantined:
            return otherwise
        try:
            return work(watched)
        except (OSError, ShmqError, ValueError, IndexError) as error:
            watched.quarantined = True
            self._report(watched, error)
            return otherwise
