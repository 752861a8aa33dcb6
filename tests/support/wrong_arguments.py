"""For each parameter of each public call what can't be used there, and under which name the error speaks of it."""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LONG: Final = "x" * 256
SURROGATE: Final = "\ud800"
NO_NUMBER: Final[tuple[Any, ...]] = (math.nan, "1", b"1", True, [], {})
NO_TEXT: Final[tuple[Any, ...]] = (5, b"q", 1.5, True, [], {})
NO_FLAG: Final[tuple[Any, ...]] = ("yes", "", 1, 0, 0.0, [])


def _nested(depth: int) -> dict[str, Any]:
    return {"a": _nested(depth - 1)} if depth else {}


class Wrong(NamedTuple):
    """Values that can't be used. `says`: in the error, else the parameter's name. `raises`: TypeError is Python's."""

    values: tuple[Any, ...]
    says: str = ""
    raises: str = "InvalidArgument"


def whole(low: int, high: int, says: str = "") -> Wrong:
    """What is no whole number of a range."""
    return Wrong((low - 1, high + 1, 1 << 70, 1.5, *NO_NUMBER), says)


def words(says: str = "") -> Wrong:
    """What is none of some words."""
    return Wrong((*NO_TEXT, "", "other", SURROGATE), says)


FLAG: Final = Wrong((None, *NO_FLAG))
MAYBE_FLAG: Final = Wrong(NO_FLAG)
MAYBE_SECONDS: Final = Wrong((-1, -0.001, 1e30, -math.inf, *NO_NUMBER))
SECONDS: Final = Wrong((None, *MAYBE_SECONDS.values))
FINITE: Final = Wrong((math.inf, *SECONDS.values))
MAYBE_FINITE: Final = Wrong((math.inf, *MAYBE_SECONDS.values))
MAYBE_NAME: Final = Wrong(("", "a\0b", "a\nb", "é" * 128, LONG, SURROGATE, *NO_TEXT))
NAME: Final = Wrong((None, *MAYBE_NAME.values))
MADE_NAME: Final = Wrong((None, *MAYBE_NAME.values[1:]), "queue")  # an empty one is made by the broker
KEY: Final = Wrong((None, LONG, SURROGATE, *NO_TEXT))
PROPERTY: Final = Wrong((*NO_TEXT, SURROGATE))
BUFFER: Final = Wrong(("text", 5, None, [b"x"], memoryview(bytes(8))[::2]), " ", "TypeError")
TAG: Final = Wrong((-1, 1.5, *NO_NUMBER))
ARGUMENTS: Final = Wrong(
    (5, "x", [1], {1: 2}, {"a": object()}, {"a": [1]}, {LONG: 1}, {"a": "x" * 5000}, {"a": 1 << 70}, {"a": SURROGATE}),
    "can't be used",
)
MATCH: Final = Wrong((*NO_TEXT, "", "some"), "x-match")
HEADERS: Final = Wrong(
    (5, "x", [1], {1: 2}, {"a": object()}, {"a": SURROGATE}, {"a": 1 << 70}, {"a": "x" * 70_000}, _nested(40)),
    "headers",
)
QUEUE: Final = {"queue": NAME}
BINDING: Final = {"routing_key": KEY, "match": MATCH, "arguments": ARGUMENTS}
EXCHANGE: Final = Wrong(MADE_NAME.values)  # the empty one is there, and AccessRefused
ENDS: Final = {"destination": EXCHANGE, "source": EXCHANGE}
PUBLISH: Final = {
    **dict.fromkeys(
        ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id", "user_id"),
        PROPERTY,
    ),
    "timestamp": Wrong(("1", 1.5, True, [], 1 << 70)),
    "exchange": Wrong((None, *MAYBE_NAME.values[1:])),
    "routing_key": KEY,
    "headers": HEADERS,
    "priority": Wrong((None, *whole(0, 255).values)),
    "persistent": FLAG,
    "expiration": whole(0, 1 << 62),
    "delay": MAYBE_FINITE,
    "mandatory": FLAG,
    "confirm": Wrong(("none", "", 1, True, b"memory", [])),
    "timeout": SECONDS,
}
CONNECT: Final = {
    "url": Wrong(("http://x", "shmq://host/x.sock", "shmq:///a/", "shmq:///x?y=1", "shmq:///" + LONG, *NO_TEXT), "URL"),
    "mode": words(),
    "timeout": FINITE,
    "reconnect_timeout": MAYBE_SECONDS,
}
TIMES: Final = ("message_ttl", "expires", "delayed_retry_min", "delayed_retry_max", "priority_ageing", "ack_timeout")

