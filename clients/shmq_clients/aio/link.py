"""The way to the broker, on an event loop: what the blocking link does while somebody waits, done when there is cause.

Owns: the loop's readers, writers and timers for the session, requests that are awaited. Does not own: what it inherits
from the blocking link: how a session is opened, lost, resumed.
Invariants: nothing here waits but in `await`. Inherited code that must ask the broker says so by `Unanswered`, having
changed nothing; `settled` asks and calls it again. A request whose task was cancelled leaves nothing behind: what comes
for it goes back.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from shmq.errors import ConnectionLost, OperationTimeout, ShmqError
from shmq.wire.fields import Frame
from shmq.wire.frames import ClientFrame, Welcome
from shmq_clients.aio.stream import LoopStream
from shmq_clients.aio.waiting import Waiters
from shmq_clients.link import REQUEST_TIMEOUT, SLICE, Link, Reply
from shmq_clients.session import Answer, Mode, Session
from shmq_clients.stream import SEND_TIMEOUT, Stream, close_all

T = TypeVar("T")
FrameT = TypeVar("FrameT", bound=Frame)

PARTS_MAX: Final = 16  # read in one turn of the loop, 64 KiB or so each
PAUSE_MIN: Final = 0.001


class Unanswered(Exception):  # noqa: N818 - says what is the case
    """A request that must be answered before the call can go on. Never leaves this package."""

    def __init__(self, make: Callable[[int], ClientFrame], *, repeat: bool, timeout: float, goes_on: bool) -> None:
        super().__init__()
        self.make = make
        self.repeat = repeat
        self.timeout = timeout
        self.goes_on = goes_on


class _Told(list["asyncio.Future[None]"]):
    """All who wait for one answer."""

    def __call__(self) -> None:
        for future in self:
            if not future.done():
                future.set_result(None)


class AsyncLink(Link):
    """For one loop. `changed` tells of each session that comes or goes, `on_change` are called then."""

    def __init__(
        self, paths: Sequence[Path], mode: Mode, reconnect_timeout: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(paths, mode, reconnect_timeout)
        self.loop = loop
        self.changed = Waiters()
        self.on_change: list[Callable[[], object]] = [self.changed.tell_all]
        self._written = Waiters()  # told when some of it was
        self._timer: asyncio.TimerHandle | None = None
        self._watched = -1
        self._paused = False
        self.is_fed_up: Callable[[], bool] = bool  # whether so much waits to be taken that nothing more is to be read
        self._known: list[tuple[ClientFrame, Reply | ShmqError]] = []

    # -- opening and closing ------------------------------------------------------------------------------------------

    async def connect(self, timeout: float) -> None:
        """As `open`."""
        deadline = time.monotonic() + timeout
        self._hello_timeout = timeout
        try:
            self._go_on()
            while not self._opened(deadline, timeout):
                await self.changed.wait(deadline - time.monotonic())
        except BaseException:  # also cancelled
            self.close(clean=True, timeout=0)  # nothing was begun
            raise

    async def leave(self, *, clean: bool, timeout: float) -> None:
        """Say goodbye and wait for its answer, at most `timeout` seconds. Idempotent; closed also when cancelled."""
        self.shut()
        session, deadline = self.session, time.monotonic() + timeout
        try:
            if session is not None and session.ended is None:
                session.goodbye(clean=clean)
            self._tell_change()
            while session is not None and session.ended is None and (left := deadline - time.monotonic()) > 0:
                await self.changed.wait(left)
        except ConnectionLost:
            pass  # gone is what it was to be
        finally:
            self._end(clean=clean or (session is not None and session.left))

    def _end(self, *, clean: bool) -> None:
        super()._end(clean=clean)
        if self._timer is not None:
            self._timer.cancel()

    # -- what the loop calls ------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what is due, and see to it that this is called again while there is no session."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.closed:
            return
        due = self.tick()
        if self.session is None:
            self._timer = self.loop.call_later(max(due, PAUSE_MIN), self._go_on)
        self._tell_change()

    def _on_readable(self, session: Session) -> None:
        if session is self._session and not self.forked_off:
            self._read(session, lambda: self._read_parts(session))
            self._do_chores()
            self._pause_if_fed_up()

    def _pause_if_fed_up(self) -> None:
        """Read no more while nobody waits for an answer, nor the broker for us: it keeps the rest in its queues."""
        session = self.session
        if session is None or self._paused or not self.is_fed_up():
            return
        if not session.awaits_answers and not _loop_stream(session).unsent:
            self._paused = True
            self.loop.remove_reader(self._watched)

    @property
    def is_paused(self) -> bool:
        """Whether what the broker says is left unread."""
        return self._paused

    def resume(self) -> None:
        """Read on, if reading was paused."""
        session = self._session
        if self._paused and session is not None and self._watched >= 0:
            self._paused = False
            self.loop.add_reader(self._watched, self._on_readable, session)

    def _read_parts(self, session: Session) -> None:
        for _ in range(PARTS_MAX):
            if not session.read_some():
                return
        self.loop.call_soon(self._on_readable, session)  # others first

    def _on_writable(self, stream: LoopStream) -> None:
        session = self._session
        if session is None or session.stream is not stream or self.forked_off:
            return
        try:
            done = stream.write()
        except ConnectionLost as error:
            self.lose(session, error)
            return
        if done:
            self.loop.remove_writer(stream.fileno())
        self._written.tell_all()

    def _on_left(self, stream: LoopStream) -> None:
        self.resume()
        self.loop.add_writer(stream.fileno(), self._on_writable, stream)

    def _tell_change(self) -> None:
        for tell in self.on_change:
            tell()

    # -- the session, as inherited code comes upon it -----------------------------------------------------------------

    def _stream(self, path: Path) -> Stream:
        return LoopStream(path, self._on_left)

    def _connect(self, now: float) -> None:
        super()._connect(now)
        if self._session is not None:
            self._watched, self._paused = self._session.stream.fileno(), False
            self.loop.add_reader(self._watched, self._on_readable, self._session)

    def _greeted(self, session: Session, welcome: Welcome) -> None:
        super()._greeted(session, welcome)
        self._tell_change()

    def _lose(self, session: Session, error: ShmqError) -> None:
        ours = session is self._session
        if ours and self._watched >= 0:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self.loop.remove_reader(self._watched)
                self.loop.remove_writer(self._watched)
            self._watched = -1
        super()._lose(session, error)
        if not ours:
            return
        self._written.tell_all()
        if self.closed:
            self._tell_change()
        else:
            self.loop.call_soon(self._go_on)

    def lose(self, session: Session, error: ConnectionLost) -> None:
        """As inherited; the broker's last words are read without waiting."""
        if session is self._session:
            self._take(session, 0)
        self._lose(session, error)

    def advance(self, timeout: float, done: Callable[[], bool] = bool) -> None:  # noqa: ARG002 - the loop reads
        """Wait for nothing: do what was left for later."""
        self._do_chores()

    def later(self, chore: Callable[[Session], None]) -> None:
        """As inherited: by the loop, soon."""
        super().later(chore)
        with contextlib.suppress(RuntimeError):  # a finalizer's, when the loop is closed: there is no session either
            self.loop.call_soon_threadsafe(self._do_chores)

    # -- asking -------------------------------------------------------------------------------------------------------

    def request(
        self,
        make: Callable[[int], ClientFrame],
        *,
        repeat: bool = True,
        timeout: float = REQUEST_TIMEOUT,
        reach: float | None = None,  # noqa: ARG002 - as inherited
        at_once: Callable[[], object] | None = None,  # noqa: ARG002 - nothing inherited asks so
        goes_on: bool = False,
        take_back: Callable[[int], ClientFrame] | None = None,  # noqa: ARG002 - as above
    ) -> Reply:
        """Return what `settled` found out, or raise Unanswered."""
        question = make(0)
        for index, (known, reply) in enumerate(self._known):
            if known == question:
                if isinstance(reply, ShmqError):
                    raise reply
                if reply.descriptors:  # whose they are now
                    del self._known[index]
                return reply
        raise Unanswered(make, repeat=repeat, timeout=timeout, goes_on=goes_on)

    async def settled(self, call: Callable[[], T]) -> T:
        """Return what `call` does, which is called again whenever one more request of it is answered."""
        known: list[tuple[ClientFrame, Reply | ShmqError]] = []
        try:
            while True:
                self._known = known
                try:
                    return call()
                except Unanswered as unanswered:
                    missing = unanswered.with_traceback(None)  # which would refer to this very frame
                finally:
                    self._known = []
                known.append((missing.make(0), await self._reply_or_error(missing)))
        finally:
            for _, reply in known:
                close_all(reply.descriptors if isinstance(reply, Reply) else ())
            known.clear()  # as above

    async def _reply_or_error(self, missing: Unanswered) -> Reply | ShmqError:
        try:
            return await self.requested(
                missing.make, repeat=missing.repeat, timeout=missing.timeout, goes_on=missing.goes_on
            )
        except ShmqError as error:
            return error

    async def asked(
        self,
        make: Callable[[int], ClientFrame],
        expect: type[FrameT],
        *,
        repeat: bool = True,
        timeout: float = REQUEST_TIMEOUT,
        at_once: Callable[[], object] | None = None,
        goes_on: bool = False,
        given_up: Callable[[Answer], object] | None = None,
    ) -> FrameT:
        """As `ask`; `given_up` as `requested`'s."""
        reply = await self.requested(
            make, repeat=repeat, timeout=timeout, at_once=at_once, goes_on=goes_on, given_up=given_up
        )
        frame = reply.frame
        assert isinstance(frame, expect), f"{type(frame).__name__} answers a request for {expect.__name__}"
        return frame

    async def requested(
        self,
        make: Callable[[int], ClientFrame],
        *,
        repeat: bool = True,
        timeout: float = REQUEST_TIMEOUT,
        reach: float | None = None,
        take_back: Callable[[int], ClientFrame] | None = None,
        at_once: Callable[[], object] | None = None,
        goes_on: bool = False,
        given_up: Callable[[Answer], object] | None = None,
    ) -> Reply:
        """As the inherited `request`. Cancelled: it was sent or not; nothing that comes for it is kept. `take_back`
        makes what the broker is told then, of the request of this number; `given_up` is told of the answer.
        """
        deadline = time.monotonic() + timeout
        reached = deadline if reach is None else time.monotonic() + reach
        while True:
            session = await self.session_by(reached, timeout, goes_on=goes_on)
            if reach is not None:
                deadline = time.monotonic() + timeout
            try:
                number, answer = session.begin(make, self.read_on, at_once)
            except ConnectionLost as error:
                self.lose(session, error)
                continue
            try:
                await self.answered(answer, deadline, timeout)
            except BaseException:  # also cancelled: what comes for it goes back
                if take_back is not None and not answer.done:
                    self._say_if_possible(session, take_back(number))
                if given_up is not None:
                    given_up(answer)
                session.give_up(number, answer)
                self.loop.call_soon(self._do_chores)
                raise
            session.forget(number)
            if isinstance(answer.error, ConnectionLost) and repeat:
                continue
            if answer.error is not None:
                raise answer.error
            assert answer.frame is not None
            return Reply(answer.frame, answer.descriptors, session)

    def begin_in(self, session: Session, make: Callable[[int], ClientFrame], *, late: bool = False) -> Answer:
        """As inherited."""
        self.resume()
        return super().begin_in(session, make, late=late)

    async def answered(self, answer: Answer, deadline: float, timeout: float) -> None:
        """Wait for an answer. Raises OperationTimeout."""
        if answer.done:
            return
        self.resume()
        future = self.loop.create_future()
        told = answer.tell if isinstance(answer.tell, _Told) else _Told()
        told.append(future)
        answer.tell = told
        timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), _Told([future]))
        try:
            await future
        finally:
            timer.cancel()
        if not answer.done:
            raise OperationTimeout(timeout=timeout)

    async def session_by(self, deadline: float, timeout: float, *, goes_on: bool = False) -> Session:
        """As `established`."""
        self.check()
        if not goes_on:
            self.raise_failures()
        while (session := self.session) is None or session.ended is not None:
            self.check_hope()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._last_error or OperationTimeout(operation="hello", timeout=timeout)
            await self.changed.wait(min(remaining, SLICE))
            self.check()
        if self._chores:
            self._do_chores()
        return session

    async def written(self, session: Session) -> None:
        """Wait until all that was sent in this session by now is with the kernel.

        Raises ConnectionLost when the session ended before, OperationTimeout when the broker reads nothing for long.
        """
        stream = _loop_stream(session)
        if not stream.unsent:
            return
        end, deadline = stream.sent + stream.unsent, time.monotonic() + SEND_TIMEOUT
        while stream.sent < end:
            if session.ended is not None:
                raise session.ended
            if not await self._written.wait(deadline - time.monotonic()):
                raise OperationTimeout(operation="writing to shmqd", timeout=SEND_TIMEOUT)


def _loop_stream(session: Session) -> LoopStream:
    assert isinstance(session.stream, LoopStream)
    return session.stream
