"""A queue as the broker holds it: its memory, its bells, and who waits on it over a socket.

Owns: opening and closing a queue's segment for the broker, the broker's registration at its bells. Does not own: who
waits for what (consuming.py, publishing.py), names and state (catalog.py).
Invariants: the broker registers once per side, however many of its peers wait; a registration is followed by another
look; a token that was read is passed on when we wait no more; a queue whose segment cannot be used has no core, and
says why.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from shmq.core import _core
from shmq.core._core import Queue as CoreQueue
from shmq.errors import InternalError
from shmq_daemon.descriptors import closed_on_failure, copies
from shmq_daemon.events import Queue
from shmq_daemon.loop import Loop

if TYPE_CHECKING:
    from shmq_daemon.consumers import Consumer, Waiting
    from shmq_daemon.publishing import Blocked

DESCRIPTORS_OF_A_QUEUE: Final = (
    6  # the segment; two bells to hand out; a copy of each for the core, and the supervisor's
)
SIDES: Final = (_core.CONSUMERS, _core.PRODUCERS)


class Bells(NamedTuple):
    """Three eventfds and the epoch in which they were made."""

    consumers: int
    producers: int
    epoch: int

    @classmethod
    def make(cls, epoch: int) -> "Bells":
        """Raises OSError; then there is none."""
        flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE
        made: list[int] = []
        with closed_on_failure(made):
            made.append(os.eventfd(0, flags))
            made.append(os.eventfd(0, flags))
        consumers, producers = made
        return cls(consumers, producers, epoch)

    def close(self) -> None:
        os.close(self.consumers)
        os.close(self.producers)


class OpenQueue:
    """One queue of the broker."""

    def __init__(self, queue: Queue, bells: Bells) -> None:
        self.queue = queue
        self.bells = bells
        self._core: CoreQueue | None = None
        self.damage = ""
        self.consumers: deque[Consumer] = deque()  # of socket sessions, served in turn
        self.waiting: deque[Waiting] = deque()  # gets that found nothing
        self.blocked: deque[Blocked] = deque()  # publishes that found no room
        self.had_consumer = False
        self.active: Consumer | None = None  # where only one is served at a time
        self.used_ns = time.monotonic_ns()  # when it last had a consumer, was declared, or asked for a message
        self._registered = [False, False]
        self._has_token = [False, False]  # that was read, and we have not registered again

    @property
    def name(self) -> str:
        return self.queue.name

    @property
    def core(self) -> CoreQueue:
        """Raises InternalError for a queue that is set apart."""
        if self._core is None:
            raise self.set_apart_error()
        return self._core

    def set_apart_error(self) -> InternalError:
        """What is told to whoever asks for a queue that is set apart."""
        return InternalError(
            f"queue {self.name!r} is set apart: {self.damage}. Delete it when its messages are not needed"
        )

    @property
    def usable(self) -> bool:
        return self._core is not None

    def used(self) -> None:
        """Somebody wants it: `x-expires` runs anew."""
        self.used_ns = time.monotonic_ns()

    def attach(self, fd: int, owner: int, supervisor_bell: int, *, create: bool) -> None:
        """Map the segment; takes over `fd`. Raises OSError, LayoutMismatch."""
        descriptors = [fd]
        with closed_on_failure(descriptors):
            descriptors += copies(self.bells.consumers, self.bells.producers, supervisor_bell)
            self._core = CoreQueue(
                fd,
                self.queue.geometry,
                owner,
                create=create,
                queue_id=self.queue.queue_id,
                bells=(descriptors[1], descriptors[2], descriptors[3]),
                epoch=self.bells.epoch,
                context=self,
            )

    def wait_for(self, loop: Loop, side: int, look: Callable[["OpenQueue"], None]) -> bool:
        """Register at a bell. True: it is new, so look once more; False: we are registered already."""
        if self._registered[side]:
            return False
        self.core.bell_register(side)
        self._registered[side], self._has_token[side] = True, False

        def on_bell(_events: int) -> None:
            if self._core is not None and self._core.bell_token(side):
                self._forget(loop, side)
                self._has_token[side] = True
                look(self)

        loop.add(self.core.bell_fd(side), on_bell)
        return True

    def waits_for(self, side: int) -> bool:
        """Whether we are registered at a bell."""
        return self._registered[side]

    def stop_waiting(self, loop: Loop, side: int) -> None:
        """Take our registration back, or pass on the token that used it up: others may sleep."""
        if self._registered[side]:
            self._forget(loop, side)
            self.core.bell_leave(side)
        elif self._has_token[side] and self.core.may_have(side):
            self.core.bell_ring(side)
        self._has_token[side] = False

    def _forget(self, loop: Loop, side: int) -> None:
        self._registered[side] = False
        loop.remove(self.core.bell_fd(side))

    def set_apart(self, loop: Loop, damage: str) -> None:
        """Work in it no more, and say why to whoever asks for it."""
        self.damage = damage
        if self._core is not None:
            for side in SIDES:
                self.stop_waiting(loop, side)
            self._core.close()
            self._core = None

    def close(self, loop: Loop) -> None:
        self.set_apart(loop, self.damage)
        self.bells.close()
