"""Several deliveries settled at a time, of either mode and any client.

Owns: that all are tried before the first error is raised, and that those which came in frames go in few. Does not own:
which ones (channel.py, connection.py), what settling is, raising what earlier calls were refused for.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from shmq.core._core import Message as CoreMessage
from shmq.errors import ShmqError, StaleDelivery
from shmq_clients.flags import check_flags
from shmq_clients.message import Settling, SocketMessage, check_given_back


def ack_all(messages: Iterable[Any]) -> None:
    """Ack each of them; all are tried, then the first error is raised."""
    _settle(messages, "acked", CoreMessage.ack, lambda session, tags: session.ack_all(tags))


def acked_at_delivery(messages: Iterable[Any]) -> list[Any]:
    """Ack messages that were asked for without acks: the caller's own have nothing to do then. Returns those that were
    still ours: the others are back in their queues, and what was acked must not be lost for them. Raises what kept all
    of them from being acked.
    """
    acked: list[Any] = []
    by_frames: dict[Settling, list[SocketMessage]] = {}
    failed: ShmqError | None = None
    for message in messages:
        try:
            if not isinstance(message, SocketMessage):
                CoreMessage.ack_at_delivery(message)
            elif message.begin_settling("auto"):
                by_frames.setdefault(message.session, []).append(message)
        except ShmqError as error:
            failed = failed or error
        else:
            acked.append(message)
    for session, unsaid in by_frames.items():
        try:
            session.ack_all([message.broker_tag for message in unsaid])
        except ShmqError as error:
            failed = failed or error
            acked = [message for message in acked if message not in unsaid]
    if failed is not None and not acked and not isinstance(failed, StaleDelivery):
        raise failed
    return acked


def nack_all(messages: Iterable[Any], *, requeue: bool, delay: float | None = None) -> None:
    """Nack each of them; all are tried, then the first error is raised."""
    delay_ns = check_given_back(requeue, delay)
    _settle(
        messages,
        "nacked",
        lambda message: CoreMessage.nack(message, requeue, delay),
        lambda session, tags: session.nack_all(tags, requeue=requeue, delay_ns=delay_ns),
    )


def reject_all(messages: Iterable[Any], *, requeue: bool) -> None:
    """Reject each of them; all are tried, then the first error is raised."""
    check_flags(requeue=requeue)

    _settle(
        messages,
        "rejected",
        lambda message: CoreMessage.reject(message, requeue),
        lambda session, tags: session.reject_all(tags, requeue=requeue),
    )


def _settle(
    messages: Iterable[Any],
    state: str,
    here: Callable[[CoreMessage], object],
    there: Callable[[Settling, list[int]], object],
) -> None:
    pending = list(messages)
    by_frames = [message for message in pending if isinstance(message, SocketMessage)]
    first = _settle_by_frames(by_frames, state, there) if by_frames else None
    if by_frames:
        pending = [message for message in pending if not isinstance(message, SocketMessage)]
    remaining = iter(pending)
    while True:
        try:
            deque(map(here, remaining), maxlen=0)
            break
        except ShmqError as error:
            first = first or error
    if first is not None:
        raise first


def _settle_by_frames(
    messages: list[SocketMessage], state: str, there: Callable[[Settling, list[int]], object]
) -> ShmqError | None:
    tags: dict[Settling, list[int]] = {}
    first: ShmqError | None = None
    for message in messages:
        try:
            if message.begin_settling(state):
                tags.setdefault(message.session, []).append(message.broker_tag)
        except ShmqError as error:
            first = first or error
    for session, delivery_tags in tags.items():
        try:
            there(session, delivery_tags)
        except ShmqError as error:
            first = first or error
    return first
