"""Bindings and the one form of their arguments."""

import pytest

from shmq.errors import InvalidArgument
from shmq.routing.bindings import Binding, decode_arguments, encode_arguments


def test_arguments_have_one_form_whatever_their_order() -> None:
    assert encode_arguments({"a": 1, "b": None}) == encode_arguments({"b": None, "a": 1})
    assert decode_arguments(encode_arguments({"b": None, "a": 1.5})) == {"a": 1.5, "b": None}
    assert encode_arguments({}) == b""
    assert decode_arguments(b"") == {}


def test_arguments_make_another_binding() -> None:
    bindings = {Binding(source="e", destination="q", arguments=encode_arguments({"n": n})) for n in (1, 1.0, True, "1")}

    assert len(bindings) == 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": [1]},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": 1 << 70},
        {"a" * 300: 1},
        {str(n): "x" * 4000 for n in range(20)},
    ],
)
def test_arguments_that_cannot_travel_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        encode_arguments(arguments)  # type: ignore[arg-type] # that is the point
