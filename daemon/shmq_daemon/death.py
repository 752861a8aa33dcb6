"""What a message becomes when it dies: where it goes and what its headers say. Pure functions.

Owns: x-death, x-first-death-*, x-last-death-*, the new exchange and key, the cycle rule, as in RabbitMQ 4.3 (dead
letter exchanges). Does not own: routing, publishing, when a message is dead.
Invariants: headers of an earlier death are believed only in an envelope that we wrote (five elements instead of the
four of a client): what a client publishes under these names is not interpreted and does not survive a death.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from shmq.errors import InvalidArgument
from shmq.limits import ENVELOPE_BYTES_MAX
from shmq.message import Envelope, Headers, decode_envelope

REJECTED: Final = "rejected"
DEATHS: Final = "x-death"
SUMMARY_FIELDS: Final = ("queue", "reason", "exchange")
FIVE_ELEMENTS: Final = 0x95  # a MessagePack array of five

_encode = msgspec.msgpack.Encoder().encode


class DeadLetter(NamedTuple):
    """A dead message as it is published again."""

    exchange: str
    routing_keys: tuple[str, ...]
    envelope: bytes
    deaths: Sequence[Mapping[str, Any]]
    headers_dropped: bool  # the deaths left no room for the application's headers
    headers: Headers  # to route by, also where they were dropped


def dead_letter(  # noqa: PLR0917 - the facts of one death
    envelope: bytes, queue: str, reason: str, exchange: str, routing_key: str | None, now_s: int
) -> DeadLetter:
    """Rewrite the envelope of a message that died in `queue`. `routing_key` None: all its own keys.

    `now_s` is in seconds since 1970. An envelope that cannot be read counts as one that says nothing.
    """
    old, ours = _read(envelope, queue)
    keys = (old.routing_key, *_strings(old.headers.get("CC")))
    earlier = [entry for entry in old.headers.get(DEATHS, ()) if isinstance(entry, dict)] if ours else []
    deaths = _add_death(earlier, _death(old, queue, reason, keys, now_s))
    headers = _without_deaths(old.headers, keep_first=bool(earlier)) | _summaries(deaths[0], first=not earlier)
    headers[DEATHS] = deaths
    if routing_key is not None:
        headers.pop("CC", None)
    new_key = old.routing_key if routing_key is None else routing_key
    properties = msgspec.structs.replace(old.properties, expiration=None)
    encoded = _encode((exchange, new_key, properties, headers, True))
    dropped = len(encoded) > ENVELOPE_BYTES_MAX
    if dropped:
        ours_only = {DEATHS: deaths, **_summaries(deaths[0], first=not earlier)}
        encoded = _encode((exchange, new_key, properties, ours_only, True))
    keys = keys if routing_key is None else (routing_key,)
    return DeadLetter(exchange, keys, encoded, deaths, dropped, headers)


def is_cycle(deaths: Sequence[Mapping[str, Any]], target: str) -> bool:
    """Whether going to `target` would close a cycle without anybody having rejected the message on the way."""
    for entry in deaths:
        if entry.get("reason") == REJECTED:
            return False
        if entry.get("queue") == target:
            return True
    return False


def _read(envelope: bytes, queue: str) -> tuple[Envelope, bool]:
    try:
        return decode_envelope(envelope, queue), envelope[:1] == bytes([FIVE_ELEMENTS])
    except InvalidArgument:
        return decode_envelope(b"", queue), False


def _death(old: Envelope, queue: str, reason: str, keys: tuple[str, ...], now_s: int) -> dict[str, Any]:
    death: dict[str, Any] = {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.fromtimestamp(now_s, UTC),
        "exchange": old.exchange,
        "routing-keys": list(keys),
    }
    if old.properties.expiration is not None:
        death["original-expiration"] = str(old.properties.expiration)
    return death


def _add_death(earlier: list[dict[str, Any]], death: dict[str, Any]) -> list[dict[str, Any]]:
    """Newest first; a repeat of a {queue, reason} keeps its first time, counts one more and moves to the front."""
    for entry in earlier:
        if (entry.get("queue"), entry.get("reason")) == (death["queue"], death["reason"]):
            count = entry.get("count")
            again = entry | {"count": count + 1 if isinstance(count, int) else 1}
            return [again, *(other for other in earlier if other is not entry)]
    return [death, *earlier]


def _summaries(newest: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
    names = ("x-last-death-", "x-first-death-") if first else ("x-last-death-",)
    return {name + field: newest.get(field, "") for name in names for field in SUMMARY_FIELDS}


def _without_deaths(headers: Headers, *, keep_first: bool) -> Headers:
    gone = ("x-last-death-",) if keep_first else ("x-last-death-", "x-first-death-")
    return {name: value for name, value in headers.items() if not name.startswith(gone)}


def _strings(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
