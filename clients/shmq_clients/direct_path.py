"""The data path in the segment: publish into a queue, lend a body, get; and waiting for room or messages.

Owns: what each outcome of the core means to a caller, waiting for room and for messages. Does not own: which queues
(publishing.py), iteration (consumer.py).
Invariants: a call ends at its deadline whatever the daemon does; nothing is published twice, because an outcome other
than OK means that nothing was.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from shmq.core import _core as core
from shmq.errors import BodyTooLarge, PublishError, PublishRejected, QueueFull, QueueStopped, ShmFull
from shmq.limits import TIME_NS_MAX
from shmq_clients.attachments import Attachment, Attachments
from shmq_clients.durations import SECOND_NS
from shmq_clients.outgoing import MS_NS, Outgoing

USED_SLICE_NS: Final = 5_000_000
TOO_LONG: Final = "it is as long as it may be (x-max-length, x-max-length-bytes; x-overflow)"
NO_ROOM: Final = (core.FULL, core.STOPPED)  # outcomes that waiting may change
T = TypeVar("T")


class QueueGone(Exception):  # noqa: N818 - says what is the case
    """The queue was deleted; its name may have been used again. Never leaves this package."""


class DirectPath:
    """Works in attached queues."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    # -- publishing ---------------------------------------------------------------------------------------------------

    def publish(self, target: Attachment, out: Outgoing, body: Any, deadline_ns: int) -> int:  # noqa: ANN401 - any buffer
        """Publish one message. Returns 1. Raises QueueFull, ShmFull, BodyTooLarge; QueueGone."""
        self._attachments.freshen(target)
        queue, keywords = target.queue, keywords_for(target, out)
        while (outcome := queue.publish(body, **keywords)) != core.OK:
            self._wait_for_room(target, outcome, memoryview(body).nbytes, out, deadline_ns)
        return 1

    def publish_many(
        self, target: Attachment, out: Outgoing, bodies: Sequence[Any], start: int, deadline_ns: int | None
    ) -> int:
        """Publish in order from `start` on; an error leaves the first ones published. Without a deadline only what
        there is room for. Returns how many the queue has, counted from the first. Raises as `publish`.
        """
        self._attachments.freshen(target)
        queue, keywords, done = target.queue, keywords_for(target, out), start
        while True:
            count, outcome = queue.publish_many(bodies, start=done, **keywords)
            done += count
            if done == len(bodies) or (deadline_ns is None and outcome in NO_ROOM):
                return done
            try:
                self._wait_for_room(target, outcome, memoryview(bodies[done]).nbytes, out, deadline_ns or 0)
            except PublishError as error:
                error.published = done
                if len(bodies) > 1:
                    error.text = f"{error} ({done} of {len(bodies)} were published)"
                raise

    def loan(self, target: Attachment, out: Outgoing, body_bytes: int, deadline_ns: int) -> core.Loan:
        """Lend room for a body. Raises as `publish`."""
        self._attachments.freshen(target)
        queue, keywords = target.queue, keywords_for(target, out)
        while isinstance(loan := queue.loan(body_bytes, **keywords), int):
            self._wait_for_room(target, loan, body_bytes, out, deadline_ns)
        return loan

    def _wait_for_room(self, target: Attachment, outcome: int, size: int, out: Outgoing, deadline_ns: int) -> None:
        remaining = time_for_room(target, outcome, size, out, deadline_ns)
        if out.timeout_ns == TIME_NS_MAX:
            self._attachments.link.check_reach()  # a wait without an end of its own
        self._attachments.wait(target, core.PRODUCERS, remaining)

    def wait_a_while(self, target: Attachment, out: Outgoing, deadline_ns: int) -> None:
        """Wait for room in one of several queues that are full: any other may have some sooner."""
        if out.timeout_ns == TIME_NS_MAX:
            self._attachments.link.check_reach()
        self._attachments.wait(target, core.PRODUCERS, max(0, deadline_ns - time.monotonic_ns()))

    # -- getting ------------------------------------------------------------------------------------------------------

    def get(self, name: str, wait_ns: int, *, no_ack: bool) -> core.Message | None:
        """Return the next message, None when time is up. Raises NotFound."""
        return self._until(name, wait_ns, lambda queue: queue.take(no_ack))

    def get_batch(self, name: str, max_messages: int, wait_ns: int, *, no_ack: bool) -> list[core.Message]:
        """Wait for the first message, then return those that are there. An empty list when time is up."""
        return self._until(name, wait_ns, lambda queue: queue.take_many(max_messages, no_ack)) or []

    def _until(self, name: str, wait_ns: int, take: Callable[[core.Queue], T]) -> T:
        attachment = self._attachments.attach(name)
        self._attachments.freshen(attachment)
        taken = look(attachment, take)
        if taken or wait_ns == 0:
            return taken
        deadline = time.monotonic_ns() + wait_ns
        while not taken and (remaining := deadline - time.monotonic_ns()) > 0:
            if attachment.queue.deleted:
                raise self._attachments.deleted(attachment)
            self._attachments.wait(attachment, core.CONSUMERS, until_next_look(attachment, remaining))
            attachment = self._attachments.refreshed(attachment)
            taken = look(attachment, take)
        return taken


