"""Refusals of what wanted no answer, until a later call raises them.

Owns: their order and number, which of them nobody is told. Does not own: which call raises one (link.py).
Invariants: each is raised once, by whoever comes first; any thread may add and take; of more than are kept the number
is told.
"""

import threading
from collections import deque
from typing import Final

from shmq.errors import AlreadySettled, ShmqError, StaleDelivery

FAILURES_MAX: Final = 1000  # an old one says more than a new one of its kind
OF_DELIVERIES: Final = (StaleDelivery, AlreadySettled)
LATE: Final = 'refused was not this call but an earlier one that did not wait, as a publish with confirm="sent"'


class Failures:
    """Of one connection. `kept`: oldest first."""

    def __init__(self) -> None:
        self.forgiven: tuple[type[ShmqError], ...] = ()  # of these nobody is told
        self.kept: deque[ShmqError] = deque()
        self._uncounted = 0  # that came while there were enough
        self._lock = threading.Lock()

    def add(self, error: ShmqError) -> None:
        """It is to be raised by a later call."""
        with self._lock:
            if len(self.kept) < FAILURES_MAX:
                self.kept.append(error)
            else:
                self._uncounted += 1

    def raise_oldest(self) -> None:
        """Raise the oldest one, if there is any."""
        while (error := self.next()) is not None:
            if not isinstance(error, self.forgiven):
                raise error

    def raise_last(self) -> None:
        """At the end, when no later call will: raise the oldest one, and tell how many more there were. One of a
        delivery is none here: nothing is lost, the message went back.
        """
        errors = [error for error in iter(self.next, None) if not isinstance(error, OF_DELIVERIES)]
        if len(errors) > 1:
            errors[0].add_note(f"{len(errors) - 1} more were refused after this")
        if errors:
            raise errors[0]

    def next(self) -> ShmqError | None:
        """Take the oldest one, to be raised now; None: there is none."""
        if not self.kept:
            return None
        with self._lock:
            if not self.kept:  # another thread has it
                return None
            error = self.kept.popleft()
            if not self.kept and self._uncounted:
                error.add_note(f"{self._uncounted} more were refused after this, and are not raised one by one")
                self._uncounted = 0
        if not is_late(error):
            error.add_note(LATE)
        return error

    def put_back(self, error: ShmqError) -> None:
        """Nobody was told of it after all; no matter for what is no refusal of an earlier call."""
        if is_late(error):
            with self._lock:
                self.kept.appendleft(error)


def is_late(error: ShmqError) -> bool:
    """Whether it is a refusal of an earlier call."""
    return LATE in getattr(error, "__notes__", ())
