"""One session with the broker, from hello to its end: requests and their answers, deliveries to those who consume.

Owns: sequence numbers, who waits for which answer, refusals of what wanted no answer. Does not own: the socket
(stream.py), who reads when and what comes after the end (link.py).
Invariants: one thread at a time calls `read`; nothing in here waits; an answer that nobody wants any more is dropped,
and messages in it go back to their queue.
"""

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

from shmq._version import __version__
from shmq.core._core import LAYOUT
from shmq.errors import ConnectionClosed, ConnectionLost, LocalFrameError, NotShmqd, ShmqError
from shmq.limits import BATCH_MESSAGES_MAX, SEQ_MAX
from shmq.wire.codes import GOODBYE, from_wire
from shmq.wire.frames import (
    Blocked,
    BrokerFrame,
    Cancelled,
    ClientFrame,
    Closing,
    Deliver,
    Error,
    Goodbye,
    Got,
    Hello,
    Presence,
    Resume,
    Unblocked,
    Welcome,
)
from shmq.wire.states import State
from shmq_clients.failures import Failures
from shmq_clients.present import Present
from shmq_clients.stream import Stream, close_all

Mode = Literal["auto", "direct", "socket"]


class Sink(Protocol):
    """Who gets a consumer's deliveries."""

    def deliver(self, frame: Deliver) -> None: ...
    def cancelled(self, reason: str) -> None: ...


class Answer:
    """What a request waits for. `tell` is called when it has come, by whoever reads, and must not wait; before it
    `at_once`, unless that is an error: nothing that came behind it has been looked at then. `late`: nobody waits to
    hear of a refusal, so a later call raises it.
    """

    __slots__ = ("at_once", "descriptors", "done", "error", "frame", "late", "tell")

    def __init__(self, at_once: Callable[[], object] | None = None, *, late: bool = False) -> None:
        self.at_once = at_once
        self.late = late
        self.frame: BrokerFrame | None = None
        self.descriptors: tuple[int, ...] = ()
        self.error: ShmqError | None = None
        self.done = False
        self.tell: Callable[[], object] | None = None

    def is_done(self) -> bool:
        return self.done

    def settle(self, frame: BrokerFrame | None, error: ShmqError | None = None) -> None:
        """It has come: one of the two."""
        if error is None and self.at_once is not None:
            self.at_once()
        self.frame, self.error, self.done = frame, error, True
        if self.tell is not None:
            self.tell()


