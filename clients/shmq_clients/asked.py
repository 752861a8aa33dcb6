"""What callers ask for when they consume, get and settle: checked; alike in all clients.

Owns: the bounds of these arguments. Does not own: waiting, the paths, settling (settling.py).
"""

from collections.abc import Mapping
from typing import Any, Final

from shmq.definitions import consumer_keywords
from shmq.errors import DirectRefused, InvalidArgument
from shmq.limits import BATCH_MESSAGES_MAX, PREFETCH_MAX
from shmq.names import check_name
from shmq.wire.frames import Consume
from shmq_clients.durations import milliseconds
from shmq_clients.flags import check_flags
from shmq_clients.outgoing import MS_NS
from shmq_clients.session import Mode

MODES: Final = ("auto", "direct", "socket")


def check_mode(mode: object) -> None:
    """Raise InvalidArgument for what is no mode."""
    if mode not in MODES:
        raise InvalidArgument(argument="mode", value=mode, allowed='"auto", "direct" or "socket"')


def check_max_messages(max_messages: object) -> None:
    """Raise InvalidArgument for what is no size of a batch."""
    if type(max_messages) is not int or not 0 < max_messages <= BATCH_MESSAGES_MAX:
        raise InvalidArgument(argument="max_messages", value=max_messages, allowed=f"1 to {BATCH_MESSAGES_MAX}")


def check_prefetch(prefetch: object) -> None:
    """Raise InvalidArgument for what is no number of unacked messages."""
    if type(prefetch) is not int or not 0 <= prefetch <= PREFETCH_MAX:
        raise InvalidArgument(argument="prefetch", value=prefetch, allowed=f"0 (any number) to {PREFETCH_MAX}")


def consume_frame(
    queue: str,
    consumer_tag: str,
    *,
    prefetch: int,
    no_ack: bool,
    exclusive: bool,
    priority: int,
    ack_timeout: float | None,
    arguments: Mapping[str, Any] | None,
) -> Consume:
    """Return what a consumer is to be, as the broker would be told. Raises InvalidArgument, InvalidName."""
    check_name(queue, "queue")
    check_name(consumer_tag, "consumer_tag")
    check_prefetch(prefetch)
    check_flags(no_ack=no_ack, exclusive=exclusive)
    priority, timeout_ms = consumer_keywords(arguments, priority, milliseconds(ack_timeout, "ack_timeout"))
    return Consume(0, queue, consumer_tag, prefetch, no_ack, exclusive, priority, (timeout_ms or 0) * MS_NS)


def needs_broker(consume: Consume, mode: Mode) -> bool:
    """Whether somebody must decide who gets what. Raises DirectRefused in mode "direct", where nobody does."""
    needed = consume.exclusive or consume.priority != 0 or consume.ack_timeout_ns != 0
    if needed and mode == "direct":
        raise DirectRefused(queue=consume.queue, reason="exclusive, prioritised and timed consumers need the broker")
    return needed
