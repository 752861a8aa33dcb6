"""The data path through the broker, for tasks: publishing, getting and consuming by frames.

Owns: what is awaited. Does not own: the frames, what happens in a new session (shmq_clients.socket_path).
Invariants: a frame is written whole before anything is awaited; a get whose task was cancelled gives back what came or
still comes for it, also one without acks: these are settled here, when they are handed out.
"""

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, ClassVar, Final

from shmq.core._core import Ledger
from shmq.errors import ConnectionLost, NotFound, OperationTimeout, PublishError, ShmqError, StaleDelivery
from shmq.limits import BATCH_MESSAGES_MAX, WAITING_GETS_MAX
from shmq.wire.frames import Cancel, CancelGet, ClientFrame, Consume, Counted, Deliver, Get, Got, Ok, Ping
from shmq_clients.aio.link import AsyncLink
from shmq_clients.aio.message import AsyncSocketMessage
from shmq_clients.aio.waiting import Waiters
from shmq_clients.durations import SECOND_NS
from shmq_clients.link import REQUEST_TIMEOUT, SLICE, FrameT, Reply
from shmq_clients.message import SocketMessage
from shmq_clients.outgoing import Outgoing
from shmq_clients.session import Answer, Session
from shmq_clients.settling import acked_at_delivery
from shmq_clients.socket_path import (
    GET_SLICE_NS,
    SocketPath,
    flat,
    more_may_be_there,
    next_batch,
    patience,
    publish_frame,
    publish_many_frame,
    tell_how_many,
    told_of_whole_call,
    waits,
)
from shmq_clients.subscription import Deliveries, Subscription
from shmq_clients.window import OWN_BYTES_MAX, Window

GETS_MAX: Final = WAITING_GETS_MAX - 24  # some that were cancelled may not have ended yet
OWN_MAX: Final = 400  # publishes that wait for their own answers; with those of a window fewer than the broker keeps
MESSAGE_BYTES: Final = 512  # of memory, beside the body
BACKLOG_MAX: Final = 4 << 20  # bytes pushed and not taken by a consumer; then the broker keeps the rest


def _nothing(_session: Session) -> None:
    """What is to be done is done on the way to this."""


class AsyncDeliveries(Deliveries):
    """Settles the deliveries of one session."""

    message_type: ClassVar[type[SocketMessage]] = AsyncSocketMessage

    def __init__(self, link: AsyncLink, session: Session) -> None:
        super().__init__(link, session)
        self._written = link.written

    async def written(self) -> None:
        """Wait until what was said is with the kernel. Raises StaleDelivery when the session ended before."""
        try:
            await self._written(self._session)
        except ConnectionLost as error:
            raise StaleDelivery from error

    def give_back(self, messages: Sequence[SocketMessage]) -> None:
        """Nobody got them."""
        self._session.orphans.extend(message.broker_tag for message in messages)
        self._link.later(_nothing)  # the chores: giving back is one


class Backlog(Subscription):
    """A subscription that knows how many bytes wait in it; `on_less` is called when there are fewer."""

    def __init__(self, consume: Consume, link: AsyncLink, on_less: Callable[[], object], ledger: Ledger | None) -> None:
        super().__init__(consume, link.read_on, ledger)
        self.bytes_waiting = 0
        self._on_less = on_less

    def deliver(self, frame: Deliver) -> None:
        """As inherited."""
        self.bytes_waiting += sum(MESSAGE_BYTES + len(delivery.body) for delivery in frame.deliveries)
        super().deliver(frame)

    def take(self) -> SocketMessage | None:
        """As inherited."""
        message = super().take()
        if message is not None:
            self._less(MESSAGE_BYTES + message.body_bytes)
        return message

    def rest(self) -> SocketMessage | None:
        """As inherited."""
        message = super().rest()
        if message is not None:
            self._less(MESSAGE_BYTES + message.body_bytes)
        return message

    def end(self) -> None:
        """As inherited."""
        if not self.consume.no_ack:
            self._less(self.bytes_waiting)
        super().end()

    def _lose_pushed(self) -> None:
        """As inherited."""
        if not self.consume.no_ack:
            self._less(self.bytes_waiting)
        super()._lose_pushed()

    def forget(self) -> None:
        """As inherited."""
        super().forget()
        self._less(self.bytes_waiting)

    def _less(self, count: int) -> None:
        self.bytes_waiting -= count
        self._on_less()


