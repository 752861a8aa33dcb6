"""shmq.message: what goes into an envelope comes out, and nothing in one is taken on trust."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.errors import InvalidArgument
from shmq.limits import ENVELOPE_BYTES_MAX, HEADERS_DEPTH_MAX
from shmq.message import (
    NO_PROPERTIES,
    Envelope,
    Properties,
    decode_envelope,
    encode_envelope,
    envelope_names,
    make_properties,
)

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS | st.binary(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


def nested(depth: int) -> dict[str, Any]:
    headers: dict[str, Any] = {"end": 1}
    for _ in range(depth - 1):
        headers = {"in": headers}
    return headers


def test_nothing_to_say_is_an_empty_envelope_whose_key_is_the_queue() -> None:
    assert encode_envelope("", "jobs") == b""
    assert encode_envelope("", "jobs", Properties(), {}) == b""
    assert decode_envelope(b"", "jobs") == Envelope("", "jobs", NO_PROPERTIES, {})


def test_the_bytes_of_an_envelope_do_not_change() -> None:
    envelope = encode_envelope("images", "a.b", make_properties(message_id="m-1", expiration=5), {"n": 1})

    assert envelope.hex() == (
        "94a6696d61676573a3612e6282aa65787069726174696f6e05aa6d6573736167655f6964a36d2d3181a16e01"
    )


@given(st.text(), st.text(min_size=1), st.dictionaries(st.text(), VALUES, max_size=4))
def test_what_goes_in_comes_out(exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
    properties = make_properties(content_type="text/plain", timestamp=1_700_000_000)
    envelope = encode_envelope(exchange, routing_key, properties, headers)

    assert decode_envelope(envelope, "q") == Envelope(exchange, routing_key, properties, headers)


def test_a_time_in_a_header_comes_out_as_a_time() -> None:
    headers = {"at": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)}

    assert decode_envelope(encode_envelope("", "q", headers=headers), "q").headers == headers


@given(st.binary(max_size=200))
def test_garbage_is_an_envelope_or_an_invalid_argument(data: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        assert decode_envelope(data, "q").headers is not None


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x94\xa0\xa0\x80\x81\xa1a" + b"\x91" * 60_000 + b"\x01",
        b"\x94\xa0\xa0\x80\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x94\xa0\xa0\x80\xdf\xff\xff\xff\xff",
        b"\x94\xa0\xa0\x80\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x94\xa0\xa0\x80\x81\xa2\xff\xfe\x01",
        b"\x94\xa0\xa0\x80\x81\x01\x01",
        b"\x94\xa0\xa0\x80\x81\xa1a\xd4\x05\xff",
        b"\x94\xa0\xa0\x81\xaaexpiration\xff\x80",
        b"\x94\xa0\xa0\x80\x80\x00",
        b"\x93\xa0\xa0\x80",
        bytes(ENVELOPE_BYTES_MAX + 1),
    ],
)
def test_a_bomb_is_an_invalid_argument(bomb: bytes) -> None:
    with pytest.raises(InvalidArgument):
        decode_envelope(bomb, "q")


def test_headers_may_be_as_deep_as_the_limit_and_no_deeper_in_either_direction() -> None:
    deep = encode_envelope("", "q", headers=nested(HEADERS_DEPTH_MAX))
    assert decode_envelope(deep, "q").headers == nested(HEADERS_DEPTH_MAX)

    too_deep = msgspec.msgpack.encode(("", "q", {}, nested(HEADERS_DEPTH_MAX + 1)))
    with pytest.raises(InvalidArgument, match="32 containers deep"):
        encode_envelope("", "q", headers=nested(HEADERS_DEPTH_MAX + 1))
    with pytest.raises(InvalidArgument, match="32 containers deep"):
        decode_envelope(too_deep, "q")


def test_headers_that_contain_themselves_are_refused() -> None:
    headers: dict[str, Any] = {}
    headers["self"] = headers

    with pytest.raises(InvalidArgument):
        encode_envelope("", "q", headers=headers)


@pytest.mark.parametrize("headers", [{"a": object()}, {1: "a"}, [("a", 1)], {"a": 2**70}, {"a": "\udc80"}])
def test_headers_that_cannot_travel_are_refused_with_their_name(headers: Any) -> None:
    with pytest.raises(InvalidArgument) as error:
        encode_envelope("", "q", headers=headers)

    assert error.value.argument == "headers"


def test_an_envelope_over_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidArgument, match=r"700\d\d bytes.*65535 bytes"):
        encode_envelope("", "q", headers={"a": "x" * 70_000})


@pytest.mark.parametrize(
    ("argument", "value"),
    [("message_id", 5), ("expiration", -1), ("expiration", "5"), ("timestamp", 1.5), ("shape", "x")],
)
def test_a_property_that_cannot_be_used_is_named(argument: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as error:
        make_properties(**{argument: value})

    assert (error.value.argument, error.value.value) == (argument, value)


@pytest.mark.parametrize(
    ("argument", "value", "right"),
    [
        ("expiration", "60000", "a whole number of milliseconds"),
        ("timestamp", 1.5, "datetime"),
        ("type", 1, "a string"),
    ],
)
def test_who_gets_a_property_wrong_is_told_what_is_right(argument: str, value: object, right: str) -> None:
    """AMQP clients say expiration as text."""
    with pytest.raises(InvalidArgument, match=right):
        make_properties(**{argument: value})


def test_a_property_that_is_none_was_not_given() -> None:
    assert make_properties(message_id=None) == NO_PROPERTIES


def test_an_envelope_tells_whether_it_names_an_exchange_and_a_key() -> None:
    envelope = encode_envelope("images", "a.b", headers={"n": 1})

    assert envelope_names(envelope, "images", "a.b")
    assert not envelope_names(envelope, "images", "a.bc")
    assert not envelope_names(envelope, "other", "a.b")
