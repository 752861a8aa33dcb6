"""What a publisher says beside the body: checked once, in the form that both data paths want.

Owns: the keywords of `publish` and their bounds. Does not own: routing, waiting, the envelope's form (shmq.message).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack

from shmq.errors import InvalidArgument
from shmq.limits import PRIORITY_MAX, TIME_NS_MAX
from shmq.message import NO_PROPERTIES, encode_envelope, make_properties
from shmq.names import check_name, check_routing_key
from shmq.routing.addressing import Addressed, address
from shmq.routing.router import NO_HEADERS
from shmq_clients.durations import nanoseconds
from shmq_clients.flags import check_flags
from shmq_clients.keywords import check_known

Confirm = Literal["sent", "memory", "disk"]
CONFIRMS: Final = (None, "sent", "memory", "disk")
MS_NS: Final = 1_000_000


class PropertyKeywords(TypedDict, total=False):
    """AMQP's basic properties as keywords of `publish`; `expiration`, priority and headers are its own."""

    content_type: str | None
    content_encoding: str | None
    correlation_id: str | None
    reply_to: str | None
    message_id: str | None
    timestamp: int | datetime | None  # seconds since 1970
    type: str | None
    user_id: str | None
    app_id: str | None


class PublishKeywords(PropertyKeywords, total=False):
    """All keywords of `publish`."""

    exchange: str
    routing_key: str
    headers: Mapping[str, Any] | None
    priority: int
    persistent: bool
    expiration: int | None
    delay: float | None
    mandatory: bool
    confirm: Confirm | None
    timeout: float


class Outgoing(NamedTuple):
    """One publish without its body. Times in nanoseconds; ttl_ns -1: none. `envelope` is for the broker, with BCC;
    `addressed` holds the one that arrives.
    """

    exchange: str
    routing_key: str
    envelope: bytes
    priority: int
    persistent: bool
    ttl_ns: int
    delay_ns: int
    mandatory: bool
    confirm: Confirm | None
    timeout_ns: int
    addressed: Addressed


def outgoing(
    *,
    exchange: str = "",
    routing_key: str = "",
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    persistent: bool = False,
    expiration: int | None = None,
    delay: float | None = None,
    mandatory: bool = False,
    confirm: Confirm | None = None,
    timeout: float = 30.0,
    **properties: Unpack[PropertyKeywords],
) -> Outgoing:
    """Check the keywords of `publish`. Raises InvalidArgument."""
    if exchange != "":
        check_name(exchange, "exchange")
    check_routing_key(routing_key)
    if type(priority) is not int or not 0 <= priority <= PRIORITY_MAX:
        raise InvalidArgument(argument="priority", value=priority, allowed=f"a whole number from 0 to {PRIORITY_MAX}")
    check_flags(persistent=persistent, mandatory=mandatory)
    if confirm not in CONFIRMS:
        raise InvalidArgument(argument="confirm", value=confirm, allowed='None, "sent", "memory" or "disk"')
    envelope = _envelope(exchange, routing_key, headers, expiration, properties)
    return Outgoing(
        exchange,
        routing_key,
        envelope,
        priority,
        persistent,
        -1 if expiration is None else expiration * MS_NS,
        0 if delay is None else nanoseconds(delay, "delay"),
        mandatory,
        confirm,
        TIME_NS_MAX if timeout == float("inf") else nanoseconds(timeout, "timeout"),
        address(routing_key, headers, envelope) if headers else Addressed((routing_key,), NO_HEADERS, envelope),
    )


def _envelope(
    exchange: str,
    routing_key: str,
    headers: Mapping[str, Any] | None,
    expiration: int | None,
    properties: PropertyKeywords,
) -> bytes:
    if expiration is None and not properties:
        return encode_envelope(exchange, routing_key, NO_PROPERTIES, headers)
    if not properties.keys() <= PropertyKeywords.__annotations__.keys():
        check_known(properties, PublishKeywords.__annotations__)
    stamp = properties.get("timestamp")
    if isinstance(stamp, datetime):
        properties = {**properties, "timestamp": int(stamp.timestamp())}
    return encode_envelope(exchange, routing_key, make_properties(expiration=expiration, **properties), headers)
