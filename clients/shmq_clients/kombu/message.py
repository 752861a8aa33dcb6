"""Messages on their way out of Kombu and into it.

Owns: which of Kombu's properties become which of ours, and back, in the types that py-amqp gives them (expiration is a
string; a body with a text encoding is a str). Does not own: publishing and settling (channel.py).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from kombu.message import Message as KombuMessage

from shmq.errors import InvalidArgument
from shmq.message import Properties, decode_envelope
from shmq_clients.message import DELIVERY_COUNT_HEADER

PASSED_ON: Final = ("correlation_id", "reply_to", "message_id", "type", "user_id", "app_id")
PERSISTENT: Final = 2  # AMQP's delivery_mode
TRANSIENT: Final = 1
PLAIN: Final = (bool, int, float, bytes, datetime, type(None))


class Prepared(NamedTuple):
    """What `Channel.prepare_message` returns: a body, and the keywords of `shmq.Connection.publish`."""

    body: Any
    keywords: dict[str, Any]


def prepare(
    body: Any,  # noqa: ANN401 - any buffer, or a str
    priority: int | None,
    content_type: str | None,
    content_encoding: str | None,
    headers: Mapping[str, Any] | None,
    properties: Mapping[str, Any],
) -> Prepared:
    """Return the message as we publish it; properties that AMQP does not know are left out, as py-amqp does."""
    if isinstance(body, str):
        content_encoding = content_encoding or "utf-8"
        body = body.encode(content_encoding)
    keywords: dict[str, Any] = {
        "content_type": content_type,
        "content_encoding": content_encoding,
        "headers": headers,
        "priority": int(priority or 0),
        "persistent": properties.get("delivery_mode") == PERSISTENT,
    }
    for name in PASSED_ON:
        value = properties.get(name)
        if value is not None:
            keywords[name] = value if isinstance(value, str) else str(getattr(value, "name", value))
    if (expiration := properties.get("expiration")) is not None:
        keywords["expiration"] = _milliseconds(expiration)
    if (timestamp := properties.get("timestamp")) is not None:
        keywords["timestamp"] = timestamp
    return Prepared(body, keywords)


def _milliseconds(expiration: object) -> int:
    try:
        return int(str(expiration))
    except ValueError:
        raise InvalidArgument(argument="expiration", value=expiration, allowed="whole milliseconds") from None


def plain(value: Any) -> Any:  # noqa: ANN401 - a header of any type
    """Return the same in the types that travel: what is derived from one of them is that, anything else its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return value if type(value) in PLAIN else str(value)


class Message(KombuMessage):  # type: ignore[misc] # kombu has no types
    """A delivery, or what `basic_get` returns, as Kombu wants it. `told`: more for its `delivery_info`."""

    def __init__(self, message: Any, channel: Any, told: dict[str, Any]) -> None:  # noqa: ANN401 - shmq.Message, Channel
        exchange, routing_key, given, headers = _decoded(message)
        properties: dict[str, Any] = {name: value for name in PASSED_ON if (value := getattr(given, name)) is not None}
        properties["delivery_mode"] = PERSISTENT if message.persistent else TRANSIENT
        properties["priority"] = message.priority
        properties["application_headers"] = headers
        if given.content_type is not None:
            properties["content_type"] = given.content_type
        if given.content_encoding is not None:
            properties["content_encoding"] = given.content_encoding
        if given.expiration is not None:
            properties["expiration"] = str(given.expiration)
        if given.timestamp is not None:
            properties["timestamp"] = _time(given.timestamp)
        tag = message.delivery_tag
        told |= {
            "delivery_tag": tag,
            "redelivered": message.redelivered,
            "exchange": exchange,
            "routing_key": routing_key,
        }
        super().__init__(
            body=_text(message.body, given.content_encoding),
            channel=channel,
            delivery_tag=tag,
            content_type=given.content_type,
            content_encoding=given.content_encoding,
            delivery_info=told,
            properties=properties,
            headers=headers,
        )


def _decoded(message: Any) -> tuple[str, str, Properties, dict[str, Any]]:  # noqa: ANN401 - a shmq.Message
    """Decode the envelope, once: each of the message's own attributes would."""
    envelope = decode_envelope(message.envelope, message.queue_name)
    headers = envelope.headers
    if message.failure_count:
        headers[DELIVERY_COUNT_HEADER] = message.failure_count
    return envelope.exchange, envelope.routing_key, envelope.properties, headers


def _text(body: bytes, encoding: str | None) -> str | bytes:
    """As py-amqp's auto_decode: what can't be decoded stays as it is."""
    if not encoding or encoding == "binary":
        return body
    try:
        return body.decode(encoding)
    except (LookupError, ValueError):  # also of what is no name of an encoding
        return body


def _time(timestamp: int) -> datetime | int:
    """As py-amqp's, without a zone; what is no time (milliseconds, as some say it) stays as it is."""
    try:
        return datetime.fromtimestamp(timestamp, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return timestamp
