"""Requests that found no shared memory while the supervisor still has queues mapped which were deleted.

Owns: which deleted queues those are, and who waits for their memory. Does not own: sessions, the link.
Invariants: nobody waits but who would be refused otherwise, and not for long; a session that waits acts on nothing
else, so its answers stay in order.
"""

from typing import Final

from shmq.wire.frames import ClientFrame
from shmq_daemon.loop import Timer, Timers
from shmq_daemon.session import Session

RELEASE_NS: Final = 2_000_000_000  # for a supervisor that is busy, or stopped


class Releases:
    """Of one link to the supervisor."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._expected: set[int] = set()
        self._waiting: list[Session] = []
        self._timer: Timer | None = None

    def expect(self, queue_id: int) -> None:
        """The supervisor was told that this queue is gone."""
        self._expected.add(queue_id)

    def released(self, queue_id: int) -> None:
        """It has let go of its memory."""
        self._expected.discard(queue_id)
        if not self._expected:
            self.forget_all()

    def forget_all(self) -> None:
        """There is nothing more to come: who waits tries once more."""
        self._expected.clear()
        waiting, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for session in waiting:
            session.resume()

    def postpone(self, session: Session | None, frame: ClientFrame) -> bool:
        """Have the request acted on again when there may be memory. False: there is none to come."""
        if session is None or not self._expected or not session.postpone(frame):
            return False
        self._waiting.append(session)
        if self._timer is None:
            self._timer = self._timers.after(RELEASE_NS, lambda _now_ns: self.forget_all())
        return True
