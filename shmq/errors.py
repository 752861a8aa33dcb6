"""Every error of shmq. Data are attributes; the text says what was wrong and what to do about it.

    ShmqError
    +- SessionError                  no session, or no longer
    |  +- DaemonNotRunning           nothing answers
    |  +- NotShmqd                   something else answers
    |  +- ProtocolMismatch    601 x
    |  +- LayoutMismatch      602
    |  +- AlreadyRunning             a second daemon on one place
    |  +- ConnectionLost      320 x  recoverable: connect again
    |  +- ConnectionClosed           close() was called
    |  +- OperationTimeout           no answer before the deadline
    |  +- FrameError          501 x  +- LocalFrameError (ours)  +- RemoteFrameError (the peer's)  +- FrameTooLarge 603 x
    +- HandleError                   the object in hand can't be used (any more)
    |  +- ForkedHandle, DetachedQueue, SegmentDamaged, ViewsInUse, BodyReleased
    +- PreconditionFailed     406
    |  +- InvalidArgument     604    +- InvalidName 605
    |  +- StaleDelivery       606    +- AlreadySettled 607
    +- AccessRefused 403, NotFound 404, ResourceLocked 405, NotAllowed 530, NotSupported 540, InternalError 541
    +- PublishError                  the message was not taken, or not by all
    |  +- BodyTooLarge 311, Unroutable 312, ShmFull 506, PublishRejected 609, NotDurable 610
    |  +- QueueFull           608    +- QueueStopped 612
    +- DirectRefused          611
    +- ConfigError                   file, line, key, hint

The number is the wire code (AMQP's reply code where it has one; ours from 601); each belongs to one class. x: it ends
the session; all others leave it as it was. What has no number never travels. Any class can be made from one text alone.
"""
# ruff: noqa: N818 - the names say what happened; "Error" behind each would add nothing

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final

from shmq.shm import ADVICE, SHM_PATH, figures

START_COMMAND: Final = "systemctl start shmqd, or one of your own: shmqd"


@dataclass(eq=False)
class ShmqError(Exception):
    """Root of all errors of shmq. `text` replaces the generated description."""

    text: str = ""

    code: ClassVar[int | None] = None
    ends_session: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.text or self._describe()

    def _describe(self) -> str:
        return (type(self).__doc__ or "").partition("\n")[0]

    def data(self) -> dict[str, Any]:
        """The attributes that were given, without the text."""
        return {
            field.name: value
            for field in fields(self)
            if field.name != "text" and (value := getattr(self, field.name)) != field.default
        }


# -- the session ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class SessionError(ShmqError):
    """There is no session with shmqd, or there is none any more."""


@dataclass(eq=False)
class DaemonNotRunning(SessionError):
    """Nothing answers on any of the sockets tried. `lost`: a session was, and ended `after` seconds ago, so."""

    paths: Sequence[str] = ()
    start_command: str = START_COMMAND
    lost: str = ""
    after: float = 0.0

    def _describe(self) -> str:
        tried = ", ".join(self.paths) or "no path"
        what = "shmqd is not running: nothing answers on"
        if self.lost:
            what = f"shmqd is gone: the session ended ({self.lost}), and for {self.after:.0f} s nothing answers on"
        return f"{what} {tried}. Start it: {self.start_command}"


