"""The way to the broker that outlives its deaths: the session of now, how it is opened, lost, resumed, opened again.

Owns: the session, back-off, who reads, requests with deadlines. Does not own: what requests mean, the data path.
Invariants: no thread of its own: whoever waits reads for all, the others sleep until it has read something; connecting
again never blocks a caller that waits for something else, and no caller waits for a session longer than
`reconnect_timeout`; a request that was under way when the session ended is sent again only if doing it twice is the
same as once.
"""

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from shmq.errors import (
    AccessRefused,
    ConnectionClosed,
    ConnectionLost,
    DaemonNotRunning,
    ForkedHandle,
    NotShmqd,
    OperationTimeout,
    ProtocolMismatch,
    SessionError,
    ShmqError,
)
from shmq.wire.fields import Frame
from shmq.wire.frames import BrokerFrame, ClientFrame, Nack, Resume, Welcome
from shmq_clients import forks
from shmq_clients.failures import Failures
from shmq_clients.present import Present
from shmq_clients.reaching import reach
from shmq_clients.session import Answer, Mode, Session
from shmq_clients.stream import POLLIN, Stream, close_all, poll

FrameT = TypeVar("FrameT", bound=Frame)

HELLO_TIMEOUT: Final = 0.9  # of one try, when connecting again
REQUEST_TIMEOUT: Final = 15.0  # for an answer, a restart of the daemon included
RECONNECT_TIMEOUT: Final = 60.0  # for the next broker, when one is gone
BACKOFF_FIRST: Final = 0.02
BACKOFF_MAX: Final = 0.5  # who waits in socket mode is back within a second of a new daemon
SLICE: Final = 0.25  # no wait is longer without a look at what else may have changed
TURN: Final = 0.02  # for another thread that is reading what we want to know


class Reply(NamedTuple):
    """A frame, the descriptors that came with it, which are now the caller's, and the session it came in."""

    frame: BrokerFrame
    descriptors: tuple[int, ...]
    session: Session


class Loss(NamedTuple):
    """The end of a session that nobody wished. Gone: there will be no other."""

    at: float
    reason: str
    gone: bool


