"""How many publishes may be on their way: without an answer (confirm "sent"), and waiting for one of their own.

Owns: counting them, and waiting when it is too many. Does not own: the frames.
Invariants: never more than the broker keeps for a client whose publishes wait for room, which is 16 MiB beside the
largest one; beyond that it would stop reading, and an ack behind them, which makes room, would not be read either. The
broker keeps a client's publishes in order, so the answer to one says that all before it are done.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from shmq.errors import OperationTimeout
from shmq.wire.frames import Ping
from shmq_clients.link import Link
from shmq_clients.session import Answer, Session

STEP_MESSAGES: Final = 200
STEP_BYTES: Final = 2 << 20
STEPS_MAX: Final = 3
ALONE_BYTES: Final = 1 << 20  # a frame from here on waits for its own answer
OWN_BYTES_MAX: Final = 6 << 20  # of several that wait for their own; one of any size may wait alone
OWN_BYTES_COUNTED: Final = 1 << 16  # there are not so many threads that smaller ones add up


class Window:
    """Of one session. One frame in each step asks for an answer; nobody waits for it until there are too many."""

    def __init__(self, link: Link, session: Session) -> None:
        self.session = session
        self._link = link
        self._messages = 0
        self._bytes = 0
        self._sent = 0  # frames without an answer of their own
        self._confirmed = 0  # of these
        self._steps: deque[Answer] = deque()
        self._lock = threading.Lock()

    def enter(self, size: int, timeout: float) -> bool:
        """Count a frame that is to be sent; first wait while too many are unanswered. True: this one ends a step.

        Raises OperationTimeout.
        """
        deadline = time.monotonic() + timeout
        while (oldest := self.in_the_way()) is not None:
            self._wait(oldest, deadline, timeout)
            self.settle(oldest)
        return self.count(size)

    def in_the_way(self) -> Answer | None:
        """The step to end, and to `settle`, before another frame may go, if there is one; other threads settle, too."""
        with self._lock:
            must = bool(self._steps) and (len(self._steps) >= STEPS_MAX or self._steps[0].done)
            return self._steps[0] if must else None

    def count(self, size: int) -> bool:
        """Count a frame; nothing is in the way. True: this one ends a step."""
        with self._lock:
            self._messages += 1
            self._bytes += size
            if self._messages < STEP_MESSAGES and self._bytes < STEP_BYTES:
                return False
            self._messages = self._bytes = 0
        return True

    def note_sent(self) -> None:
        """A frame that was entered is written."""
        with self._lock:
            self._sent += 1

    @property
    def unconfirmed(self) -> bool:
        """Whether something that was sent may be lost with the session."""
        return self._sent > self._confirmed

    def begin_confirm(self) -> tuple[int, Answer]:
        """Ask for an answer behind all that was sent, and say then `confirm` with both. Raises ConnectionLost."""
        return self._sent, self._link.begin_in(self.session, Ping)

    def confirm(self, sent: int, answer: Answer) -> None:
        """So much that was sent is done. Raises ConnectionLost when the session ended first."""
        if answer.error is not None:
            raise answer.error
        self._confirmed = max(self._confirmed, sent)

    def end_step(self, answer: Answer) -> None:
        """Remember the answer that ends a step."""
        self._steps.append(answer)

    def _wait(self, oldest: Answer, deadline: float, timeout: float) -> None:
        while not oldest.done:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise OperationTimeout(operation="publishing", timeout=timeout)
            self._link.advance(remaining, oldest.is_done)

    def settle(self, oldest: Answer) -> None:
        """A step is done, however: a later call raises what was refused."""
        with self._lock:
            if self._steps and self._steps[0] is oldest:
                self._steps.popleft()


class Room:
    """For publishes of several threads that wait for answers of their own, in whatever session."""

    def __init__(self) -> None:
        self._sizes: dict[object, int] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int, timeout: float) -> Iterator[int]:
        """Wait until this one may go, too, but no longer than `timeout`: then the broker says what is full. Gives the
        nanoseconds that it took.
        """
        if size < OWN_BYTES_COUNTED:
            yield 0
            return
        mine, began = object(), time.monotonic_ns()
        try:
            with self._changed:
                waited = self._is_too_much(size)
                self._changed.wait_for(lambda: not self._is_too_much(size), timeout)
                self._sizes[mine] = size
            yield time.monotonic_ns() - began if waited else 0
        finally:
            with self._changed:
                self._sizes.pop(mine, None)
                self._changed.notify_all()

    def _is_too_much(self, size: int) -> bool:
        return bool(self._sizes) and sum(self._sizes.values()) + size > OWN_BYTES_MAX
