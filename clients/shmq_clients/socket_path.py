"""The data path through the broker: publishing, getting, consuming and settling by frames.

Owns: the frames of the data path, deliveries that were pushed and not yet handed out. Does not own: the link, the
choice between this path and the direct one.
Invariants: deliveries belong to the session they came in; when it ends, what was not handed out is dropped and what was
is stale, and the next session gives all of it back to the queues (Recover) before it consumes again.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from shmq.core._core import PERSISTENT, Ledger
from shmq.errors import BodyTooLarge, ConnectionLost, NotFound, PublishError, QueueFull, ShmqError
from shmq.limits import (
    BATCH_BYTES_MAX,
    BATCH_MESSAGES_MAX,
    BODY_BYTES_MAX,
    DELIVERIES_BYTES,
    DELIVERIES_MAX,
    SEQ_MAX,
)
from shmq.wire.frames import (
    CONFIRM_MEMORY,
    CONFIRM_SENT,
    Cancel,
    CancelGet,
    ClientFrame,
    Consume,
    Counted,
    Get,
    Got,
    Ok,
    Ping,
    Publish,
    PublishMany,
    Recover,
    SetPrefetch,
    Welcome,
)
from shmq_clients.durations import SECOND_NS
from shmq_clients.link import REQUEST_TIMEOUT, FrameT, Link
from shmq_clients.message import SocketMessage
from shmq_clients.outgoing import Outgoing
from shmq_clients.session import Session
from shmq_clients.subscription import Deliveries, Subscription
from shmq_clients.window import ALONE_BYTES, Room, Window

Sent = TypeVar("Sent")

GET_SLICE_NS: Final = 5 * SECOND_NS  # one frame waits no longer, so that a broker that dies silently is noticed


class SocketPath:
    """The broker does it for us."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._subscriptions: dict[str, Subscription] = {}
        self._deliveries: Deliveries | None = None
        self._current: Session | None = None
        self._used = False  # there may be deliveries of ours at the broker
        self.ledgers: dict[int, Ledger] = {}  # of channels, by number
        self._window: Window | None = None
        self._room = Room()
        self._unsure: ShmqError | None = None  # a session ended with publishes that nobody had confirmed

    def on_welcome(self, session: Session, welcome: Welcome) -> None:
        """Give back what an earlier session left, consume again. Must not wait for answers."""
        deliveries = self.deliveries(session)
        if welcome.resumed and self._used:
            session.say(Recover(SEQ_MAX), self.link.read_on)
        for number, ledger in list(self.ledgers.items()):
            if ledger.prefetch:
                session.say(SetPrefetch(SEQ_MAX, ledger.prefetch, channel=number), self.link.read_on)
        for subscription in list(self._subscriptions.values()):
            subscription.begin(session, deliveries)

    def deliveries(self, session: Session) -> Deliveries:
        if self._deliveries is None or self._current is not session:
            self._current, self._deliveries = session, self._settled_in(session)
        return self._deliveries

    def _settled_in(self, session: Session) -> Deliveries:
        return Deliveries(self.link, session)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def publish(self, body: Any, out: Outgoing) -> None:  # noqa: ANN401 - any buffer
        """Raises at once where it waits for an answer (confirm "memory"), else a later call does."""
        payload = flat(body)
        frame = publish_frame(payload, out)
        if waits(out, payload.nbytes):
            self._ask_with_room(functools.partial(publish_frame, payload), Ok, payload.nbytes, out)
            return

        def send(window: Window, ends_step: bool) -> None:  # noqa: FBT001 - as Window.enter says
            if ends_step:
                window.end_step(self.link.begin_in(window.session, frame, late=True))
            else:
                self.link.say_in(window.session, frame(0))
            window.note_sent()

        self._in_window(payload.nbytes, patience(out.timeout_ns), send)

    def publish_many(self, bodies: Sequence[Any], out: Outgoing) -> None:
        """Publish in order, all of them; an error says how many were. The broker tells why one did not go when it is
        the first of a batch, so the rest is sent again.
        """
        deadline_ns, done = time.monotonic_ns() + out.timeout_ns, 0
        while done < len(bodies):
            left = out._replace(timeout_ns=max(0, deadline_ns - time.monotonic_ns()))
            try:
                done += self._publish_batch(next_batch(bodies, done, out), left, goes_on=done > 0)
            except PublishError as error:
                tell_how_many(error, done, len(bodies), out)
                raise

    def wait_for_confirms(self, timeout: float) -> None:
        """Wait until all that was sent is done, publishes that wait for room too.

        Raises ConnectionLost, once, where a session ended with some that nobody had confirmed.
        """
        window = self._unconfirmed()
        if window is None:
            self.link.ask(Ping, Ok, timeout=timeout)
        else:
            with self._told_of_loss():
                sent, answer = window.begin_confirm()
                self.link.wait_for(answer, time.monotonic() + timeout, timeout)
                window.confirm(sent, answer)
        self.link.raise_failures()

    def _unconfirmed(self) -> Window | None:
        """Return the window, if something that was sent in it may be lost. Raises what may be lost already, once."""
        self.link.check()
        unsure, self._unsure = self._unsure, None
        if unsure is not None:
            raise unsure
        window = self._window
        return window if window is not None and window.unconfirmed else None

    @contextlib.contextmanager
    def _told_of_loss(self) -> Iterator[None]:
        """Whoever gets this ConnectionLost has been told; nobody is again."""
        try:
            yield
        except ConnectionLost:
            self._window = None
            raise

    def _publish_batch(self, batch: list[memoryview], out: Outgoing, *, goes_on: bool) -> int:
        size, frame = sum(body.nbytes for body in batch), publish_many_frame(batch, out)

        def send(window: Window, ends_step: bool) -> bool:  # noqa: FBT001 - as Window.enter says
            if not ends_step:
                self.link.say_in(window.session, frame(0))
                window.note_sent()
            return not ends_step

        if not waits(out, size) and self._in_window(size, patience(out.timeout_ns), send, goes_on=goes_on):
            return len(batch)
        make = functools.partial(publish_many_frame, batch)
        return self._ask_with_room(make, Counted, size, out, goes_on=goes_on).count

    def _ask_with_room(
        self,
        make: Callable[[Outgoing], Callable[[int], ClientFrame]],
        expect: type[FrameT],
        size: int,
        out: Outgoing,
        *,
        goes_on: bool = False,
    ) -> FrameT:
        """Send what waits for its own answer, as soon as it may go beside those of other threads."""
        with self._room.taken(size, out.timeout_ns / SECOND_NS) as waited_ns, told_of_whole_call(waited_ns, out):
            left = out._replace(timeout_ns=max(0, out.timeout_ns - waited_ns))
            patient = patience(left.timeout_ns)
            return self.link.ask(make(left), expect, repeat=False, timeout=patient, goes_on=goes_on)

    def _in_window(
        self, size: int, timeout: float, send: Callable[[Window, bool], Sent], *, goes_on: bool = False
    ) -> Sent:
        """Send now; in the next session, if this one ends before the whole frame is written: it has nothing of it."""
        deadline = time.monotonic() + timeout
        while True:
            window = self._window_of(self.link.established(deadline, timeout, goes_on=goes_on))
            with contextlib.suppress(ConnectionLost):
                return send(window, window.enter(size, timeout))

    def _window_of(self, session: Session) -> Window:
        window = self._window
        if window is None or window.session is not session:
            if window is not None and window.unconfirmed:
                self._unsure = window.session.ended
            window = self._window = Window(self.link, session)
        return window

    # -- getting ------------------------------------------------------------------------------------------------------

    def get(
        self, queue: str, max_messages: int, wait_ns: int, *, no_ack: bool, channel: int = 0, goes_on: bool = False
    ) -> list[SocketMessage]:
        """Wait for the first message, then return those that are there. An empty list when time is up. `goes_on`: as
        Link's.
        """
        self._used = True
        deadline = time.monotonic_ns() + wait_ns
        got: list[SocketMessage] = []
        while True:
            slice_ns = 0 if got else max(0, min(deadline - time.monotonic_ns(), GET_SLICE_NS))
            try:
                reach = REQUEST_TIMEOUT + max(0, deadline - time.monotonic_ns()) / SECOND_NS
                most = min(max_messages - len(got), BATCH_MESSAGES_MAX)
                part = self._get(Get(0, queue, most, slice_ns, no_ack, channel), reach, goes_on=goes_on or bool(got))
            except ShmqError:
                if got:
                    return got  # the next call meets the error again
                raise
            got += part
            if len(got) >= max_messages or (not more_may_be_there(part) and (got or time.monotonic_ns() >= deadline)):
                return got

    def _get(self, get: Get, reach: float, *, goes_on: bool) -> list[SocketMessage]:
        reply = self.link.request(
            lambda seq: replace(get, seq=seq),
            repeat=not get.no_ack,
            timeout=REQUEST_TIMEOUT + get.max_wait_ns / SECOND_NS,
            reach=reach,
            goes_on=goes_on,
            take_back=(lambda number: CancelGet(0, number)) if get.max_wait_ns else None,
        )
        assert isinstance(reply.frame, Got)
        return self.deliveries(reply.session).messages(reply.frame.deliveries, get.queue, no_ack=get.no_ack)

    # -- consuming ----------------------------------------------------------------------------------------------------

    def consume(self, consume: Consume, ledger: Ledger | None) -> Subscription:
        """Begin to consume; the broker has agreed when this returns. `ledger`: whom deliveries are entered in."""
        self._used = True
        deadline = time.monotonic() + REQUEST_TIMEOUT
        subscription = Subscription(consume, self.link.read_on, ledger)
        self._begin(subscription, deadline)
        self._subscriptions[consume.consumer_tag] = subscription
        try:
            while not subscription.is_answered():
                self.link.established(deadline, REQUEST_TIMEOUT, goes_on=True)
                self.link.advance(max(0.0, deadline - time.monotonic()), subscription.is_answered)
            subscription.check()
        except BaseException:
            self._forget(subscription)
            raise
        return subscription

    def _begin(self, subscription: Subscription, deadline: float) -> None:
        while True:
            session = self.link.established(deadline, REQUEST_TIMEOUT, goes_on=True)
            try:
                subscription.begin(session, self.deliveries(session))
            except ConnectionLost as error:
                self.link.lose(session, error)
                continue
            return

    def set_prefetch(self, subscription: Subscription, prefetch: int) -> None:
        """Let so many of this consumer be unacked from now on, without waiting for the answer."""
        subscription.consume = replace(subscription.consume, prefetch=prefetch)
        tag, link = subscription.consume.consumer_tag, self.link
        link.later(lambda session: session.say(SetPrefetch(SEQ_MAX, prefetch, tag), link.read_on))
        link.advance(0)

    def cancel(self, subscription: Subscription) -> None:
        """End it here and at the broker. What was handed out stays unacked."""
        self._forget(subscription)
        if self.link.session is not None:
            tag = subscription.consume.consumer_tag
            with contextlib.suppress(NotFound):  # that session ended, and the next one never knew of it
                self.link.ask(lambda seq: Cancel(seq, tag), Ok, goes_on=True)
        subscription.ended()

    def ended_here(self, subscription: Subscription) -> None:
        """As `cancel`; the broker is told otherwise."""
        self._forget(subscription)

    def abandon(self, subscription: Subscription) -> None:
        """As `cancel`, at the next chance and without an answer."""
        self._subscriptions.pop(subscription.consume.consumer_tag, None)
        subscription.forget()
        self.link.later(
            lambda session: session.say(Cancel(SEQ_MAX, subscription.consume.consumer_tag), self.link.read_on)
        )

    def consumes(self, channel: int) -> bool:
        """Whether something may be pushed to this channel."""
        return any(subscription.consume.channel == channel for subscription in list(self._subscriptions.values()))

    def recovered(self, channel: int) -> None:
        """The broker has taken back what this channel had: what was pushed and not handed out is not to be."""
        for subscription in list(self._subscriptions.values()):
            if subscription.consume.channel == channel:
                subscription.recovered()

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.consume.consumer_tag, None)
        subscription.end()


