"""The queues that this connection works in directly: their segments, bells, and generation words.

Owns: attaching, new bells for a new broker, the mapping of the words. Does not own: publishing and taking.
Invariants: nothing here holds a lock while it waits for the broker; after a session that could not be resumed all
attachments are made anew, because the client's index is another one; deliveries of the old ones stay as they are and
are settled or stale as their control words say.
"""

import contextlib
import mmap
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from shmq.core import _core as core
from shmq.definitions import QueueDefinition
from shmq.errors import DetachedQueue, DirectRefused, LayoutMismatch, NotFound, SessionError, ShmqError
from shmq.names import REPLY_PREFIX
from shmq.wire.frames import Attach, Attached, Bells, RenewBells, Welcome
from shmq_clients.durations import SECOND_NS
from shmq_clients.link import SLICE, Link
from shmq_clients.message import DirectMessage
from shmq_clients.session import Answer, Session
from shmq_clients.stream import close_all, is_green

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

SETTLING_SECONDS: Final = 2.0  # after a new broker, while others may still ring the bells of the old one
FRESHEN_SECONDS_MAX: Final = 0.02
REFUSED_SECONDS: Final = 1.0  # then a queue is asked for again: one of the same name may be another
REPLIES_MAX: Final = 64  # queues of others, for replies to them
STALE_SLICE_NS: Final = 25_000_000  # while our bells may not be those that others ring
SWEEP_FIRST: Final = 32  # queues
GREEN_SLICE_NS: Final = 2_000_000  # under gevent or eventlet, where a bell is looked at and not waited for
TAKE_TURNS: Final = 0.002  # for another thread that is reading already
WORD_BYTES: Final = 8
BROKERED: Final = "the broker decides who gets its messages: one consumer is active, exclusive or prioritised"


class Attachment(NamedTuple):
    """One queue, mapped. ttl_ns: the queue's own, -1 none."""

    name: str
    queue: core.Queue
    queue_id: int
    ttl_ns: int
    definition: QueueDefinition

    @property
    def is_brokered(self) -> bool:
        """Only the broker hands out messages, for now."""
        return not self.queue.closed and self.queue.brokered

    @property
    def is_plain(self) -> bool:
        """Publishing needs no thought: no time to live to add, and what is refused may be tried again."""
        return self.ttl_ns < 0 and self.definition.overflow != "reject-publish-dlx"


