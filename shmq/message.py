"""What a message carries beside its body, and what a message looks like to an application.

The envelope is a MessagePack array `[exchange, routing_key, properties, headers]`, opaque to the core. It is empty for
a message published to the default exchange without properties and headers: its routing key is its queue's name.
Level, counts, times and flags are not here: they are fixed fields of the slot. Bodies are never looked at.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple, Protocol

import msgspec

from shmq.errors import InvalidArgument, PreconditionFailed
from shmq.limits import COUNT_MAX, ENVELOPE_BYTES_MAX, HEADERS_DEPTH_MAX, TIME_MS_MAX

Headers = dict[str, Any]
"""None, bool, int, float, str, bytes, datetime, and lists and dicts of these."""


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """AMQP's basic properties, without headers, priority and delivery mode, which have places of their own."""

    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)] | None = None  # milliseconds
    message_id: str | None = None
    timestamp: Annotated[int, msgspec.Meta(ge=-COUNT_MAX, le=COUNT_MAX)] | None = None  # seconds since 1970, UTC
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


class Sender(NamedTuple):
    """The process that published a message, as the kernel told the daemon when it connected. `pid` 0: in a namespace
    that the daemon does not see into. By now the pid may be another process's.
    """

    uid: int
    gid: int
    pid: int


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """Decoded form."""

    exchange: str
    routing_key: str
    properties: Properties
    headers: Headers


NO_PROPERTIES: Final = Properties()
_NUMBERS: Final = {
    "expiration": f"a whole number of milliseconds from 0 to {TIME_MS_MAX}",
    "timestamp": "a datetime, or whole seconds since 1970",
}
HEADERS_AT: Final = 3  # in the array

_encode = msgspec.msgpack.Encoder().encode


def _refuse_extension(code: int, _data: memoryview) -> object:
    raise ValueError(f"MessagePack extension {code}")


_decode = msgspec.msgpack.Decoder(Envelope, ext_hook=_refuse_extension).decode
_decode_parts = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def make_properties(**properties: object) -> Properties:
    """Properties by their AMQP names. InvalidArgument names one that is unknown or of the wrong type."""
    given = {name: value for name, value in properties.items() if value is not None}
    if unknown := given.keys() - set(Properties.__struct_fields__):
        argument = min(unknown)
        allowed = ", ".join(Properties.__struct_fields__)
        raise InvalidArgument(argument=argument, value=given[argument], allowed=f"the properties {allowed}")
    for name, value in given.items():
        if isinstance(value, str) and not value.isascii():
            _check_utf8(name, value)
    try:
        return msgspec.convert(given, Properties)
    except msgspec.ValidationError as error:
        argument = str(error).rpartition("$.")[2].rstrip("`") or "properties"
        raise InvalidArgument(
            argument=argument, value=given.get(argument), allowed=_NUMBERS.get(argument, "a string")
        ) from None