class Place:
    """Of one publish. `waited_ns`: for it. `leave`: called once, when nothing of it is with the broker any more."""

    def __init__(self, waited_ns: int, leave: Callable[[], object]) -> None:
        self.waited_ns = waited_ns
        self._leave = leave
        self._is_kept = False

    def keep(self, answer: Answer) -> None:
        """Nobody waits for the answer any more; the broker is not done with it before it comes, or the session ends."""
        if not answer.done:
            self._is_kept = True
            answer.at_once = answer.at_once or bool  # so that it is not forgotten
            answer.tell = self._leave

    def end(self) -> None:
        """Nobody needs it, unless it is kept."""
        if not self._is_kept:
            self._leave()


class Places:
    """As Room, for publishes of several tasks that wait for answers of their own: there may be thousands, all count.
    One that was cancelled counts until the broker has answered it.
    """

    def __init__(self) -> None:
        self._bytes = self._number = 0
        self._left = Waiters()

    @contextlib.asynccontextmanager
    async def taken(self, size: int, timeout: float) -> AsyncIterator[Place]:
        """As Room's."""
        counted, began, waited = size + MESSAGE_BYTES, time.monotonic_ns(), False
        while self._is_too_much(counted) and (left := timeout - (time.monotonic_ns() - began) / SECOND_NS) > 0:
            waited = True
            await self._left.wait(left)
        self._bytes += counted
        self._number += 1
        place = Place(time.monotonic_ns() - began if waited else 0, functools.partial(self._leave, counted))
        try:
            yield place
        finally:
            place.end()

    def _leave(self, counted: int) -> None:
        self._bytes -= counted
        self._number -= 1
        self._left.tell_all()

    def _is_too_much(self, size: int) -> bool:
        return self._number >= OWN_MAX or (self._number > 0 and self._bytes + size > OWN_BYTES_MAX)


