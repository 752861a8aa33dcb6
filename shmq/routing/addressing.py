"""What the headers of a message say about its way: more keys (CC, BCC), and a delay (x-delay).

Owns: reading these headers, and the envelope with which a message arrives. Does not own: matching, publishing.
Rules (RabbitMQ): CC and BCC are arrays of strings, each routed as if it were the key; BCC does not arrive. The
delayed-message plugin: x-delay is in milliseconds and counts at exchanges that delay; it arrives with its sign turned,
so that passing another such exchange, as a dead letter, does not delay again.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from shmq.errors import InvalidArgument
from shmq.limits import TIME_MS_MAX
from shmq.message import with_headers
from shmq.names import check_routing_key

CC: Final = "CC"
BCC: Final = "BCC"
DELAY: Final = "x-delay"
NS_PER_MS: Final = 1_000_000


class Addressed(NamedTuple):
    """A message as it is routed. `envelope`: as it arrives, without BCC."""

    keys: tuple[str, ...]
    headers: Mapping[str, Any]
    envelope: bytes


class Late(NamedTuple):
    """How a message arrives where it was delayed on its way."""

    envelope: bytes
    delay_ns: int


def address(routing_key: str, headers: Mapping[str, Any], envelope: bytes) -> Addressed:
    """Read the headers of a message that is published. InvalidArgument for a CC or BCC that names no keys."""
    blind = _keys(headers, BCC)
    keys = (routing_key, *_keys(headers, CC), *blind)
    if BCC in headers:
        headers = {name: value for name, value in headers.items() if name != BCC}
        envelope = with_headers(envelope, headers)
    return Addressed(keys if len(keys) == 1 else tuple(dict.fromkeys(keys)), headers, envelope)


def late(headers: Mapping[str, Any], envelope: bytes, delay_ns: int) -> Late:
    """Return what goes to queues behind an exchange that delays. `delay_ns`: what was asked for besides the header,
    the longer one counts. InvalidArgument for a header that is no time.
    """
    delay_ms = _delay_ms(headers)
    if delay_ms <= 0:
        return Late(envelope, delay_ns)
    turned = {**headers, DELAY: -delay_ms}
    return Late(with_headers(envelope, turned), max(delay_ns, delay_ms * NS_PER_MS))


def _keys(headers: Mapping[str, Any], name: str) -> tuple[str, ...]:
    if name not in headers:
        return ()
    keys = headers[name]
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise InvalidArgument(
            argument=f"header {name}", value=keys, allowed="a list of routing keys, which are strings"
        )
    return tuple(check_routing_key(key, f"header {name}") for key in keys)


def _delay_ms(headers: Mapping[str, Any]) -> int:
    """0 or less: none, or it is over."""
    value = headers.get(DELAY, 0)
    if type(value) is not int or value > TIME_MS_MAX:
        raise InvalidArgument(
            argument=f"header {DELAY}", value=value, allowed=f"a whole number of milliseconds, at most {TIME_MS_MAX}"
        )
    return value