def _check_utf8(argument: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise InvalidArgument(argument=argument, value=text, allowed=f"UTF-8 ({error})") from None


def encode_envelope(
    exchange: str,
    routing_key: str,
    properties: Properties = NO_PROPERTIES,
    headers: Mapping[str, Any] | None = None,
) -> bytes:
    """The envelope of a message; b"" where nothing needs saying. InvalidArgument for headers that can't travel.

    Names are the caller's to check (`shmq.names`).
    """
    if not headers:
        if not exchange and (properties is NO_PROPERTIES or properties == NO_PROPERTIES):
            return b""
        envelope = _encode((exchange, routing_key, properties, {}))
    else:
        _check_headers(headers)
        try:
            envelope = _encode((exchange, routing_key, properties, headers))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArgument(argument="headers", value=headers, allowed=f"AMQP's types ({error})") from None
    return _check_length(envelope)


def _check_length(envelope: bytes) -> bytes:
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise InvalidArgument(
            argument="properties and headers", value=f"{len(envelope)} bytes", allowed=f"{ENVELOPE_BYTES_MAX} bytes"
        )
    return envelope


def decode_envelope(envelope: bytes, queue: str) -> Envelope:
    """The envelope of a message found in `queue`. InvalidArgument if it is not one; nothing is taken on trust."""
    if not envelope:
        return Envelope("", queue, NO_PROPERTIES, {})
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise InvalidArgument(
            argument="envelope", value=f"{len(envelope)} bytes", allowed=f"{ENVELOPE_BYTES_MAX} bytes"
        )
    try:
        decoded = _decode(envelope)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidArgument(argument="envelope", value=envelope[:64], allowed=str(error)) from None
    _check_depth(decoded.headers)
    return decoded


def with_headers(envelope: bytes, headers: Mapping[str, Any]) -> bytes:
    """The same envelope with other headers. InvalidArgument if it is none, or becomes too long."""
    try:
        parts = _decode_parts(envelope)
        parts[HEADERS_AT] = msgspec.Raw(_encode(headers))
    except (msgspec.MsgspecError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArgument(argument="envelope", value=envelope[:64], allowed=str(error)) from None
    return _check_length(_encode(parts))


def envelope_names(envelope: bytes, exchange: str, routing_key: str) -> bool:
    """Does an envelope begin with this exchange and key? Without decoding what follows."""
    return envelope.startswith(b"\x94" + _encode(exchange) + _encode(routing_key))


def check_user_id(user_id: str | None, uid: str) -> None:
    """Raise PreconditionFailed for a property user_id that is not the uid (in digits) of who publishes. As RabbitMQ's
    "validated user-id"; our users are the host's.
    """
    if user_id is not None and user_id != uid:
        text = f"user_id is {user_id!r}, and who publishes is uid {uid}. Leave it out, or say {uid!r}"
        raise PreconditionFailed(text, kind="message", argument="user_id", declared=uid, asked=user_id)


def _check_headers(headers: Mapping[str, Any]) -> None:
    if not isinstance(headers, dict) or not all(isinstance(key, str) for key in headers):
        raise InvalidArgument(argument="headers", value=headers, allowed="a dict whose keys are strings")
    _check_depth(headers)


def _check_depth(headers: Headers) -> None:
    layer: list[Any] = [headers]
    for _ in range(HEADERS_DEPTH_MAX):
        layer = [value for container in layer for value in _values(container) if isinstance(value, dict | list | tuple)]
        if not layer:
            return
    raise InvalidArgument(argument="headers", value="...", allowed=f"at most {HEADERS_DEPTH_MAX} containers deep")


def _values(container: Any) -> Any:  # noqa: ANN401 - a container of anything
    return container.values() if isinstance(container, dict) else container


class Delivered(Protocol):
    """What every delivery tells, in every mode and client."""

    @property
    def queue_name(self) -> str:
        """The queue that this delivery came from."""

    @property
    def body(self) -> bytes: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def properties(self) -> Properties: ...
    @property
    def message_id(self) -> str | None: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def reply_to(self) -> str | None: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def content_encoding(self) -> str | None: ...
    @property
    def type(self) -> str | None: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def app_id(self) -> str | None: ...
    @property
    def expiration(self) -> int | None:
        """Milliseconds, as published."""

    @property
    def timestamp(self) -> datetime | None:
        """As published, with time zone UTC."""

    @property
    def delivery_tag(self) -> int:
        """Its number on its channel, from 1; 0: it was not delivered on one."""

    @property
    def priority(self) -> int:
        """As published; a queue with fewer levels serves it as its highest."""

    @property
    def sender(self) -> Sender | None:
        """The process that published it, also of a dead letter. None: unknown."""

    @property
    def published_at(self) -> datetime:
        """When it was published, with time zone UTC."""

    @property
    def persistent(self) -> bool: ...
    @property
    def redelivered(self) -> bool: ...
    @property
    def delivery_count(self) -> int:
        """Deliveries of this message so far, this one included."""

    def view(self) -> memoryview:
        """The body, read-only; without a copy in direct mode. Its memory is kept until the last view is released."""


class Message(Delivered, Protocol):
    """One delivery, as an application sees it in every mode of the blocking client."""

    def ack(self) -> None:
        """Settled when this returns. StaleDelivery, AlreadySettled.

        In socket mode it is with the kernel when this returns: should the broker die before it reads it, the message
        is delivered again.
        """

    def nack(self, requeue: bool = True, delay: float | None = None) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """Back in its place without counting a failure, after `delay` seconds; requeue=False: dead-lettered."""

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """Dead-lettered; requeue=True: back in its place, counted as a failure against the delivery limit."""

    def touch(self, extend: float) -> None:
        """The ack timeout ends `extend` seconds from now."""


class AsyncMessage(Delivered, Protocol):
    """One delivery, as an application sees it in every mode of the asyncio client.

    Settling has the meaning and the errors of `Message`; it is done, or in socket mode on its way, when the call is
    first awaited, whether or not it is cancelled then.
    """

    async def ack(self) -> None: ...
    async def nack(self, requeue: bool = True, delay: float | None = None) -> None: ...  # noqa: FBT001, FBT002 - AMQP's form
    async def reject(self, requeue: bool = False) -> None: ...  # noqa: FBT001, FBT002 - AMQP's form
    async def touch(self, extend: float) -> None: ...
