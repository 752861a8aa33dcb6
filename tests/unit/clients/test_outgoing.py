"""shmq_clients.outgoing and durations: the keywords of publish, checked once, in the units of the core."""

from datetime import UTC, datetime
from typing import Any

import pytest

import shmq
from shmq.limits import TIME_NS_MAX
from shmq.message import decode_envelope
from shmq_clients.durations import nanoseconds, wait_nanoseconds
from shmq_clients.outgoing import outgoing


def test_nothing_said_needs_no_envelope() -> None:
    out = outgoing(routing_key="q")

    assert out.envelope == b""
    assert (out.priority, out.persistent, out.ttl_ns, out.delay_ns, out.timeout_ns) == (0, False, -1, 0, 30 * 10**9)


def test_expiration_is_milliseconds_and_other_times_are_seconds() -> None:
    out = outgoing(routing_key="q", expiration=5, delay=0.25, timeout=2)

    assert (out.ttl_ns, out.delay_ns, out.timeout_ns) == (5_000_000, 250_000_000, 2_000_000_000)
    assert decode_envelope(out.envelope, "q").properties.expiration == 5


def test_a_timestamp_may_be_a_datetime() -> None:
    out = outgoing(routing_key="q", timestamp=datetime(1970, 1, 2, tzinfo=UTC))

    assert decode_envelope(out.envelope, "q").properties.timestamp == 86_400


def test_cc_and_bcc_are_more_keys_and_bcc_does_not_arrive() -> None:
    out = outgoing(exchange="e", routing_key="q", headers={"CC": ["c"], "BCC": ["b", "q"]})

    assert out.addressed.keys == ("q", "c", "b")
    assert decode_envelope(out.envelope, "q").headers == {"CC": ["c"], "BCC": ["b", "q"]}
    assert decode_envelope(out.addressed.envelope, "q").headers == {"CC": ["c"]}


@pytest.mark.parametrize("header", ["CC", "BCC"])
@pytest.mark.parametrize("value", ["key", [1], {"a": 1}, None, ["x" * 256]])
def test_a_header_that_names_no_keys_is_refused_by_name(header: str, value: object) -> None:
    with pytest.raises(shmq.InvalidArgument, match=header):
        outgoing(routing_key="q", headers={header: value})


@pytest.mark.parametrize(
    "keywords",
    [
        {"priority": 256},
        {"priority": True},
        {"priority": 1.0},
        {"confirm": "soon"},
        {"delay": -1},
        {"timeout": "1"},
        {"expiration": 1.5},
        {"exchange": "a\nb"},
        {"routing_key": "x" * 256},
        {"content_type": 5},
        {"unknown": "x"},
    ],
)
def test_what_cannot_be_used_is_refused_by_name(keywords: dict[str, Any]) -> None:
    with pytest.raises(shmq.InvalidArgument) as caught:
        outgoing(**keywords)

    assert next(iter(keywords)) in str(caught.value)


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf"), "1", True, None])
def test_only_finite_seconds_are_a_duration(seconds: Any) -> None:
    with pytest.raises(shmq.InvalidArgument, match="pause"):
        nanoseconds(seconds, "pause")


def test_a_wait_may_have_no_end() -> None:
    assert wait_nanoseconds(None, "timeout") == wait_nanoseconds(float("inf"), "timeout") == TIME_NS_MAX