class Link:
    """Connects to the first of `paths` that answers. `on_welcome` are told of each new session and must not wait.

    `reconnect_timeout`: seconds after the end of a session in which a new one must come, else who needs it is told.
    """

    def __init__(self, paths: Sequence[Path], mode: Mode, reconnect_timeout: float = RECONNECT_TIMEOUT) -> None:
        self.paths = tuple(paths)
        self.mode: Mode = mode
        self.failures = Failures()
        self.on_welcome: list[Callable[[Session, Welcome], None]] = []
        self._turn = threading.Condition()
        self._reading = False
        self._session: Session | None = None
        self._resume: Resume | None = None
        self._present = Present()
        self._greeting_ends = 0.0
        self._hello_timeout = HELLO_TIMEOUT
        self._backoff = BACKOFF_FIRST
        self._retry_at = 0.0
        self._last_error: ShmqError | None = None
        self._reconnect_timeout = reconnect_timeout
        self._loss: Loss | None = None
        self._told = False  # somebody gave up: the next one tries whatever the back-off says
        self._closed: ShmqError | None = None
        self._chores: deque[Callable[[Session], None]] = deque()
        forks.register(self)

    # -- opening ------------------------------------------------------------------------------------------------------

    def open(self, timeout: float) -> None:
        """Connect for the first time. Raises what stands in the way; nothing is tried again that will not change."""
        deadline = time.monotonic() + timeout
        self._hello_timeout = timeout
        try:
            while not self._opened(deadline, timeout):
                self.advance(deadline - time.monotonic(), lambda: self.session is not None)
        except ShmqError:
            self.close(clean=True, timeout=0)  # nothing was begun
            raise

    def _opened(self, deadline: float, timeout: float) -> bool:
        """Whether there is the first session. Raises that there will be none."""
        session = self.session
        if session is not None:
            self.paths = (session.stream.path,)
            self._hello_timeout = HELLO_TIMEOUT
            return True
        if self._last_error is not None and not isinstance(self._last_error, ConnectionLost):
            raise self._last_error
        if time.monotonic() >= deadline:
            raise self._silence(timeout)
        return False

    def _silence(self, timeout: float) -> ShmqError:
        if isinstance(self._last_error, ConnectionLost):
            told_by_shmqd = not self._last_error.path
            reason = f"no hello: {self._last_error.reason}"
            return self._last_error if told_by_shmqd else NotShmqd(path=str(self.paths[0]), reason=reason)
        return OperationTimeout(operation=f"hello on {self.paths[0]}", timeout=timeout)

    @property
    def session(self) -> Session | None:
        """The session, once welcome; None while there is none."""
        session = self._session
        return session if session is not None and session.welcome is not None else None

    def check(self) -> None:
        """Raise ForkedHandle in a forked child, ConnectionClosed after close()."""
        if self._closed is not None:
            raise type(self._closed)

    def check_reach(self) -> None:
        """Raise what keeps us from a session, when one was lost and it is too long ago; for who would wait for it.

        The next call tries once more, at once.
        Raises DaemonNotRunning, ConnectionLost, ProtocolMismatch, AccessRefused.
        """
        loss = self._loss
        if loss is None:
            return
        if self._told and not loss.gone:
            self._told, self._retry_at = False, 0.0
        self.tick()
        error = self._unreachable()
        if error is not None:
            self._told = True
            raise error

    def check_hope(self) -> None:
        """As `check_reach`, for who must have a session: also what another try would not change."""
        if isinstance(self._last_error, ProtocolMismatch | AccessRefused):
            raise self._last_error
        self.check_reach()

    def _unreachable(self) -> ShmqError | None:
        loss, last, path = self._loss, self._last_error, str(self.paths[0])
        if loss is None or self._session is not None:  # or one is being greeted
            return None
        if loss.gone:
            return ConnectionLost(path=path, reason=loss.reason, gone=True)
        after = time.monotonic() - loss.at
        if last is None or after < self._reconnect_timeout:
            return None
        if isinstance(last, ProtocolMismatch | AccessRefused):
            return last
        if isinstance(last, DaemonNotRunning):
            return replace(last, lost=loss.reason, after=after)
        return ConnectionLost(path=path, reason=f"{loss.reason}; for {after:.0f} s there was no other: {last}")

    @property
    def closed(self) -> bool:
        return self._closed is not None

    @property
    def forked_off(self) -> bool:
        return isinstance(self._closed, ForkedHandle)

    # -- the session of now -------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due without waiting: connect again, give up on a silent peer. Returns seconds until the next."""
        self.check()  # before the lock, which another thread of the parent may have held at a fork
        with self._turn:
            self.check()
            now = time.monotonic()
            session = self._session
            if session is not None and session.welcome is None and now >= self._greeting_ends:
                self._lose(session, OperationTimeout(operation="hello", timeout=self._hello_timeout))
            if self._session is None and now >= self._retry_at:
                self._connect(now)
            if self._session is None:
                return max(0.0, self._retry_at - time.monotonic())
            return SLICE if self._session.welcome is not None else max(0.0, self._greeting_ends - now)

    def _connect(self, now: float) -> None:
        try:
            self._session = self._greet(reach(self.paths, self._stream))
        except ShmqError as error:
            self._postpone(error)
            return
        self._greeting_ends = now + self._hello_timeout

    def _greet(self, stream: Stream) -> Session:
        try:
            return Session(stream, self.mode, self._resume, self.failures, self._present)
        except BaseException:
            stream.close()
            raise

    def _stream(self, path: Path) -> Stream:
        return Stream(path)

    def _postpone(self, error: ShmqError) -> None:
        self._last_error = error
        self._retry_at = time.monotonic() + self._backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads a storm
        self._backoff = min(self._backoff * 2, BACKOFF_MAX)

    def _lose(self, session: Session, error: ShmqError) -> None:
        with self._turn:
            session.end(_recoverable(error, session))
            close_all(session.take_descriptors())
            if self._session is not session:
                return
            self._session = None
            if session.welcome is None:
                self._postpone(error)
                return
            gone = isinstance(error, ConnectionLost) and error.gone
            if self._loss is None or gone:  # else it was welcome and not yet greeted: that is no new start
                self._loss = Loss(time.monotonic(), _reason(error), gone)
            self._backoff = BACKOFF_FIRST
            self._retry_at = time.monotonic() + BACKOFF_MAX if gone else 0.0

    def _greeted(self, session: Session, welcome: Welcome) -> None:
        self._resume = Resume(welcome.connection_id, welcome.secret)
        self._last_error = self._loss = None
        try:
            for tell in tuple(self.on_welcome):  # which channels come into, and leave
                tell(session, welcome)
        finally:
            close_all(session.take_descriptors())

    # -- waiting ------------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """What to poll besides other things; -1 while there is no socket. Readable: call `advance`."""
        session = self._session
        return -1 if session is None else session.stream.fileno()

    def advance(self, timeout: float, done: Callable[[], bool] = bool) -> None:
        """Wait at most `timeout` (and not long) for something to come and take it, unless `done` already."""
        if self._read_in_turn(timeout, done):
            self._do_chores()

    def _read_in_turn(self, timeout: float, done: Callable[[], bool] = bool) -> bool:
        """Whether it was our turn."""
        return self._read_for(min(self.tick(), timeout, SLICE), done)

    def _read_for(self, pause: float, done: Callable[[], bool] = bool) -> bool:
        mine = False
        try:
            with self._turn:
                if done():
                    return False
                if self._reading:
                    self._turn.wait(pause)
                    return False
                self._reading = mine = True  # in one statement: no signal can come between
            self._take(self._session, pause)
        finally:
            if mine:
                self._reading = False
                with self._turn:
                    self._turn.notify_all()
        return True

    def _take(self, session: Session | None, pause: float) -> None:
        if session is None:
            time.sleep(pause)
            return
        fd = session.stream.fileno()
        if fd >= 0 and poll(fd, POLLIN, pause):
            self._read(session, session.read)

    def _read(self, session: Session, read: Callable[[], object]) -> None:
        greeting = session.welcome is None
        try:
            read()
            if greeting and session.welcome is not None:
                self._greeted(session, session.welcome)
        except ShmqError as error:
            self._lose(session, error)

    def later(self, chore: Callable[[Session], None]) -> None:
        """Have something done in a session by the next caller; for those who must not write themselves."""
        self._chores.append(chore)

    @property
    def has_chores(self) -> bool:
        """Whether something was left for the next caller."""
        session = self._session
        return bool(self._chores) or (session is not None and bool(session.orphans))

    def _do_chores(self) -> None:
        session = self.session
        if session is None or session.ended is not None or not session.is_open:
            return
        try:
            while tags := session.take_orphans():
                session.say(Nack(0, tags), self.read_on)
            while self._chores:
                self._chores.popleft()(session)
        except ConnectionLost as error:  # they were about this session: there is nothing left to do
            self.lose(session, error)

    def read_on(self) -> None:
        """For a writer that must read: take what is there, or leave it to the thread that reads already."""
        self.advance(0.001)

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(
        self,
        make: Callable[[int], ClientFrame],
        expect: type[FrameT],
        *,
        repeat: bool = True,
        timeout: float = REQUEST_TIMEOUT,
        at_once: Callable[[], object] | None = None,
        goes_on: bool = False,
    ) -> FrameT:
        """Send a request and return its answer, without descriptors. Raises as `request`."""
        frame = self.request(make, repeat=repeat, timeout=timeout, at_once=at_once, goes_on=goes_on).frame
        assert isinstance(frame, expect), f"{type(frame).__name__} answers a request for {expect.__name__}"
        return frame

    def request(
        self,
        make: Callable[[int], ClientFrame],
        *,
        repeat: bool = True,
        timeout: float = REQUEST_TIMEOUT,
        reach: float | None = None,
        at_once: Callable[[], object] | None = None,
        goes_on: bool = False,
        take_back: Callable[[int], ClientFrame] | None = None,
    ) -> Reply:
        """Send a request and wait for its answer. `repeat`: it may be sent again in a new session. `reach`: seconds to
        wait for a session; then each answer has the whole timeout. `at_once`: as Answer's. `goes_on`: as `established`.
        `take_back` makes what the broker is told when nobody waits any more for the request of this number.

        Raises what the broker answered; ConnectionLost when the session ended meanwhile and it must not be repeated;
        DaemonNotRunning, OperationTimeout when time is up.
        """
        deadline = time.monotonic() + timeout
        reached = deadline if reach is None else time.monotonic() + reach
        while True:
            session = self.established(reached, timeout, goes_on=goes_on)
            if reach is not None:
                deadline = time.monotonic() + timeout
            try:
                number, answer = session.begin(make, self.read_on, at_once)
            except ConnectionLost as error:
                self.lose(session, error)
                continue
            try:
                self.wait_for(answer, deadline, timeout)
            except BaseException:  # also interrupted: what comes for it goes back
                if take_back is not None and not answer.done:
                    self._say_if_possible(session, take_back(number))
                session.give_up(number, answer)
                raise
            session.forget(number)
            if isinstance(answer.error, ConnectionLost) and repeat:
                continue
            if answer.error is not None:
                raise answer.error
            assert answer.frame is not None
            return Reply(answer.frame, answer.descriptors, session)

    def wait_for(self, answer: Answer, deadline: float, timeout: float) -> None:
        """Return when it is done. Raises OperationTimeout."""
        while not answer.done:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise OperationTimeout(timeout=timeout)
            self.advance(remaining, answer.is_done)

    def established(self, deadline: float, timeout: float, *, goes_on: bool = False) -> Session:
        """Return a session that is open, waiting for one if need be; first raise what earlier calls left behind, unless
        this is a part of a call that `goes_on`: it has begun already, or must come to its end.
        """
        self.check()
        if not goes_on:
            self.raise_failures()
        while (session := self.session) is None or session.ended is not None:
            self.check_hope()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._last_error or OperationTimeout(operation="hello", timeout=timeout)
            self.advance(remaining, lambda: self.session is not None)
        if self._chores:
            self._do_chores()
        return session

    def raise_failures(self) -> None:
        """Raise the oldest refusal of what wanted no answer, once."""
        if self.failures.kept:  # asked by each call
            self.failures.raise_oldest()

    def say_in(self, session: Session, frame: ClientFrame) -> None:
        """Send what is answered only by a refusal, which a later call raises, in this session or not at all. Raises
        ConnectionLost if it can't be written.
        """
        try:
            session.say(frame, self.read_on)
        except ConnectionLost as error:
            self.lose(session, error)
            raise

    def _say_if_possible(self, session: Session, frame: ClientFrame) -> None:
        with contextlib.suppress(SessionError):
            self.say_in(session, frame)

    def begin_in(self, session: Session, make: Callable[[int], ClientFrame], *, late: bool = False) -> Answer:
        """Send a request in this session or not at all; somebody will look at its answer. `late`: as Answer's."""
        try:
            return session.begin(make, self.read_on, late=late)[1]
        except ConnectionLost as error:
            self.lose(session, error)
            raise

    def lose(self, session: Session, error: ConnectionLost) -> None:
        """End a session that can't be written to; first read what can still be: the broker's last words say more."""
        if session is self._session:
            self._read_in_turn(TURN)
        self._lose(session, error)

    # -- the end ------------------------------------------------------------------------------------------------------

    def shut(self) -> bool:
        """Refuse everybody from now on: who attached, or connected, while this ends would take what nobody gives back.
        `close` does the rest. False: somebody else has, or it is not ours.
        """
        with self._turn:
            if self._closed is not None:
                return False
            self._closed = ConnectionClosed()
            return True

    def close(self, *, clean: bool, timeout: float) -> None:
        """Say goodbye and wait for its answer, at most `timeout` seconds. Idempotent."""
        self.shut()
        session, deadline = self.session, time.monotonic() + timeout
        try:
            if session is not None and session.ended is None:
                session.goodbye(clean=clean)
            while session is not None and session.ended is None and (remaining := deadline - time.monotonic()) > 0:
                self._read_for(min(remaining, SLICE))
        except ConnectionLost:
            pass  # gone is what it was to be
        finally:
            self._end(clean=clean or (session is not None and session.left))

    def _end(self, *, clean: bool) -> None:
        """Clean: nothing of ours is half done, or the daemon has heard that something is."""
        last = self._session
        if last is not None:
            self._lose(last, ConnectionClosed())
        self._present.leave(clean=clean)

    def forked(self) -> None:
        self._closed = ForkedHandle()
        if self._session is not None:
            self._session.stream.forked()
        self._present.forked()


def _recoverable(error: ShmqError, session: Session) -> ShmqError:
    """Return what a request under way is told: that its fate is unknown, if another session may come."""
    if isinstance(error, ConnectionClosed):
        return error
    gone = isinstance(error, ConnectionLost) and error.gone
    reason = f"{_reason(error)}; what was under way may or may not be done"
    return ConnectionLost(path=str(session.stream.path), reason=reason, gone=gone)


def _reason(error: ShmqError) -> str:
    return error.reason if isinstance(error, ConnectionLost) and error.reason else str(error)