def flat(body: Any) -> memoryview:  # noqa: ANN401 - any buffer
    """Return the bytes of any contiguous buffer. Raises TypeError for what is no buffer, BufferError for others."""
    view = memoryview(body)
    if not view.c_contiguous:
        raise BufferError("a body must be contiguous: publish a copy of it")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def more_may_be_there(part: list[SocketMessage]) -> bool:
    """Whether the broker ended this frame for its size."""
    return len(part) >= DELIVERIES_MAX or sum(message.body_bytes for message in part) >= DELIVERIES_BYTES


def publish_frame(body: memoryview, out: Outgoing) -> Callable[[int], Publish]:
    """Return what makes the frame for a number of the request. Raises BodyTooLarge."""
    _check_size(body, out)

    def frame(seq: int) -> Publish:
        return Publish(seq, out.exchange, out.routing_key, out.envelope, body, *_how(seq, out))  # type: ignore[arg-type] # any buffer becomes a binary

    return frame


def publish_many_frame(batch: list[memoryview], out: Outgoing) -> Callable[[int], PublishMany]:
    """As `publish_frame`, of a batch that fits."""

    def frame(seq: int) -> PublishMany:
        return PublishMany(seq, out.exchange, out.routing_key, out.envelope, batch, *_how(seq, out))  # type: ignore[arg-type] # as above

    return frame


