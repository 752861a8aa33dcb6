"""Bindings: what connects an exchange with a queue, or with another exchange.

Owns: the struct, the one form of its arguments, what may stand in them. Does not own: matching (the other modules).
Invariants: a binding is its source, destination, key and arguments together, as in AMQP 0-9-1: another argument makes
another binding, and 1, 1.0 and true are three. So the arguments are kept as bytes in one order of their names.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from shmq.definitions import Scalar, check_arguments
from shmq.errors import InvalidArgument
from shmq.wire.fields import BindingInfo

ARGUMENTS_BYTES_MAX: Final = 1 << 16  # encoded; RabbitMQ's frames hold twice that, and a packet between our processes
NO_ARGUMENTS: Final = b""

_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(dict[str, Scalar]).decode


class Destination(NamedTuple):
    """Where a binding leads."""

    to_exchange: bool
    name: str


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """From an exchange to a queue, or to an exchange. `arguments`: as `encode_arguments` makes them."""

    source: str
    destination: str
    to_exchange: bool = False
    routing_key: str = ""
    arguments: bytes = NO_ARGUMENTS

    @property
    def leads_to(self) -> Destination:
        return Destination(self.to_exchange, self.destination)


def encode_arguments(arguments: Mapping[str, Scalar]) -> bytes:
    """Return the one form of these arguments. InvalidArgument for what can't travel, or is too much."""
    if not arguments:
        return NO_ARGUMENTS
    check_arguments(arguments)
    try:
        encoded = _encode(arguments)
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise InvalidArgument(argument="arguments", value=dict(arguments), allowed=f"UTF-8 ({error})") from None
    if len(encoded) > ARGUMENTS_BYTES_MAX:
        raise InvalidArgument(
            argument="arguments", value=f"{len(encoded)} bytes", allowed=f"at most {ARGUMENTS_BYTES_MAX} bytes"
        )
    return encoded


def decode_arguments(arguments: bytes) -> dict[str, Scalar]:
    """Return what `encode_arguments` was given."""
    return _decode(arguments) if arguments else {}


def binding_of(info: BindingInfo) -> Binding:
    """Return a binding as a frame tells it. InvalidArgument as `encode_arguments`."""
    return Binding(
        source=info.source,
        destination=info.destination,
        to_exchange=info.to_exchange,
        routing_key=info.routing_key,
        arguments=encode_arguments(info.arguments),
    )


def info_of(binding: Binding) -> BindingInfo:
    """Return what a frame tells of a binding."""
    arguments = decode_arguments(binding.arguments)
    return BindingInfo(binding.source, binding.destination, binding.to_exchange, binding.routing_key, arguments)
