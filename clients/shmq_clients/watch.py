"""One descriptor for all consumers of a connection, for event loops that are not asyncio's, and taking what is there.

Owns: the descriptor (an epoll that holds the bells, the control socket, and a bell of our own), which consumers are
worth looking at, their turns. Does not own: taking (consumer.py), the rules of the bells (core/bell.c).
Invariants: register, look, wait; a token is read only of a queue that is looked at next, so that none is kept from
other processes; who has no room, or leaves, takes its registration back and passes a token on; all looks are taken once
in a while, because wake-ups are hints. What is left when a call has enough keeps the descriptor readable. Only `wait`
waits, and by poll(2) as Python has it.
"""

import contextlib
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from shmq.core import _core as core
from shmq.errors import ForkedHandle, ShmqError
from shmq_clients import forks
from shmq_clients.attachments import STALE_SLICE_NS, Attachments, leave_bell
from shmq_clients.consumer import DirectConsumer, SocketConsumer
from shmq_clients.durations import SECOND_NS
from shmq_clients.link import SLICE, Link
from shmq_clients.stream import POLLIN, close_all, poll

STALE_SLICE: Final = STALE_SLICE_NS / SECOND_NS

Watched: TypeAlias = DirectConsumer | SocketConsumer


class Event(NamedTuple):
    """What `drain` returns: a message of a consumer, as `consume` returned it; or an error, by which it has ended, or
    one queue of several that it was over.
    """

    consumer: Any
    message: Any
    error: ShmqError | None


class Nudge:
    """A bell of our own: something is here already, or has changed. Refers to nobody, so everybody may keep it."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.told: deque[str] = deque()  # tags of consumers that were told something
        self._using = threading.RLock()  # so that nobody rings what has become another's descriptor

    def ring(self) -> None:
        """Make the descriptor readable."""
        if self.fd < 0:
            return
        with self._using:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def tell(self, tag: str) -> None:
        """This consumer has news."""
        self.told.append(tag)
        self.ring()

    def clear(self) -> None:
        """What it was rung for is looked at now."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Ring no more."""
        with self._using:
            self.forked()

    def forked(self) -> None:
        """The same, in a forked child: another thread of the parent may have been ringing."""
        fd, self.fd = self.fd, -1
        close_all((fd,) if fd >= 0 else ())


