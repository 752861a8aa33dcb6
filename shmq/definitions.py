"""Queues and exchanges as they are declared, for wire, client and broker, and the keywords that stand for `x-` arguments.

The `x-` form is the canonical one: it is what travels, is remembered, shown and compared. Keywords are seconds, `x-`
arguments milliseconds. Which arguments exist, what they may hold and which declarations differ is the broker's to say.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from shmq.errors import InvalidArgument
from shmq.limits import ARGUMENTS_MAX, NAME_BYTES_MAX
from shmq.names import check_name

Scalar = bool | int | float | str | None
"""What the value of an argument may be."""
Arguments = Annotated[dict[str, Scalar], msgspec.Meta(max_length=ARGUMENTS_MAX)]

_Name = Annotated[str, msgspec.Meta(max_length=NAME_BYTES_MAX)]


class QueueDefinition(msgspec.Struct, frozen=True, array_like=True):
    """A queue as somebody asks for it. An empty name asks the broker for one."""

    name: _Name
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Arguments = msgspec.field(default_factory=dict)


class ExchangeDefinition(msgspec.Struct, frozen=True, array_like=True):
    """An exchange as somebody asks for it."""

    name: _Name
    type: _Name = "direct"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = msgspec.field(default_factory=dict)


QUEUE_KEYWORDS: Final[Mapping[str, str]] = {
    "max_priority": "x-max-priority",
    "capacity": "x-capacity",
    "capacity_bytes": "x-capacity-bytes",
    "max_length": "x-max-length",
    "max_length_bytes": "x-max-length-bytes",
    "overflow": "x-overflow",
    "message_ttl": "x-message-ttl",
    "expires": "x-expires",
    "dead_letter_exchange": "x-dead-letter-exchange",
    "dead_letter_routing_key": "x-dead-letter-routing-key",
    "delivery_limit": "x-delivery-limit",
    "ack_timeout": "x-consumer-timeout",
    "single_active_consumer": "x-single-active-consumer",
    "queue_type": "x-queue-type",
}
EXCHANGE_KEYWORDS: Final[Mapping[str, str]] = {
    "alternate_exchange": "alternate-exchange",
    "delayed_type": "x-delayed-type",
}
SECONDS: Final = frozenset({"message_ttl", "expires", "ack_timeout"})  # keywords in seconds, milliseconds as arguments


def define_queue(
    name: str = "",
    *,
    durable: bool = False,
    exclusive: bool = False,
    auto_delete: bool = False,
    arguments: Mapping[str, Any] | None = None,
    **keywords: object,
) -> QueueDefinition:
    """A definition from keywords and `x-` arguments. InvalidName; InvalidArgument if both say different things."""
    merged = merge_arguments(QUEUE_KEYWORDS, keywords, arguments)
    return QueueDefinition(name and check_name(name, "queue"), durable, exclusive, auto_delete, merged)


def define_exchange(
    name: str,
    type: str = "direct",  # noqa: A002 - AMQP's word
    *,
    durable: bool = False,
    auto_delete: bool = False,
    internal: bool = False,
    arguments: Mapping[str, Any] | None = None,
    **keywords: object,
) -> ExchangeDefinition:
    """As `define_queue`, for an exchange."""
    merged = merge_arguments(EXCHANGE_KEYWORDS, keywords, arguments)
    return ExchangeDefinition(check_name(name, "exchange"), type, durable, auto_delete, internal, merged)


def merge_arguments(
    known: Mapping[str, str], keywords: Mapping[str, object], arguments: Mapping[str, Any] | None
) -> dict[str, Scalar]:
    """Both in their `x-` form. A keyword that is None was not given."""
    merged = {argument: _scalar(argument, value) for argument, value in (arguments or {}).items()}
    if len(merged) > ARGUMENTS_MAX:
        raise InvalidArgument(argument="arguments", value=f"{len(merged)} of them", allowed=f"at most {ARGUMENTS_MAX}")
    for keyword, given in keywords.items():
        if given is None:
            continue
        if keyword not in known:
            raise InvalidArgument(argument=keyword, value=given, allowed=f"the keywords {', '.join(known)}")
        value = _milliseconds(keyword, given) if keyword in SECONDS else _scalar(keyword, given)
        if merged.setdefault(known[keyword], value) != value:
            said = f"{known[keyword]} = {merged[known[keyword]]!r}, as the arguments say"
            raise InvalidArgument(argument=keyword, value=given, allowed=said)
    return merged


def _scalar(argument: str, value: object) -> Scalar:
    if value is None or isinstance(value, bool | float | str) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    raise InvalidArgument(argument=argument, value=value, allowed="text, true, false, null, or a 64-bit number")


def _milliseconds(keyword: str, seconds: object) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        raise InvalidArgument(argument=keyword, value=seconds, allowed="seconds, 0 or more")
    return round(seconds * 1000)
