"""What may be done with one delivery, and what becomes of its body: the model beside queue_model.py's.

Invariant: a large body stays in the segment until it was read; while it is pinned by views of it, or was never looked
at, an ack keeps its memory (ACKED) until the last of these reasons is gone.
"""

from dataclasses import dataclass, field

from shmq.core import Message as CoreMessage
from shmq.errors import AlreadySettled, BodyReleased, DetachedQueue, ShmqError, StaleDelivery, ViewsInUse
from support.queue_model import Message, QueueModel, State

Refusal = type[ShmqError] | None


@dataclass(eq=False)
class View:
    """A memoryview of a body. Pinned: it shows the segment, not a copy."""

    memory: memoryview
    pinned: bool


@dataclass(eq=False)
class Held:
    """A delivery as its consumer holds it, beside the core's object for it."""

    core: CoreMessage
    message: Message
    owner: int
    state: str = "unacked"
    is_read: bool = False
    is_viewed: bool = False
    is_kept: bool = False
    is_detached: bool = False  # its queue was closed
    views: list[View] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.word = self._word()
        self.is_read = self.state == "auto" or not self.message.is_large

    def _word(self) -> tuple[int, int, int]:
        return self.message.owner, self.message.deliveries, self.message.failures

    @property
    def is_current(self) -> bool:
        """The message is still this delivery's: what the core compares is the same."""
        return self.message.state is State.UNACKED and self._word() == self.word

    @property
    def pins(self) -> int:
        return sum(view.pinned for view in self.views)

    # -- settling -----------------------------------------------------------------------------------------------------

    def refusal(self, *, gives_back: bool = False) -> Refusal:
        """What ack, touch, and what gives the message back, must raise. What is stale is so for ever."""
        if self.state == "stale":
            return StaleDelivery
        if self.state != "unacked":
            return AlreadySettled
        if gives_back and self.views:
            return ViewsInUse
        if not self.is_current:
            self.state = "stale"
            return StaleDelivery
        return None

    def acked(self, model: QueueModel) -> None:
        self.state = "acked"
        self.is_kept = self.message.is_large and (self.pins > 0 or not (self.is_read or self.is_viewed))
        model.ack(self.message, keep=self.is_kept)

    # -- the body -----------------------------------------------------------------------------------------------------

    def body_refusal(self) -> Refusal:
        """What reading the body, or a new view, must raise."""
        if self.is_read:
            return None
        if self.is_kept:
            return DetachedQueue if self.is_detached else None
        if self.state == "unacked":
            return None if self.is_current else StaleDelivery
        return StaleDelivery if self.state == "stale" else BodyReleased

    def was_read(self, model: QueueModel) -> None:
        self.is_read = True
        self.release_unpinned(model)

    def was_viewed(self, memory: memoryview) -> None:
        self.is_viewed = True
        self.views.append(View(memory, pinned=not self.is_read))

    def shows_body(self, view: View) -> bool:
        """Whether the view must show the body; once the message was given to another, it may show anything."""
        return not view.pinned or self.is_kept or self.is_current

    def release_unpinned(self, model: QueueModel) -> None:
        """Give back what an ack kept, when nothing needs it any longer."""
        if self.is_kept and not self.pins and (self.is_read or self.is_viewed):
            self.forgotten(model)

    def forgotten(self, model: QueueModel) -> None:
        """The object is gone, and with it what it kept."""
        if self.is_kept:
            self.is_kept = False
            model.release(self.message)