CASES: Final[Mapping[str, Mapping[str, Wrong]]] = {
    "connect": CONNECT,
    "connect_async": CONNECT,
    "local": {"timeout": FINITE},
    "open": {"timeout": FINITE},
    "publish": {"body": BUFFER, **PUBLISH},
    "publish_many": {"bodies": Wrong((5, None, ["text"], [5, b"x"]), " ", "TypeError"), **PUBLISH},
    "loan": {"body_bytes": whole(0, 1 << 30), **PUBLISH},
    "wait_for_confirms": {"timeout": FINITE},
    "declare_queue": {
        "name": MADE_NAME,
        **dict.fromkeys(("durable", "exclusive", "auto_delete"), MAYBE_FLAG),
        "passive": FLAG,
        "arguments": ARGUMENTS,
        "max_priority": whole(1, 255, "x-max-priority"),
        "capacity_messages": whole(1, (1 << 23) - 2, "x-capacity-messages"),
        "capacity_bytes": whole(0, 1 << 40, "x-capacity-bytes"),
        "max_length": whole(0, (1 << 23) - 2, "x-max-length"),
        "max_length_bytes": whole(0, 1 << 40, "x-max-length-bytes"),
        "overflow": words("x-overflow"),
        "overflow_victim": words("x-overflow-victim"),
        **dict.fromkeys(TIMES, MAYBE_FINITE),
        "dead_letter_exchange": Wrong(MAYBE_NAME.values[1:], "x-dead-letter-exchange"),
        "dead_letter_routing_key": Wrong(KEY.values[1:], "x-dead-letter-routing-key"),
        "delivery_limit": whole(-1, 254, "x-delivery-limit"),
        "delayed_retry_type": words("x-delayed-retry-type"),
        "single_active_consumer": Wrong(NO_FLAG, "x-single-active-consumer"),
        "queue_type": words("x-queue-type"),
    },
    "delete_queue": QUEUE | {"if_unused": FLAG, "if_empty": FLAG},
    "purge_queue": QUEUE,
    "queue_info": QUEUE,
    "bindings": {"source": MAYBE_NAME, "destination": MAYBE_NAME},
    "declare_exchange": {
        "name": Wrong(EXCHANGE.values, "exchange"),
        "type": words(),
        **dict.fromkeys(("durable", "auto_delete", "internal"), MAYBE_FLAG),
        "passive": FLAG,
        "alternate_exchange": Wrong(MAYBE_NAME.values[1:], "alternate-exchange"),
        "delayed_type": words("x-delayed-type"),
        "arguments": ARGUMENTS,
    },
    "delete_exchange": {"exchange": EXCHANGE, "if_unused": FLAG},
    "bind_queue": {"queue": NAME, "exchange": EXCHANGE, **BINDING},
    "unbind_queue": {"queue": NAME, "exchange": EXCHANGE, **BINDING},
    "bind_exchange": ENDS | BINDING,
    "unbind_exchange": ENDS | BINDING,
    "get": QUEUE | {"timeout": MAYBE_SECONDS, "no_ack": FLAG},
    "get_batch": QUEUE | {"max_messages": whole(1, 65_536), "max_wait": MAYBE_SECONDS, "no_ack": FLAG},
    "consume": {
        "queue": Wrong((*NAME.values, ["jobs", "jobs"], ["jobs", 5], ["jobs", ""])),
        "prefetch": whole(0, 65_535),
        "no_ack": FLAG,
        "exclusive": FLAG,
        "consumer_tag": Wrong(MADE_NAME.values),
        "priority": whole(-(1 << 31), (1 << 31) - 1),
        "ack_timeout": MAYBE_FINITE,
        "arguments": Wrong(
            (5, "x", [1], {"x-priority": "1"}, {"x-priority": 1 << 31}, {"x-consumer-timeout": 0}), "used"
        ),
    },
    "ack_many": {"messages": Wrong((5, None, [b"x"], [None]), " ", "TypeError")},
    "cancel": {"consumer_tag": NAME},
    "close": {"timeout": FINITE},
    "drain": {"limit": Wrong((0, -1, 1.5, *NO_NUMBER)), "timeout": FINITE},
    "channel.publish": {"body": BUFFER, **PUBLISH},
    "channel.ack": {"delivery_tag": TAG, "multiple": FLAG},
    "channel.nack": {"delivery_tag": TAG, "multiple": FLAG, "requeue": FLAG, "delay": MAYBE_FINITE},
    "channel.reject": {"delivery_tag": TAG, "requeue": FLAG},
    "channel.recover": {"requeue": FLAG},
    "channel.qos": {
        "prefetch_count": whole(0, 65_535, "prefetch"),
        "prefetch_size": Wrong((1, -1, "1", None), raises="NotSupported"),
    },
    "nack": {"requeue": FLAG, "delay": MAYBE_FINITE},
    "reject": {"requeue": FLAG},
    "touch": {"extend": FINITE},
}
"""By the name of the call and of the parameter. Where a line is missing, a test fails."""


def cases(*calls: str) -> list[tuple[str, str]]:
    """Each call with each of its parameters."""
    return [(call, parameter) for call in calls for parameter in CASES[call]]