def look(attachment: Attachment, take: Callable[[core.Queue], T]) -> T:
    """Take what is there, and say of a queue that expires that somebody wants it."""
    if attachment.definition.expires_ms is not None:
        attachment.queue.mark_used()
    return take(attachment.queue)


def until_next_look(attachment: Attachment, remaining_ns: int) -> int:
    """Return how long to wait for a message before another look."""
    expires_ms = attachment.definition.expires_ms
    return remaining_ns if expires_ms is None else min(remaining_ns, max(expires_ms * MS_NS // 2, USED_SLICE_NS))


def keywords_for(target: Attachment, out: Outgoing) -> dict[str, Any]:
    """Return what the core wants to know beside the body."""
    ttl_ns = min(out.ttl_ns, target.ttl_ns) if min(out.ttl_ns, target.ttl_ns) >= 0 else max(out.ttl_ns, target.ttl_ns)
    return {
        "level": out.priority,
        "envelope": out.envelope,
        "ttl_ns": ttl_ns,
        "delay_ns": out.delay_ns,
        "flags": core.PERSISTENT if out.persistent else 0,
    }


def time_for_room(target: Attachment, outcome: int, size: int, out: Outgoing, deadline_ns: int) -> int:
    """Return how long to wait for room. Raises QueueFull, QueueStopped when there is no time left, else why waiting
    is no use.
    """
    if outcome not in NO_ROOM:
        raise refusal(target, outcome, size)
    remaining = deadline_ns - time.monotonic_ns()
    if remaining <= 0:
        raise full(target, out) if outcome == core.FULL else stopped(target, out)
    return remaining


def refusal(target: Attachment, outcome: int, size: int) -> Exception:
    """Return the error for an outcome that waiting would not change."""
    if outcome == core.DELETED:
        return QueueGone()
    if outcome == core.NO_MEMORY:
        return ShmFull(queue=target.name)
    if outcome == core.REFUSED:
        return PublishRejected(queues=[target.name], reason=TOO_LONG)
    _, _, inline_bytes, _, arena_bytes = target.queue.geometry
    return BodyTooLarge(size=size, limit=max(inline_bytes, arena_bytes), queue=target.name)


def full(target: Attachment, out: Outgoing) -> QueueFull:
    """Messages, unless there is room for more of those and it is bytes that are missing."""
    stats = target.queue.stats()
    depth = sum(stats[state] for state in ("ready", "unacked", "delayed", "dead_pending"))
    timeout = out.timeout_ns / SECOND_NS
    if depth >= stats["capacity"] or not stats["capacity_bytes"]:
        return QueueFull(queue=target.name, depth=depth, limit=stats["capacity"], timeout=timeout)
    return QueueFull(
        queue=target.name,
        depth=stats["arena_committed_bytes"],
        limit=stats["capacity_bytes"],
        timeout=timeout,
        unit="bytes",
    )


def stopped(target: Attachment, out: Outgoing) -> QueueStopped:
    """It would have to grow, and may not."""
    stats = target.queue.stats()
    return QueueStopped(
        queue=target.name,
        depth=stats["memory_bytes"],
        limit=stats["share_bytes"],
        timeout=out.timeout_ns / SECOND_NS,
        unit="bytes",
        mark=stats["mark_bytes"],
    )