class Session:
    """Says hello on a connected stream. `welcome` is None until the broker has answered.

    Refusals of what wanted no answer go to `failures`, the descriptor of the presence file to `present`.
    """

    def __init__(self, stream: Stream, mode: Mode, resume: Resume | None, failures: Failures, present: Present) -> None:
        self.stream = stream
        self.welcome: Welcome | None = None
        self.ended: ShmqError | None = None
        self.left = False  # the broker has answered our goodbye
        self.sinks: dict[str, Sink] = {}
        self._failures = failures
        self._present = present
        self.blocked = ""
        self.orphans: deque[int] = deque()  # delivery tags that came for nobody
        self._descriptors: tuple[int, ...] = ()  # of the welcome
        self._answers: dict[int, Answer] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        hello = Hello(
            layout=LAYOUT,
            client="shmq-python",
            version=__version__,
            pid=os.getpid(),
            mode=mode,
            resume=resume,
            presence=present.position,
        )
        self.stream.send(hello, _nothing)

    # -- out ----------------------------------------------------------------------------------------------------------

    def begin(
        self,
        make: Callable[[int], ClientFrame],
        read: Callable[[], object],
        at_once: Callable[[], object] | None = None,
        *,
        late: bool = False,
    ) -> tuple[int, Answer]:
        """Send a request; its answer is there once `done`. Say `forget(number)` when it was used or given up. `at_once`
        and `late`: as Answer's.
        """
        answer = Answer(at_once, late=late)
        number = next(self._numbers) % SEQ_MAX + 1
        with self._lock:
            if self.ended is not None:
                raise self.ended
            self._answers[number] = answer
        try:
            self.say(make(number), read)
        except BaseException:
            self.forget(number)
            raise
        return number, answer

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more; what is to be done with it at once is done all the same."""
        answer = self._answers.get(number)
        if answer is not None and answer.at_once is None:
            self._answers.pop(number, None)

    def give_up(self, number: int, answer: Answer) -> None:
        """As `forget`, when nobody will look at the answer: what has come with it goes back."""
        self.forget(number)
        close_all(answer.descriptors)
        if isinstance(answer.frame, Got):
            self.orphans.extend(delivery.delivery_tag for delivery in answer.frame.deliveries)

    def take_orphans(self) -> list[int]:
        """Return delivery tags that came for nobody, as many as one frame takes: they are to go back."""
        if not self.orphans:  # asked by each that reads
            return []
        tags: list[int] = []
        with contextlib.suppress(IndexError):  # there is no more, or another thread has it
            while len(tags) < BATCH_MESSAGES_MAX:
                tags.append(self.orphans.popleft())
        return tags

    def say(self, frame: ClientFrame, read: Callable[[], object]) -> None:
        """Send what wants no answer; its refusal is raised by a later call."""
        try:
            self.stream.send(frame, read)
        except LocalFrameError:
            if self.stream.wire.state is State.LEAVING:  # another thread closes the connection
                raise ConnectionClosed from None
            raise

    @property
    def awaits_answers(self) -> bool:
        return bool(self._answers)

    @property
    def is_open(self) -> bool:
        return self.stream.wire.state is State.OPEN

    def goodbye(self, *, clean: bool) -> None:
        if self.is_open:
            self.stream.send(Goodbye(clean=clean), _nothing)

    # -- in -----------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take all that has come. Raises what ends the session."""
        while self.read_some():
            pass

    def read_some(self) -> bool:
        """Take a part of what has come; False: there is no more. Raises what ends the session."""
        frames = self.stream.receive()
        for frame in frames:
            action = _ACTIONS.get(type(frame))
            if action is not None:
                action(self, frame)
            else:
                self._answer(frame)
        return bool(frames)

    def end(self, error: ShmqError) -> None:
        """Close the socket and tell all who wait."""
        with self._lock:
            self.ended = error
            waiting = list(self._answers.values())
            self._answers.clear()
        self.stream.close()
        for answer in waiting:
            answer.settle(None, error)

    def take_descriptors(self) -> tuple[int, ...]:
        """Return what came with the welcome, for whoever comes first to keep or close."""
        with self._lock:
            descriptors, self._descriptors = self._descriptors, ()
        return descriptors

    def _answer(self, frame: Any) -> None:  # noqa: ANN401 - any answer, all have seq
        answer = self._answers.pop(frame.seq, None)
        if answer is None:
            if isinstance(frame, Got):
                self.orphans.extend(delivery.delivery_tag for delivery in frame.deliveries)
            return
        if getattr(frame, "descriptors", 0):  # then it is the last of those that were read together
            answer.descriptors = self.stream.wire.take_descriptors()
        answer.settle(frame)

    def _on_welcome(self, frame: Welcome) -> None:
        self._descriptors = self.stream.wire.take_descriptors()
        self.welcome = frame

    def _on_error(self, frame: Error) -> None:
        error = from_wire(frame.code, frame.text, frame.data)
        if frame.seq == 0:
            self._failures.add(error)
        elif (answer := self._answers.pop(frame.seq, None)) is not None:
            if answer.late:
                self._failures.add(error)
            answer.settle(None, error)

    def _on_closing(self, frame: Closing) -> None:
        if frame.code == GOODBYE:
            self.left = True
            raise ConnectionLost(path=str(self.stream.path), reason="goodbye")
        error = from_wire(frame.code, frame.text, frame.data)
        if self.welcome is None and type(error) is ShmqError:
            raise NotShmqd(path=str(self.stream.path), reason=str(error))
        raise error

    def _on_deliver(self, frame: Deliver) -> None:
        sink = self.sinks.get(frame.consumer_tag)
        if sink is None:
            self.orphans.extend(delivery.delivery_tag for delivery in frame.deliveries)
        else:
            sink.deliver(frame)

    def _on_cancelled(self, frame: Cancelled) -> None:
        sink = self.sinks.pop(frame.consumer_tag, None)
        if sink is not None:
            sink.cancelled(frame.reason)

    def _on_blocked(self, frame: Blocked) -> None:
        self.blocked = frame.reason or "an alarm"

    def _on_unblocked(self, _frame: Unblocked) -> None:
        self.blocked = ""

    def _on_presence(self, frame: Presence) -> None:
        descriptors = self.stream.wire.take_descriptors()
        close_all(descriptors[1:])  # it is one
        if descriptors:
            self._present.enter(descriptors[0], frame.position)


_ACTIONS: Final[Mapping[type, Callable[[Session, Any], None]]] = {
    Welcome: Session._on_welcome,  # noqa: SLF001 - the class's own table
    Closing: Session._on_closing,  # noqa: SLF001 - as above
    Error: Session._on_error,  # noqa: SLF001 - as above
    Deliver: Session._on_deliver,  # noqa: SLF001 - as above
    Cancelled: Session._on_cancelled,  # noqa: SLF001 - as above
    Blocked: Session._on_blocked,  # noqa: SLF001 - as above
    Unblocked: Session._on_unblocked,  # noqa: SLF001 - as above
    Presence: Session._on_presence,  # noqa: SLF001 - as above
}


def _nothing() -> None:
    """Nothing can have come before the hello and nothing is wanted after the goodbye."""