class AsyncSocketPath(SocketPath):
    """The broker does it for us, and we await it."""

    def __init__(self, link: AsyncLink) -> None:
        super().__init__(link)
        self._link = link
        self._places = Places()
        self._gets = 0
        self._get_ended = Waiters()
        link.is_fed_up = self._is_fed_up
        link.on_change.append(self._tell_consumers)

    def _is_fed_up(self) -> bool:
        return sum(one.bytes_waiting for one in self._subscriptions.values() if isinstance(one, Backlog)) > BACKLOG_MAX

    def _on_less(self) -> None:
        if self._link.is_paused and not self._is_fed_up():
            self._link.resume()

    def _settled_in(self, session: Session) -> Deliveries:
        return AsyncDeliveries(self._link, session)

    def _tell_consumers(self) -> None:
        for subscription in list(self._subscriptions.values()):
            subscription.tell()

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def publish(self, body: Any, out: Outgoing) -> None:  # type: ignore[override] # noqa: ANN401 - awaited here; any buffer
        """As inherited. Cancelled: published or not."""
        payload = flat(body)
        frame = publish_frame(payload, out)
        if waits(out, payload.nbytes):
            await self._asked_with_room(functools.partial(publish_frame, payload), Ok, payload.nbytes, out)
            return

        def send(window: Window, ends_step: bool) -> bool:  # noqa: FBT001 - as Window.count says
            if ends_step:
                window.end_step(self._link.begin_in(window.session, frame, late=True))
            else:
                self._link.say_in(window.session, frame(0))
            return True

        await self._sent_in_window(payload.nbytes, patience(out.timeout_ns), send)

    async def publish_many(self, bodies: Sequence[Any], out: Outgoing) -> None:  # type: ignore[override] # awaited here
        """As inherited. Cancelled: the first ones are published, maybe none, maybe all."""
        deadline_ns, done = time.monotonic_ns() + out.timeout_ns, 0
        while done < len(bodies):
            left = out._replace(timeout_ns=max(0, deadline_ns - time.monotonic_ns()))
            try:
                done += await self._published(next_batch(bodies, done, out), left, goes_on=done > 0)
            except PublishError as error:
                tell_how_many(error, done, len(bodies), out)
                raise

    async def wait_for_confirms(self, timeout: float) -> None:  # type: ignore[override] # awaited here
        """As inherited."""
        window = self._unconfirmed()
        if window is None:
            await self._link.asked(Ping, Ok, timeout=timeout)
        else:
            with self._told_of_loss():
                sent, answer = window.begin_confirm()
                await self._link.answered(answer, time.monotonic() + timeout, timeout)
                window.confirm(sent, answer)
        self._link.raise_failures()

    async def _published(self, batch: list[memoryview], out: Outgoing, *, goes_on: bool) -> int:
        size, frame = sum(body.nbytes for body in batch), publish_many_frame(batch, out)

        def send(window: Window, ends_step: bool) -> bool:  # noqa: FBT001 - as Window.count says
            if not ends_step:
                self._link.say_in(window.session, frame(0))
            return not ends_step

        timeout = patience(out.timeout_ns)
        if not waits(out, size) and await self._sent_in_window(size, timeout, send, goes_on=goes_on):
            return len(batch)
        make = functools.partial(publish_many_frame, batch)
        return (await self._asked_with_room(make, Counted, size, out, goes_on=goes_on)).count

    async def _asked_with_room(
        self,
        make: Callable[[Outgoing], Callable[[int], ClientFrame]],
        expect: type[FrameT],
        size: int,
        out: Outgoing,
        *,
        goes_on: bool = False,
    ) -> FrameT:
        """Send what waits for its own answer, as soon as it may go beside those of other tasks."""
        async with self._places.taken(size, out.timeout_ns / SECOND_NS) as place:
            left = out._replace(timeout_ns=max(0, out.timeout_ns - place.waited_ns))
            timeout, keep = patience(left.timeout_ns), place.keep
            with told_of_whole_call(place.waited_ns, out):
                return await self._link.asked(
                    make(left), expect, repeat=False, timeout=timeout, goes_on=goes_on, given_up=keep
                )

    async def _sent_in_window(
        self, size: int, timeout: float, send: Callable[[Window, bool], bool], *, goes_on: bool = False
    ) -> bool:
        """Send now; in the next session, if this one ends before the frame is written: it has nothing of it. `send`
        returns whether it has sent anything.
        """
        deadline = time.monotonic() + timeout
        while True:
            window = self._window_of(await self._link.session_by(deadline, timeout, goes_on=goes_on))
            while (oldest := window.in_the_way()) is not None:
                await self._link.answered(oldest, deadline, timeout)
                window.settle(oldest)
            with contextlib.suppress(ConnectionLost):
                sent = send(window, window.count(size))
                if sent:
                    await self._link.written(window.session)
                    window.note_sent()
                return sent

    # -- getting ------------------------------------------------------------------------------------------------------

    async def get(  # type: ignore[override] # awaited here
        self, queue: str, max_messages: int, wait_ns: int, *, no_ack: bool, channel: int = 0, goes_on: bool = False
    ) -> list[SocketMessage]:
        """As inherited. Cancelled: what was got goes back."""
        got = await self._gathered(queue, max_messages, wait_ns, channel=channel, goes_on=goes_on)
        return acked_at_delivery(got) if no_ack else got

    async def _gathered(
        self, queue: str, max_messages: int, wait_ns: int, *, channel: int, goes_on: bool
    ) -> list[SocketMessage]:
        self._used = True
        deadline = time.monotonic_ns() + wait_ns
        got: list[SocketMessage] = []
        while True:
            left_ns = 0 if got else max(0, deadline - time.monotonic_ns())
            try:
                most = min(max_messages - len(got), BATCH_MESSAGES_MAX)
                part = await self._got(queue, most, left_ns, channel=channel, goes_on=goes_on or bool(got))
            except ShmqError:
                if got:
                    return got  # the next call meets the error again
                raise
            except BaseException:  # cancelled
                self._give_back(got)
                raise
            got += part
            if len(got) >= max_messages or (not more_may_be_there(part) and (got or time.monotonic_ns() >= deadline)):
                return got

    async def _got(
        self, queue: str, max_messages: int, left_ns: int, *, channel: int, goes_on: bool
    ) -> list[SocketMessage]:
        reply = await self._got_in_turn(queue, max_messages, left_ns, channel=channel, goes_on=goes_on)
        assert isinstance(reply.frame, Got)
        return self.deliveries(reply.session).messages(reply.frame.deliveries, queue, no_ack=False)

    async def _got_in_turn(self, queue: str, max_messages: int, left_ns: int, *, channel: int, goes_on: bool) -> Reply:
        """Only so many may wait at the broker; one that may not looks, and looks again when another one has ended."""
        may_wait = left_ns > 0 and self._gets < GETS_MAX
        wait_ns = min(left_ns, GET_SLICE_NS) if may_wait else 0
        self._gets += may_wait
        try:
            reply = await self._link.requested(
                lambda seq: Get(seq, queue, max_messages, wait_ns, channel=channel),
                timeout=REQUEST_TIMEOUT + wait_ns / SECOND_NS,
                reach=REQUEST_TIMEOUT + left_ns / SECOND_NS,
                take_back=(lambda number: CancelGet(0, number)) if may_wait else None,
                goes_on=goes_on,
            )
        finally:
            self._gets -= may_wait
            if may_wait:
                self._get_ended.tell_one()
        if left_ns and not may_wait and isinstance(reply.frame, Got) and not reply.frame.deliveries:
            await self._get_ended.wait(min(left_ns / SECOND_NS, SLICE))
        return reply

    @staticmethod
    def _give_back(got: list[SocketMessage]) -> None:
        for message in got:
            deliveries = message.session
            assert isinstance(deliveries, AsyncDeliveries)
            deliveries.give_back([message])

    # -- consuming ----------------------------------------------------------------------------------------------------

    async def consumed(self, consume: Consume, news: Waiters, ledger: Ledger | None = None) -> Subscription:
        """As `consume`; `news` are told whenever the subscription has any. Cancelled: nothing is consumed."""
        self._used = True
        deadline = time.monotonic() + REQUEST_TIMEOUT
        subscription = Backlog(consume, self._link, self._on_less, ledger)
        subscription.tell = news.tell_all
        await self._begun(subscription, deadline)
        self._subscriptions[consume.consumer_tag] = subscription
        try:
            while not subscription.is_answered():
                await self._link.session_by(deadline, REQUEST_TIMEOUT, goes_on=True)
                await _in_time(news, deadline)
            subscription.check()
        except ShmqError:
            self._forget(subscription)
            raise
        except BaseException:  # cancelled
            self.abandon(subscription)
            raise
        return subscription

    async def _begun(self, subscription: Subscription, deadline: float) -> None:
        while True:
            session = await self._link.session_by(deadline, REQUEST_TIMEOUT, goes_on=True)
            try:
                subscription.begin(session, self.deliveries(session))
                self._link.resume()
            except ConnectionLost as error:
                self._link.lose(session, error)
                continue
            return

    async def cancelled(self, subscription: Subscription) -> None:
        """As `cancel`."""
        self._forget(subscription)
        if self._link.session is not None:
            tag = subscription.consume.consumer_tag
            with contextlib.suppress(NotFound):  # that session ended, and the next one never knew of it
                await self._link.asked(lambda seq: Cancel(seq, tag), Ok, goes_on=True)
        subscription.ended()


async def _in_time(news: Waiters, deadline: float) -> None:
    if not await news.wait(min(SLICE, deadline - time.monotonic())) and time.monotonic() > deadline:
        raise OperationTimeout(timeout=REQUEST_TIMEOUT)