def next_batch(bodies: Sequence[Any], done: int, out: Outgoing) -> list[memoryview]:
    """Return as many bodies, from `done` on, as one frame takes. Raises BodyTooLarge."""
    batch = [flat(body) for body in bodies[done : done + BATCH_MESSAGES_MAX]]
    batch = batch[: _fitting(batch)]
    _check_size(batch[0], out)
    return batch


@contextlib.contextmanager
def told_of_whole_call(waited_ns: int, out: Outgoing) -> Iterator[None]:
    """Let a refusal speak of all the time that the call took, if it waited before."""
    try:
        yield
    except QueueFull as error:
        if waited_ns:
            error.text, error.timeout = "", out.timeout_ns / SECOND_NS
        raise


def tell_how_many(error: PublishError, done: int, count: int, out: Outgoing) -> None:
    """Let the refusal of a batch speak of the whole call."""
    if isinstance(error, QueueFull):
        error.text, error.timeout = "", out.timeout_ns / SECOND_NS
    done += error.published
    error.published = done
    told = "published" if out.confirm == "memory" or out.mandatory else "sent"  # what was sent may be refused still
    error.text = f"{error} ({done} of {count} were {told})"


def _check_size(body: memoryview, out: Outgoing) -> None:
    """Refuse here what would end the session there."""
    if body.nbytes > BODY_BYTES_MAX:
        raise BodyTooLarge(size=body.nbytes, limit=BODY_BYTES_MAX, queue="" if out.exchange else out.routing_key)


def waits(out: Outgoing, size: int) -> bool:
    """Whoever must hear of an unroutable message waits for the answer, and so does much at a time."""
    return out.confirm == "memory" or out.mandatory or size >= ALONE_BYTES


def _how(seq: int, out: Outgoing) -> tuple[int, int, int, bool, int, int, int]:
    """The last fields of both frames of publishing; a number asks for an answer."""
    return (
        out.priority,
        PERSISTENT if out.persistent else 0,
        CONFIRM_MEMORY if seq else CONFIRM_SENT,
        out.mandatory,
        out.ttl_ns,
        out.delay_ns,
        out.timeout_ns,
    )


def _fitting(batch: list[memoryview]) -> int:
    """How many of these bodies one frame may carry: at least one."""
    total = 0
    for index, body in enumerate(batch):
        total += body.nbytes
        if total > BATCH_BYTES_MAX and index:
            return index
    return len(batch)


def patience(timeout_ns: int) -> float:
    """Return the seconds to wait for the broker, which may wait for room itself."""
    return REQUEST_TIMEOUT + timeout_ns / SECOND_NS
