"""Several deliveries settled at a time, of either mode and any client.

Owns: that all are tried before the first error is raised, and that those which came in frames go in few. Does not own:
which ones (channel.py, connection.py), what settling is.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from shmq.core._core import Message as CoreMessage
from shmq.errors import ShmqError
from shmq_clients.flags import check_flags
from shmq_clients.message import Settling, SocketMessage, check_given_back


def ack_all(messages: Iterable[Any]) -> None:
    """Ack each of them; all are tried, then the first error is raised."""
    _settle(messages, "acked", CoreMessage.ack, lambda session, tags: session.ack_all(tags))


def ack_at_delivery(messages: Iterable[Any]) -> None:
    """As `ack_all`, of messages that were asked for without acks: the caller's own have nothing to do then."""
    _settle(messages, "auto", CoreMessage.ack_at_delivery, lambda session, tags: session.ack_all(tags))


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

    def there(session: Settling, delivery_tags: list[int]) -> None:
        for delivery_tag in delivery_tags:
            session.reject(delivery_tag, requeue)

    _settle(messages, "rejected", lambda message: CoreMessage.reject(message, requeue), there)


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