@dataclass(eq=False)
class NotShmqd(SessionError):
    """Something answers on the socket, but it is not shmqd."""

    path: str = ""
    reason: str = ""

    def _describe(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"what answers on {self.path or 'this socket'} is not shmqd{reason}. Check the URL or $SHMQ_URL"


@dataclass(eq=False)
class ProtocolMismatch(SessionError):
    """The two ends speak different versions of the protocol."""

    code = 601
    ends_session = True
    ours: int = 0
    theirs: int = 0

    def _describe(self) -> str:
        return f"we speak protocol {self.ours}, the peer {self.theirs}. Install the same version of shmq on both ends"


@dataclass(eq=False)
class LayoutMismatch(SessionError):
    """A segment has a layout that this version can't read."""

    code = 602
    ours: int = 0
    theirs: int = 0

    def _describe(self) -> str:
        return (
            f"we read segment layout {self.ours}, found {self.theirs}. Use the version of shmq that wrote it,"
            ' connect with mode="socket", or drop the segments: shmqd --discard'
        )


@dataclass(eq=False)
class AlreadyRunning(SessionError):
    """Another shmqd already runs on this place."""

    path: str = ""
    pid: int = 0

    def _describe(self) -> str:
        pid = f" (pid {self.pid})" if self.pid else ""
        return f"another shmqd{pid} already uses {self.path}. Stop it first, or choose other places: --data, --socket"


@dataclass(eq=False)
class ConnectionLost(SessionError):
    """The session ended without our wish; connecting again may help, unless the instance is `gone` for good."""

    code = 320
    ends_session = True
    path: str = ""
    reason: str = ""
    gone: bool = False

    def _describe(self) -> str:
        where = f" on {self.path}" if self.path else ""
        reason = f": {self.reason}" if self.reason else ""
        if self.gone:
            return f"shmqd{where} has ended for good, with its queues{reason}. Start another one and connect to that"
        return f"lost the connection to shmqd{where}{reason}. Connect again; unacked messages are redelivered"


@dataclass(eq=False)
class ConnectionClosed(SessionError):
    """This connection was closed with close(); open a new one."""


@dataclass(eq=False)
class OperationTimeout(SessionError):
    """shmqd did not answer before the deadline."""

    operation: str = ""
    timeout: float = 0.0

    def _describe(self) -> str:
        what = self.operation or "the request"
        if self.timeout * 1_000 < 1:  # that it did not come sooner says nothing about shmqd
            return f"no answer to {what} within {self.timeout:g} s, which is shorter than one takes. Allow more time"
        return f"no answer to {what} within {self.timeout:g} s: shmqd is stopped, or has too much to do. See its log"


@dataclass(eq=False)
class FrameError(SessionError):
    """A frame broke the protocol; the session is over."""

    code = 501
    ends_session = True


@dataclass(eq=False)
class LocalFrameError(FrameError):
    """We tried to send what the protocol does not allow; nothing was sent."""


@dataclass(eq=False)
class RemoteFrameError(FrameError):
    """The peer sent what the protocol does not allow."""


@dataclass(eq=False)
class FrameTooLarge(FrameError):
    """A frame is larger than the protocol allows."""

    code = 603
    size: int = 0
    limit: int = 0

    def _describe(self) -> str:
        return f"a frame of {self.size} bytes, allowed are {self.limit}. The session is closed"


# -- handles ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class HandleError(ShmqError):
    """The object in hand can't be used for this, or no longer."""


@dataclass(eq=False)
class ForkedHandle(HandleError):
    """This object belongs to the parent of this process: connect anew after fork()."""


@dataclass(eq=False)
class DetachedQueue(HandleError):
    """This queue was detached or its connection closed: connect or attach anew."""


@dataclass(eq=False)
class SegmentDamaged(HandleError):
    """A word in the queue's segment failed its check. Delete the queue, or drop all segments: shmqd --discard."""


@dataclass(eq=False)
class ViewsInUse(HandleError):
    """Views of the body are alive: release them first (or ack, which keeps the memory until they are gone)."""


@dataclass(eq=False)
class BodyReleased(HandleError):
    """The body was given back when the message was settled: read it, or take a view, before that."""


# -- refused by the broker --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class AccessRefused(ShmqError):
    """The operation is not permitted."""

    code = 403
    what: str = ""
    reason: str = ""

    def _describe(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"access to {self.what or 'this'} refused{reason}. Run as the user of shmqd, or ask its operator"


@dataclass(eq=False)
class NotFound(ShmqError):
    """There is no such queue, exchange or consumer. `kind` says which, `name` which one."""

    code = 404
    kind: str = "queue"
    name: str = ""

    def _describe(self) -> str:
        advice = {"queue": ". Declare it first (declare_queue)", "exchange": ". Declare it first (declare_exchange)"}
        return f"no {self.kind} {self.name!r}{advice.get(self.kind, '')}"


@dataclass(eq=False)
class ResourceLocked(ShmqError):
    """The queue is exclusive to another connection."""

    code = 405
    queue: str = ""

    def _describe(self) -> str:
        return f"queue {self.queue!r} is exclusive to another connection. Use another name, or wait until it is closed"


@dataclass(eq=False)
class PreconditionFailed(ShmqError):
    """What is there differs from what was asked for. `argument` names the first difference."""

    code = 406
    kind: str = "queue"
    name: str = ""
    argument: str = ""
    declared: object = None
    asked: object = None

    def _describe(self) -> str:
        if not self.argument:
            return super()._describe()
        return (
            f"{self.kind} {self.name!r} has {self.argument} = {self.declared!r}, asked for {self.asked!r}."
            f" Ask for the same, or delete the {self.kind} first"
        )


@dataclass(eq=False)
class InvalidArgument(PreconditionFailed):
    """An argument has a value that can't be used."""

    code = 604
    value: object = None
    allowed: str = ""

    def _describe(self) -> str:
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return f"{self.argument} = {self.value!r} can't be used{allowed}"


@dataclass(eq=False)
class InvalidName(InvalidArgument):
    """A name is empty, too long, or has control characters."""

    code = 605


@dataclass(eq=False)
class StaleDelivery(PreconditionFailed):
    """This delivery is no longer ours: its message went back to the queue (ack timeout, lost session)."""

    code = 606


@dataclass(eq=False)
class AlreadySettled(PreconditionFailed):
    """This delivery was acked, nacked or rejected before, or its delivery tag was never given out."""

    code = 607


@dataclass(eq=False)
class NotAllowed(ShmqError):
    """Not allowed in this state, such as a consumer tag that is in use."""

    code = 530


@dataclass(eq=False)
class NotSupported(ShmqError):
    """shmq does not do this (yet)."""

    code = 540


@dataclass(eq=False)
class InternalError(ShmqError):
    """The broker failed at this; its log says why. Other operations go on."""

    code = 541


@dataclass(eq=False)
class DirectRefused(ShmqError):
    """This queue can't be worked in directly by this connection."""

    code = 611
    queue: str = ""
    reason: str = ""

    def _describe(self) -> str:
        of_queue = f" for {self.queue!r}" if self.queue else ""
        return f'direct mode refused{of_queue}: {self.reason}. Connect with mode="auto" or mode="socket"'


# -- publishing -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class PublishError(ShmqError):
    """The message was not taken, or not by every queue it was routed to."""

    published: int = field(default=0, kw_only=True)  # of several bodies, those before this one


@dataclass(eq=False)
class BodyTooLarge(PublishError):
    """The body can never fit in this queue."""

    code = 311
    size: int = 0
    limit: int = 0
    queue: str = ""

    def _describe(self) -> str:
        where = f" in queue {self.queue!r}" if self.queue else ""
        return f"a body of {self.size} bytes, the limit{where} is {self.limit}. Declare it with a larger capacity_bytes"


@dataclass(eq=False)
class Unroutable(PublishError):
    """A mandatory message matched no queue."""

    code = 312
    exchange: str = ""
    routing_key: str = ""

    def _describe(self) -> str:
        where = f"exchange {self.exchange!r}" if self.exchange else "the default exchange"
        return f"{where} routes {self.routing_key!r} to no queue. Bind one, or publish with mandatory=False"


@dataclass(eq=False)
class QueueFull(PublishError):
    """The queue has no room, and got none before the deadline."""

    code = 608
    queue: str = ""
    depth: int = 0
    limit: int = 0
    timeout: float = 0.0
    unit: str = "messages"

    def _describe(self) -> str:
        waited = f" after {self.timeout:g} s" if self.timeout else ""
        which = f"queue {self.queue!r}" if self.queue else "a queue that it was routed to"
        return (
            f"{which} is full{waited}: {self.depth} of {self.limit} {self.unit}."
            " Consume, purge, or declare it with a larger capacity"
        )


@dataclass(eq=False)
class QueueStopped(QueueFull):
    """The queue has more than its fair share of memory (`depth`, `limit`) while all have more than their `mark`."""

    code = 612
    mark: int = 0

    def _describe(self) -> str:
        waited = f" after {self.timeout:g} s" if self.timeout else ""
        had, share, mark = (f"{size / (1 << 20):.1f} MiB" for size in (self.depth, self.limit, self.mark))
        which = f"queue {self.queue!r}" if self.queue else "a queue that it was routed to"
        return (
            f"{which} may not grow{waited}: it has {had} of shared memory, its fair share is {share} while"
            f" all queues are above their mark of {mark} (memory_watermark). Consume, purge, delete queues, or raise it"
        )


@dataclass(eq=False)
class ShmFull(PublishError):
    """Shared memory is used up: nothing was published or created."""

    code = 506
    queue: str = ""

    def _describe(self) -> str:
        where = f"queue {self.queue!r} can't grow: " if self.queue else ""
        return f"{where}no shared memory left{figures()}. {ADVICE}"

    def __str__(self) -> str:
        if not self.text or SHM_PATH in self.text:
            return self.text or self._describe()
        return f"{self.text}{figures()}. {ADVICE}"


@dataclass(eq=False)
class PublishRejected(PublishError):
    """A queue refused the message by its policy; other queues that it was routed to have it."""

    code = 609
    queues: Sequence[str] = ()
    reason: str = ""

    def _describe(self) -> str:
        names = ", ".join(map(repr, self.queues))
        reason = f" ({self.reason})" if self.reason else ""
        return f"refused by {names or 'a queue'}{reason}. Other queues it was routed to have it"


@dataclass(eq=False)
class NotDurable(PublishError):
    """confirm="disk" needs a journal, and this daemon has none."""

    code = 610
    durability: str = "memory"

    def _describe(self) -> str:
        why = f'this shmqd has durability "{self.durability}" (survives its own death, not a reboot)'
        return f'confirm="disk" can\'t be kept: {why}. Use confirm="memory"'


# -- configuration ----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ConfigError(ShmqError):
    """The configuration can't be used. `hint` says what would be right."""

    file: str = ""
    line: int = 0
    key: str = ""
    hint: str = ""

    def _describe(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(filter(None, [place, self.key, self.hint or "can't be used"]))
