"""shmq.names: SEMANTICS of names: 1 to 255 bytes of UTF-8 without control characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.errors import InvalidName
from shmq.names import check_name, check_routing_key


@pytest.mark.parametrize("name", ["a", "jobs.high", "../x", "a b", "é" * 127, "x" * 255, "日本"])
def test_a_printable_name_is_fine(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\x7f", "\x85", "x" * 256, "é" * 128, "\udc80"])
def test_a_name_that_cannot_be_used_is_refused_and_shown_escaped(name: str) -> None:
    with pytest.raises(InvalidName) as error:
        check_name(name, "queue")

    assert (error.value.argument, error.value.value) == ("queue", name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", [None, 5, b"jobs"])
def test_what_is_no_text_is_no_name(name: object) -> None:
    with pytest.raises(InvalidName):
        check_name(name)  # type: ignore[arg-type] # what an application may pass
    with pytest.raises(InvalidName):
        check_routing_key(name)  # type: ignore[arg-type] # as above


@pytest.mark.parametrize("routing_key", ["", "a.b", "a\nb", "x" * 255])
def test_a_routing_key_may_be_empty_and_hold_any_character(routing_key: str) -> None:
    assert check_routing_key(routing_key) == routing_key


@given(st.text(max_size=300))
def test_a_name_is_fine_or_an_invalid_name_and_fits_its_bytes(name: str) -> None:
    try:
        assert 1 <= len(check_name(name).encode()) <= 255
    except InvalidName:
        return
