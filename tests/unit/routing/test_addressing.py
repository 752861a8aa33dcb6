"""What headers say about the way of a message."""

from typing import Any

import pytest

from shmq.errors import InvalidArgument
from shmq.message import Properties, decode_envelope, encode_envelope
from shmq.routing.addressing import address, late

PROPERTIES = Properties(message_id="m1")


def envelope(headers: dict[str, Any]) -> bytes:
    return encode_envelope("e", "k", PROPERTIES, headers)


def test_a_message_without_such_headers_is_left_as_it_is() -> None:
    headers = {"a": 1}
    before = envelope(headers)

    assert address("k", headers, before) == (("k",), headers, before)


def test_cc_and_bcc_are_keys_each_once_and_bcc_is_taken_out() -> None:
    headers = {"CC": ["c", "k"], "BCC": ("b",), "a": 1}
    addressed = address("k", headers, envelope(headers))
    arrived = decode_envelope(addressed.envelope, "q")

    assert addressed.keys == ("k", "c", "b")
    assert arrived.headers == addressed.headers == {"CC": ["c", "k"], "a": 1}
    assert (arrived.exchange, arrived.routing_key, arrived.properties) == ("e", "k", PROPERTIES)


def test_a_delay_is_taken_from_the_header_and_its_sign_is_turned() -> None:
    headers = {"x-delay": 5000, "a": 1}
    behind = late(headers, envelope(headers), 0)

    assert behind.delay_ns == 5_000_000_000
    assert decode_envelope(behind.envelope, "q").headers == {"x-delay": -5000, "a": 1}


@pytest.mark.parametrize(("asked_ns", "expected"), [(1, 5_000_000), (9_000_000, 9_000_000)])
def test_the_longer_of_two_delays_counts(asked_ns: int, expected: int) -> None:
    headers = {"x-delay": 5}

    assert late(headers, envelope(headers), asked_ns).delay_ns == expected


@pytest.mark.parametrize("headers", [{}, {"x-delay": 0}, {"x-delay": -5000}])
def test_no_delay_or_one_that_is_over_changes_nothing(headers: dict[str, Any]) -> None:
    before = envelope(headers)

    assert late(headers, before, 7) == (before, 7)


def test_a_delay_may_be_as_long_as_64_bits_of_nanoseconds() -> None:
    headers = {"x-delay": 1 << 40}

    assert late(headers, envelope(headers), 0).delay_ns == (1 << 40) * 1_000_000


@pytest.mark.parametrize("value", ["5", 1.5, True, None, [1], 1 << 60])
def test_a_delay_that_is_no_time_is_refused(value: object) -> None:
    headers = {"x-delay": value}
    with pytest.raises(InvalidArgument, match="x-delay"):
        late(headers, envelope(headers), 0)
