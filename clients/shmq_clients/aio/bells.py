"""Waiting at the bells of queues on an event loop, by the rules of the bells: register, look again, then wait; a token
read uses up the registration; who leaves takes a registration back.

Owns: one registration per queue and side for all tasks of a connection, and the loop's reader of that bell. Does not
own: attaching, taking.
Invariants: of the tasks that wait at one bell one is woken at a time, and when it has looked, or was cancelled, the
next one is, as long as something may be there; when the last one leaves and something may still be there, another
process is rung. Wake-ups are hints: each bell is looked at every quarter of a second, more often while a broker is new.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Final, Protocol

from shmq.core import _core as core
from shmq.errors import ShmqError
from shmq_clients.aio.link import AsyncLink
from shmq_clients.aio.waiting import Waiters
from shmq_clients.attachments import STALE_SLICE_NS, Attachment, leave_bell
from shmq_clients.durations import SECOND_NS
from shmq_clients.link import SLICE

STALE_SLICE: Final = STALE_SLICE_NS / SECOND_NS


class Renewing(Protocol):
    """Who knows the state of the bells."""

    def renew(self, attachment: Attachment) -> bool:
        """Ask for new bells where ours are stale, without waiting. Whether they are those that others ring."""


class Bell:
    """One side of one queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, attachment: Attachment, side: int) -> None:
        self.attachment = attachment
        self.side = side
        self.waiters = Waiters()
        self._loop = loop
        self._queue = attachment.queue
        self._fd = -1
        self._registered = False

    def look(self) -> None:
        """Register, look, and wake who is first if something may be there. Leave, if nobody waits."""
        if not self.waiters:
            self.leave()
        elif self._queue.closed:
            self.waiters.tell_all()
        else:
            self._register()
            if self._queue.deleted or self._queue.may_have(self.side):
                self.waiters.tell_one()

    def is_brokered(self) -> bool:
        """Whether all who wait for messages are to see that only the broker hands them out now."""
        return self.side == core.CONSUMERS and not self._queue.closed and self._queue.brokered

    def _register(self) -> None:
        if self._fd < 0:
            self._fd = self._queue.bell_fd(self.side)
            if self._fd >= 0:
                self._loop.add_reader(self._fd, self._on_ring)
        if not self._registered and self._fd >= 0:
            self._queue.bell_register(self.side)
            self._registered = True

    def _on_ring(self) -> None:
        """Without a registration a token is another's: `look` comes first."""
        if self._registered and not self._queue.closed and self._queue.bell_token(self.side):
            self._registered = False
            self.waiters.tell_one()

    def leave(self) -> None:
        """Wait no more at this descriptor, which may be closed then."""
        if self._fd < 0:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.remove_reader(self._fd)
        self._fd, registered, self._registered = -1, self._registered, False
        if self._queue.closed:
            return
        leave_bell(self._queue, self.side, is_registered=registered)


class Bells:
    """Of one connection."""

    def __init__(self, link: AsyncLink, renewing: Renewing) -> None:
        self._link = link
        self._renewing = renewing
        self._bells: dict[tuple[core.Queue, int], Bell] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._hurry_until = 0.0

    async def wait(self, attachment: Attachment, side: int, timeout: float) -> None:
        """Return when it is worth looking, or time is up. Look at once then, before anything else is awaited."""
        key = (attachment.queue, side)
        bell = self._bells.get(key)
        if bell is None:
            bell = self._bells[key] = Bell(self._link.loop, attachment, side)
            self._tick_in(SLICE)
        try:
            await bell.waiters.wait(timeout, bell.look)
        finally:
            self._soon(functools.partial(self._pass_on, key, bell))

    def _pass_on(self, key: tuple[core.Queue, int], bell: Bell) -> None:
        """Who was woken has looked, or will not look any more."""
        bell.look()
        if not bell.waiters and self._bells.get(key) is bell:
            del self._bells[key]

    def _soon(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and this a task that nobody finished
            self._link.loop.call_soon(call)

    # -- what may have changed meanwhile ------------------------------------------------------------------------------

    def hurry(self, seconds: float) -> None:
        """Look often for so long: others may still ring the bells of an earlier broker."""
        self._hurry_until = time.monotonic() + seconds
        self.tell_all()

    def tell_all(self) -> None:
        """Have all who wait look for themselves: the session is another, or none."""
        for bell in self._bells.values():
            bell.waiters.tell_all()
        if self._bells:
            self._tick_in(STALE_SLICE)

    def tell(self, queue: core.Queue) -> None:
        """Have all who wait at this queue look for themselves."""
        for side in (core.CONSUMERS, core.PRODUCERS):
            if (bell := self._bells.get((queue, side))) is not None:
                bell.waiters.tell_all()

    def leave(self, queue: core.Queue) -> None:
        """Let go of the descriptors of a queue, which are to be closed; `look` takes up the new ones."""
        for side in (core.CONSUMERS, core.PRODUCERS):
            if (bell := self._bells.get((queue, side))) is not None:
                bell.leave()

    def look(self, queue: core.Queue) -> None:
        """Go on after `leave`."""
        for side in (core.CONSUMERS, core.PRODUCERS):
            if (bell := self._bells.get((queue, side))) is not None:
                bell.look()

    def close(self) -> None:
        """Leave all, and wake all."""
        if self._ticker is not None:
            self._ticker.cancel()
        for bell in self._bells.values():
            bell.leave()
            bell.waiters.tell_all()
        self._bells.clear()

    def _tick_in(self, seconds: float) -> None:
        """Sooner, if need be; never later: waits may begin one after the other."""
        if self._ticker is not None:
            if self._ticker.when() <= self._link.loop.time() + seconds:
                return
            self._ticker.cancel()
        self._ticker = self._link.loop.call_later(seconds, self._on_tick)

    def _on_tick(self) -> None:
        self._ticker = None
        error = self._out_of_reach()
        settled = self._link.session is not None and time.monotonic() >= self._hurry_until
        for bell in list(self._bells.values()):
            settled &= self._renewing.renew(bell.attachment)
            if error is None and (bell.is_brokered() or bell.side == core.PRODUCERS):
                bell.waiters.tell_all()  # of room only who tries knows whether it is enough
            elif error is None:
                bell.look()
            elif bell.side == core.CONSUMERS:
                bell.waiters.fail_all(error)
            else:
                bell.waiters.tell_all()
        if self._bells and not self._link.closed:
            self._tick_in(SLICE if settled else STALE_SLICE)

    def _out_of_reach(self) -> ShmqError | None:
        try:
            self._link.check_reach()
        except ShmqError as error:
            return error
        return None