class Bell:
    """Our place at the consumers' bell of one queue."""

    def __init__(self, epoll: int, queue: core.Queue) -> None:
        self.queue = queue
        self.fd = -1
        self._epoll = epoll
        self._is_registered = False

    def look(self) -> bool:
        """Register, if we are not; whether something may be there."""
        if self.fd < 0:
            self.fd = self.queue.bell_fd(core.CONSUMERS)
            if self.fd >= 0:
                core.epoll_watch(self._epoll, self.fd, True)
        if not self._is_registered and self.fd >= 0:
            self.queue.bell_register(core.CONSUMERS)
            self._is_registered = True
        return self.queue.may_have(core.CONSUMERS)

    def read_token(self) -> None:
        """It is looked at next."""
        if self._is_registered and not self.queue.closed and self.queue.bell_token(core.CONSUMERS):
            self._is_registered = False

    def leave(self) -> None:
        """Wait no more at this descriptor, which may be closed then."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        is_registered, self._is_registered = self._is_registered, False
        if self.queue.closed:
            return  # and its descriptor with it
        core.epoll_watch(self._epoll, fd, False)
        leave_bell(self.queue, core.CONSUMERS, is_registered=is_registered)


class Watch:
    """Of one connection, for its consumers from now on until they are cancelled."""

    def __init__(self, link: Link, attachments: Attachments) -> None:
        self._link = link
        self._attachments = attachments
        self.epoll = core.epoll_open()
        self._nudge = Nudge()
        self._lock = threading.RLock()  # of the same thread: a look may change bells
        self._consumers: dict[str, Watched] = {}  # by the tags that the broker knows
        self._wholes: dict[Watched, object] = {}  # of consumers over several queues
        self._hot: deque[Watched] = deque()  # to be looked at, in turn
        self._is_hot: set[Watched] = set()
        self._full: set[Watched] = set()  # had no room when they were looked at
        self._bells: dict[core.Queue, Bell] = {}
        self._by_fd: dict[int, core.Queue] = {}
        self._control: object = None  # whose socket is watched
        self._control_fd = -1
        self._look_at = 0.0
        core.epoll_watch(self.epoll, self._nudge.fd, True)
        attachments.around_bells = self._changing_bells
        forks.register(self)

    # -- consumers ----------------------------------------------------------------------------------------------------

    def add(self, consumer: Watched) -> None:
        """Look at this one, too."""
        self._consumers[consumer.wire_tag] = consumer
        if whole := consumer.whole():
            self._wholes[consumer] = whole
        consumer.tell_watch(self._nudge.ring, functools.partial(self._nudge.tell, consumer.wire_tag))
        self._nudge.tell(consumer.wire_tag)

    # -- waiting ------------------------------------------------------------------------------------------------------

    @property
    def pause(self) -> float:
        """Seconds after which it is worth draining though the descriptor was not readable."""
        return max(0.0, self._look_at - time.monotonic())

    def drain(self, limit: int, timeout: float) -> list[Event]:
        """Return what is there, `limit` events at most, one of each consumer in turn; waiting for the first one.

        Raises as an iteration does that has nothing to hand out.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                events = self._drain(limit)
            remaining = deadline - time.monotonic()
            if events or remaining <= 0:
                return events
            poll(self.epoll, POLLIN, min(remaining, self.pause))

    def _drain(self, limit: int) -> list[Event]:
        self._link.check()
        if self.epoll < 0:
            raise ForkedHandle
        self._look_around()
        events: list[Event] = []
        again = len(self._hot)  # who may have something by a hint, and has not, is asked once more
        while self._hot and len(events) < limit:
            consumer = self._hot.popleft()
            self._is_hot.discard(consumer)
            try:
                event = self._take(consumer)
            except ShmqError:
                if not events:
                    self._keep_readable()
                    raise
                self._heat(consumer)  # what was taken must not be lost: the next call meets the error again
                break
            if event is not None:
                events.append(event)
            if (event is not None and event.error is None) or (self._rests(consumer) and again > 0):
                again -= event is None
                self._heat(consumer)
        self._keep_readable()
        if not events:
            self._link.raise_failures()
            if self._consumers:
                self._link.check_reach()
        return events

    def _keep_readable(self) -> None:
        if self._hot:
            self._nudge.ring()

    def _look_around(self) -> None:
        """Find out who is worth looking at."""
        ready = core.epoll_ready(self.epoll)
        if self._nudge.fd in ready:
            self._nudge.clear()
        if self._control_fd in ready or self._link.session is None or self._link.has_chores:
            self._link.advance(0)
        self._watch_control()
        for consumer in [consumer for consumer in self._full if consumer.has_room]:
            self._heat(consumer)
        while self._nudge.told:
            told = self._consumers.get(self._nudge.told.popleft())
            if told is not None:
                self._heat(told)
        rung = {self._by_fd[fd] for fd in ready if fd in self._by_fd}
        if time.monotonic() >= self._look_at:
            self._tend()
        elif rung:
            for consumer in self._consumers.values():
                if consumer.queue in rung:
                    self._heat(consumer)

    def _tend(self) -> None:
        """Look at all, whatever the bells; see to it that they are those that others ring."""
        is_settled = self._link.session is not None and self._attachments.is_settled
        for consumer in self._consumers.values():
            self._heat(consumer)
            if consumer.attachment is not None:
                is_settled &= self._attachments.renew(consumer.attachment)
        self._leave_unused()
        self._look_at = time.monotonic() + (SLICE if is_settled else STALE_SLICE)

    def _leave_unused(self) -> None:
        used = {consumer.queue for consumer in self._consumers.values()}
        for queue in self._bells.keys() - used:
            self._leave(queue)
            del self._bells[queue]

    def _heat(self, consumer: Watched) -> None:
        if consumer not in self._is_hot:
            self._is_hot.add(consumer)
            self._hot.append(consumer)

    def _watch_control(self) -> None:
        session = self._link.session
        if session is self._control:
            return
        if self._control is not None:
            self._look_at = 0.0  # it is another one, or none
        self._control, self._control_fd = session, -1
        if session is not None and (fd := session.stream.fileno()) >= 0:
            self._control_fd = fd
            core.epoll_watch(self.epoll, fd, True)

    # -- taking -------------------------------------------------------------------------------------------------------

    def _take(self, consumer: Watched) -> Event | None:
        self._full.discard(consumer)
        if consumer.is_cancelled:
            self._forget(consumer)
            return None
        queue, whole = consumer.queue, self._wholes.get(consumer)
        if queue is not None and (bell := self._bells.get(queue)) is not None:
            bell.read_token()
        try:
            message = consumer.take()
        except ShmqError as error:
            self._link.check()
            if error.ends_session or self._link.session is None:
                raise
            with contextlib.suppress(ShmqError):
                consumer.cancel()
            self._forget(consumer)
            return Event(whole or consumer, None, error)
        return None if message is None else Event(whole or consumer, message, None)

    def _forget(self, consumer: Watched) -> None:
        if self._consumers.get(consumer.wire_tag) is consumer:
            del self._consumers[consumer.wire_tag]
        self._wholes.pop(consumer, None)
        self._leave_unused()

    def _rests(self, consumer: Watched) -> bool:
        """It had nothing: wait for it. Whether it is worth another look at once."""
        if consumer.is_cancelled:
            return False
        if not consumer.has_room:
            self._full.add(consumer)
        queue = consumer.queue
        if queue is None or queue.closed:
            return False
        if not any(other.queue is queue and other.has_room for other in self._consumers.values()):
            self._leave(queue)
            return False
        bell = self._bells.get(queue)
        if bell is None:
            bell = self._bells[queue] = Bell(self.epoll, queue)
        may_have = bell.look()
        self._by_fd[bell.fd] = queue
        if may_have and not consumer.has_room:  # it may have read the token that was meant for another one here
            for other in self._consumers.values():
                if other.queue is queue and other.has_room:
                    self._heat(other)
        return may_have and consumer.has_room

    def _leave(self, queue: core.Queue) -> None:
        bell = self._bells.get(queue)
        if bell is not None:
            self._by_fd.pop(bell.fd, None)
            bell.leave()

    @contextlib.contextmanager
    def _changing_bells(self, queue: core.Queue) -> Iterator[None]:
        """Nothing may be left at the old ones, and nobody may go there meanwhile: they would never be left again."""
        with self._lock:
            self._leave(queue)
            self._look_at = 0.0
            self._nudge.ring()
            yield

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave all bells, and close our descriptors."""
        with self._lock:
            for queue in list(self._bells):
                self._leave(queue)
            self._bells.clear()
            self._consumers.clear()
            self._wholes.clear()
            self._nudge.close()
            self._close_epoll()

    def _close_epoll(self) -> None:
        epoll, self.epoll = self.epoll, -1
        close_all((epoll,) if epoll >= 0 else ())

    def forked(self) -> None:
        """In a forked child: let go of the descriptors, which are the parent's."""
        self._nudge.forked()
        self._close_epoll()
