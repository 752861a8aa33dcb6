"""What a call for several messages has gathered while it waits for more, in either mode and any client.

Owns: when it is enough, what becomes of what is there when the call can't go on. Does not own: waiting, taking (the
paths).
Invariants: whoever is interrupted loses nothing, so nothing is acked before it is handed out; an error comes with the
next call where something is there to hand out now.
"""

import contextlib
import time
from typing import Any, Final

from shmq.errors import ShmqError
from shmq.limits import TIME_NS_MAX
from shmq_clients.settling import acked_at_delivery, nack_all


class Gathering:
    """As many messages as are wanted, or those that came until `wait_ns` were over."""

    def __init__(self, wanted: int, wait_ns: int, *, no_ack: bool) -> None:
        self.messages: list[Any] = []
        self._wanted: Final = wanted
        self._deadline_ns: Final = None if wait_ns == TIME_NS_MAX else time.monotonic_ns() + wait_ns
        self._acked_late: Final = no_ack and wait_ns > 0
        self.no_ack: Final = no_ack and wait_ns == 0  # whether to ask for messages that need none
        self.left_ns = wait_ns
        self.goes_on = True

    @property
    def missing(self) -> int:
        return self._wanted - len(self.messages)

    def add(self, part: list[Any]) -> None:
        """These came."""
        self.messages += part
        if self._deadline_ns is not None:
            self.left_ns = max(0, self._deadline_ns - time.monotonic_ns())
        self.goes_on = self.missing > 0 and self.left_ns > 0

    def fail(self, error: ShmqError) -> None:
        """No more can be got: raise that, or hand out what is there."""
        if not self.messages:
            raise error
        self.goes_on = False

    def give_back(self) -> None:
        """Nobody gets them: they go back to their places."""
        with contextlib.suppress(ShmqError):  # of a session that is gone, and they with it
            nack_all(self.messages, requeue=True)

    def handed_out(self) -> list[Any]:
        """Return them, the caller's now. What needs no ack and went back meanwhile, as after an ack timeout, is not."""
        return acked_at_delivery(self.messages) if self._acked_late else self.messages
