"""Headers against the arguments of a binding: the rules by example, and against their plain reading."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from shmq.definitions import Scalar
from shmq.errors import InvalidArgument
from shmq.routing.headers import MATCHES, criteria_of

NAMES = st.sampled_from(["a", "b", "x-a", "x-match"])
VALUES = st.sampled_from([None, True, False, 0, 1, 1.0, 2, "1", "a", ""])
ARGUMENTS = st.dictionaries(NAMES.filter(lambda name: name != "x-match"), VALUES, max_size=3)
HEADERS = st.dictionaries(NAMES, VALUES | st.sampled_from([[1], {}, b"a", float("nan")]), max_size=4)


def matches(arguments: dict[str, Scalar], headers: dict[str, Any]) -> bool:
    return criteria_of(arguments).match(headers)


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": None}, {"a": "whatever"}, True),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
        ({"x-a": 1}, {}, True),
        ({"x-match": "all-with-x", "x-a": 1}, {}, False),
        ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 1}, True),
        ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
        ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, True),
        ({}, {"a": 1}, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({"x-match": "any-with-x"}, {"x-match": "any-with-x"}, False),
        ({"a": 1}, {"a": [1]}, False),
    ],
)
def test_the_rules_by_example(arguments: dict[str, Scalar], headers: dict[str, Any], *, expected: bool) -> None:
    assert matches(arguments, headers) == expected


@pytest.mark.parametrize("how", ["some", "", "ALL", None, True, 1])
def test_a_form_of_matching_that_there_is_not_is_refused_with_those_there_are(how: Scalar) -> None:
    with pytest.raises(InvalidArgument, match="all or any or all-with-x or any-with-x"):
        criteria_of({"x-match": how})


def equal(value: object, wanted: object) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return value == wanted


@given(st.sampled_from(MATCHES), ARGUMENTS, HEADERS)
def test_it_is_what_the_rules_say_one_by_one(how: str, arguments: dict[str, Scalar], headers: dict[str, Any]) -> None:
    """Invariant: all is each compared argument found and equal, any at least one; of none all is true, any is not."""
    compared = [name for name in arguments if how.endswith("with-x") or not name.startswith("x-")]
    found = [
        name in headers and (arguments[name] is None or equal(headers[name], arguments[name])) for name in compared
    ]

    assert matches({**arguments, "x-match": how}, headers) == (all(found) if how.startswith("all") else any(found))
