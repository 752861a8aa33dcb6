"""Direct replies (RabbitMQ's direct reply-to), as one channel or connection knows them; alike in all clients.

Owns: what `reply_to` means in a publish of this channel. Does not own: the queue beneath, which is the broker's.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shmq.errors import InvalidArgument, PreconditionFailed
from shmq.names import REPLY_TO


class Replied(Protocol):
    """A consumer of replies."""

    @property
    def is_over(self) -> bool: ...
    @property
    def reply_queue(self) -> str:
        """The queue of now, "" while there is none."""


class Replies:
    """Of one channel. `find` returns its consumer of replies, if that is there."""

    def __init__(self) -> None:
        self.find: Callable[[], Replied | None] = lambda: None

    @property
    def queue(self) -> str:
        """Where replies are to go now; "": nobody waits for any."""
        consumer = self.find()
        return "" if consumer is None or consumer.is_over else consumer.reply_queue

    def check(self, queues: list[str], *, no_ack: bool) -> None:
        """Raise PreconditionFailed or InvalidArgument for a consumer of replies that can't be."""
        if REPLY_TO not in queues:
            return
        if len(queues) > 1:
            raise InvalidArgument(argument="queue", value=queues, allowed=f"{REPLY_TO!r} alone")
        if not no_ack:
            raise PreconditionFailed(f"replies on {REPLY_TO} need no ack: consume with no_ack=True")
        if self.queue:
            raise PreconditionFailed(f"this channel has a consumer of {REPLY_TO} already")

    def addressed(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keywords of a publish, with the true queue. Raises PreconditionFailed without a consumer."""
        if keywords.get("reply_to") != REPLY_TO:
            return dict(keywords)
        queue = self.queue
        if not queue:
            reason = "consume from it first, on the same channel, with no_ack=True"
            raise PreconditionFailed(f"nobody waits for replies on {REPLY_TO}: {reason}")
        return {**keywords, "reply_to": queue}