class Attachments:
    """By name. `routes` is what the fast path of publish looks into: queues whose messages need no thought."""

    message_type: ClassVar[type[core.Message]] = DirectMessage

    def __init__(self, link: Link) -> None:
        self.link = link
        self.routes: dict[str, core.Queue] = {}
        self.granted = False
        self.reason = ""
        self.user_id = ""  # ours, as the broker sees us
        self._by_name: dict[str, Attachment] = {}
        self._refused: dict[str, tuple[DirectRefused, float]] = {}  # and until when nobody asks again
        self._owner, self._connection_id = 0, ""
        self._bell = -1  # the supervisor's
        self._words: memoryview[int] | None = None
        self._changing = threading.Lock()
        self._settled_at = self._freshen_at = 0.0
        self.on_sweep: list[Callable[[], object]] = []  # who else keeps attachments, by name
        self._sweep_at = SWEEP_FIRST
        self._own_replies: set[str] = set()
        self._replies: deque[str] = deque()  # of others, as they were attached
        self._renewals: dict[str, tuple[Session, Answer]] = {}
        self.around_bells: Callable[[core.Queue], AbstractContextManager[object]] = contextlib.nullcontext

    def on_welcome(self, session: Session, welcome: Welcome) -> None:
        """Take over what came with the welcome; start afresh unless our index is still ours. Must not wait."""
        self.granted = welcome.direct and welcome.layout == core.LAYOUT
        other_layout = "" if self.granted else f"segment layout {welcome.layout}, we read {core.LAYOUT}"
        self.reason = welcome.reason or other_layout
        self.user_id = str(welcome.sender[0]) if welcome.sender else ""
        self._refused.clear()
        self._settled_at = time.monotonic() + SETTLING_SECONDS if self._owner else 0.0
        with self._changing:
            if not welcome.resumed or welcome.client_index != self._owner:
                self.routes.clear()
                self._by_name.clear()
            self._owner, self._connection_id = welcome.client_index, welcome.connection_id
        descriptors = session.take_descriptors()
        if self.granted and len(descriptors) > 1:
            self._take_bell(descriptors[0])
            self._map_words(descriptors[1], welcome.words)
            descriptors = descriptors[2:]
        close_all(descriptors)

    def _take_bell(self, bell: int) -> None:
        with self._changing:
            before, self._bell = self._bell, bell
        close_all((before,) if before >= 0 else ())

    def _map_words(self, fd: int, words: int) -> None:
        """Map them read-only. An aligned load of eight bytes is whole on the machines we run on."""
        try:
            if words:
                mapped = mmap.mmap(fd, words * WORD_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
                self._words = memoryview(mapped).cast("Q")
        finally:
            os.close(fd)

    def word(self, index: int) -> int:
        """Return a generation word; -1, which none ever is, for one that we do not see."""
        words = self._words
        return words[index] if words is not None and index < len(words) else -1

    # -- attaching ----------------------------------------------------------------------------------------------------

    def attach(self, name: str) -> Attachment:
        """Return the queue, mapped now if need be. Raises NotFound, DirectRefused and what a request raises."""
        found = self._by_name.get(name)
        if found is not None and not found.queue.deleted:
            return found
        refusal, until = self._refused.get(name, (None, 0.0))
        if refusal is not None and time.monotonic() < until:
            raise refusal
        if found is not None:
            self.forget(found)
        return self._attach(name)

    def attach_own(self, name: str) -> Attachment:
        """As `attach`, a queue for replies to us."""
        for gone in [own for own in self._own_replies if self._is_deleted(own)]:
            self._own_replies.discard(gone)
            self.drop(gone)
        self._own_replies.add(name)
        return self.attach(name)

    def _is_deleted(self, name: str) -> bool:
        found = self._by_name.get(name)
        return found is None or found.queue.deleted

    def _forget_replies(self, name: str) -> None:
        """Those who are answered are many, and go: only so many of their queues are kept."""
        if name.startswith(REPLY_PREFIX) and name not in self._own_replies:
            self._replies.append(name)
            if len(self._replies) > REPLIES_MAX:
                self.drop(self._replies.popleft())

    def _attach(self, name: str) -> Attachment:
        kept: Attachment | None = None
        while kept is None:
            self.link.check()
            try:
                attachment, welcome = self._map(name)
            except DirectRefused as refusal:
                self._refused[name] = (refusal, time.monotonic() + REFUSED_SECONDS)
                raise
            kept = self._keep(attachment, welcome)
            if kept is not attachment:
                attachment.queue.close()
        self._forget_replies(name)
        self._sweep()
        return kept

    def _sweep(self) -> None:
        """Let go of queues that others have deleted, as soon as they may be half of ours: each has descriptors."""
        if len(self._by_name) < self._sweep_at:
            return
        for attachment in list(self._by_name.values()):
            if attachment.queue.deleted:
                self.forget(attachment)
        for tell in self.on_sweep:
            tell()
        self._sweep_at = max(SWEEP_FIRST, 2 * len(self._by_name))

    def _keep(self, attachment: Attachment, welcome: Welcome) -> Attachment | None:
        """Return how the queue is attached now: maybe by another thread. None: by nobody, and not by this one either:
        meanwhile the connection was closed, when nobody would give back what is taken here, or has another index.
        """
        with self._changing:
            if self.link.closed or welcome.connection_id != self._connection_id:
                return None
            kept = self._by_name.setdefault(attachment.name, attachment)
            if kept is attachment and kept.is_plain:
                self.routes[kept.name] = kept.queue
            return kept

    def _map(self, name: str) -> tuple[Attachment, Welcome]:
        """Map a queue with the index of the session that answers: the broker has noted that it has this segment."""
        if not self.granted:
            raise DirectRefused(queue=name, reason=self.reason)
        reply = self.link.request(lambda seq: Attach(seq, name), goes_on=True)
        facts, welcome = reply.frame, reply.session.welcome
        assert isinstance(facts, Attached)
        assert welcome is not None
        descriptors = reply.descriptors
        try:
            segment, consumers, producers = descriptors
            bells = (consumers, producers, self._copy_of_bell())
            descriptors = (segment, *bells)
            queue = core.Queue(
                segment,
                facts.geometry,
                welcome.client_index,
                queue_id=facts.queue_id,
                bells=bells,
                epoch=facts.epoch,
                message_type=self.message_type,
                context=self._context(name),
            )
            queue.sign(welcome.sender)
        except (LayoutMismatch, OSError) as error:
            close_all(tuple(fd for fd in descriptors if fd >= 0))
            raise DirectRefused(queue=name, reason=str(error)) from error
        return Attachment(name, queue, facts.queue_id, facts.message_ttl_ns, facts.definition), welcome

    def _context(self, name: str) -> object:
        """Return what the queue's messages know it by."""
        return name

    def _copy_of_bell(self) -> int:
        with self._changing:
            return os.dup(self._bell) if self._bell >= 0 else -1

    def forget(self, attachment: Attachment) -> None:
        """Let go of a queue that is gone; messages in hand keep what they need."""
        name = attachment.name
        if self._by_name.get(name) is attachment:
            self._by_name.pop(name, None)
        if self.routes.get(name) is attachment.queue:
            self.routes.pop(name, None)

    def drop(self, name: str) -> None:
        """Let go of a queue by its name; its memory is not freed while anybody has it mapped."""
        if (found := self._by_name.get(name)) is not None:
            self.forget(found)

    def serves(self, name: str, *, insist: bool) -> bool:
        """Whether this queue is worked in directly; attaches it. Raises NotFound; where one insists, DirectRefused."""
        if not self.granted:
            return False
        try:
            attachment = self.attach(name)
        except DirectRefused:
            if insist:
                raise
            return False
        brokered = attachment.queue.brokered
        if brokered and insist:
            raise DirectRefused(queue=name, reason=BROKERED)
        return not brokered

    def refreshed(self, attachment: Attachment) -> Attachment:
        """Return how the queue is attached now; as it was, while there is no session to attach it in."""
        if self.is_current(attachment) or self.link.session is None:
            return attachment
        try:
            return self.attach(attachment.name)
        except SessionError:
            self.link.check()
            return attachment

    def refusal(self, name: str, exchange: str) -> DirectRefused:
        """Return why a message cannot go directly."""
        if exchange:
            reason = (
                f"exchange {exchange!r} routes it to a queue that can't be worked in directly, or has too many bindings"
            )
            return DirectRefused(queue=name, reason=reason)
        refusal, _ = self._refused.get(name, (None, 0.0))
        reason = self.reason or "it, or a queue that its headers name, is another connection's"
        return refusal or DirectRefused(queue=name, reason=reason)

    def is_current(self, attachment: Attachment) -> bool:
        """Whether this is how the queue is attached now."""
        return self._by_name.get(attachment.name) is attachment

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, attachment: Attachment, side: int, timeout_ns: int) -> None:
        """As `wait_any`, at one queue."""
        self.wait_any((attachment,), side, timeout_ns)

    def wait_any(self, attachments: Sequence[Attachment], side: int, timeout_ns: int) -> None:
        """Wait until it is worth looking at the queues again, at most `timeout_ns` and never long.

        For messages only while there is a broker, or may soon be one again: raises as `Link.check_reach`.
        ConnectionClosed when another thread closes it all meanwhile.
        """
        if side == core.CONSUMERS:
            self.link.check_reach()
        try:
            self._wait_any(attachments, side, timeout_ns)
        except DetachedQueue:
            self.link.check()
            raise
        self.link.check()

    def _wait_any(self, attachments: Sequence[Attachment], side: int, timeout_ns: int) -> None:
        due_ns = int(min(self.link.tick(), SLICE) * SECOND_NS)
        pause_ns = min(timeout_ns, max(due_ns, 1_000_000))
        stale = [one for one in attachments if one.queue.bells_stale]
        renewed = sum(self._renew(one) for one in stale) == len(stale)
        if not renewed or self.link.session is None or time.monotonic() < self._settled_at:
            pause_ns = min(pause_ns, STALE_SLICE_NS)
        if is_green():
            time.sleep(min(pause_ns, GREEN_SLICE_NS) / SECOND_NS)  # a wait in C would hold up all greenlets
            self.link.advance(0)
            return
        if core.wait([one.queue for one in attachments], side, pause_ns, self.link.fileno()) == core.OTHER:
            self.link.advance(TAKE_TURNS)

    def deleted(self, attachment: Attachment) -> NotFound:
        """Return the error for a queue that is gone; raise that its instance is, if the broker has said so."""
        self.link.advance(TAKE_TURNS)
        self.link.check_reach()
        return NotFound(f"queue {attachment.name!r} was deleted", name=attachment.name)

    def freshen(self, attachment: Attachment) -> None:
        """Get the bells of a new broker, for who publishes and does not wait: others listen to the new ones only.

        A broker that is not ready yet is not waited for: those who wait look often for a while (SETTLING_SECONDS).
        """
        if not attachment.queue.bells_stale or time.monotonic() < self._freshen_at:
            return
        deadline = time.monotonic() + FRESHEN_SECONDS_MAX
        self.link.advance(0)
        while self.link.session is None and (remaining := deadline - time.monotonic()) > 0:
            self.link.advance(remaining, lambda: self.link.session is not None)
        if not self._renew(attachment, deadline):
            self._freshen_at = time.monotonic() + FRESHEN_SECONDS_MAX

    def _renew(self, attachment: Attachment, deadline: float = 0.0) -> bool:
        """Ask for new bells, once in a session, and take them when they have come: nobody stands still meanwhile."""
        asked = self._ask_for_bells(attachment.name)
        while asked is not None and not asked.done and (remaining := deadline - time.monotonic()) > 0:
            self.link.advance(remaining, asked.is_done)
        if asked is None or not asked.done or self._renewals.pop(attachment.name, None) is None:
            return False  # not yet, or another thread takes them
        bells = asked.frame
        if not isinstance(bells, Bells):
            return False
        if bells.queue_id != attachment.queue_id:
            close_all(asked.descriptors)
            self.forget(attachment)
            return False
        consumers, producers = asked.descriptors
        descriptors = (consumers, producers, self._copy_of_bell())
        try:
            self._set_bells(attachment.queue, descriptors, bells.epoch)
        except ShmqError:  # closed meanwhile, by another thread
            close_all(tuple(fd for fd in descriptors if fd >= 0))
            raise
        return True

    def renew(self, attachment: Attachment) -> bool:
        """Ask for new bells where ours are stale, without waiting. Whether they are those that others ring."""
        queue = attachment.queue
        return queue.closed or not queue.bells_stale or self._renew(attachment)

    @property
    def is_settled(self) -> bool:
        """Whether nobody may ring the bells of an earlier broker any more."""
        return time.monotonic() >= self._settled_at

    def _set_bells(self, queue: core.Queue, bells: tuple[int, int, int], epoch: int) -> None:
        with self.around_bells(queue):
            queue.set_bells(bells, epoch)

    def _ask_for_bells(self, name: str) -> Answer | None:
        """Return what will be answered; None while there is nobody to ask."""
        session = self.link.session
        known = self._renewals.get(name)
        if known is not None and known[0] is session:
            return known[1]
        if session is None:
            return None
        if known is not None:
            close_all(known[1].descriptors)  # came, and was not taken before the session ended
        try:
            asked = self.link.begin_in(session, lambda seq: RenewBells(seq, name))
        except SessionError:
            return None
        self._renewals[name] = (session, asked)
        return asked

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """Requeue what is held and detach. Returns whether nothing of ours is left in any segment."""
        self.routes.clear()
        with self._changing:
            queues = [attachment.queue for attachment in self._by_name.values()]
            self._by_name.clear()
        left = []
        while queues:
            queue = queues.pop()
            queue.requeue_owned()
            queue.close()
            left.append(weakref.ref(queue))
            del queue
        self._take_bell(-1)
        self._words = None
        return all(queue() is None for queue in left)  # a message, loan or view in somebody's hands keeps its queue

    def forked(self) -> None:
        """In a forked child: close what would keep bells and segments open; the core refuses all else by itself."""
        for attachment in list(self._by_name.values()):
            attachment.queue.close()
        close_all((self._bell,) if self._bell >= 0 else ())


def leave_bell(queue: core.Queue, side: int, *, is_registered: bool) -> None:
    """Sleep there no more. A token that was read, and so ended the registration, is passed on to who sleeps still."""
    if is_registered:
        queue.bell_leave(side)
    elif queue.may_have(side):
        queue.bell_ring(side)
