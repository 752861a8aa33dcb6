"""Matching headers against the arguments of a binding: RabbitMQ's headers exchange.

Owns: the four forms of `x-match`, what equals what. Does not own: bindings, exchanges.
Rules: `all` (also when nothing is said) and `any` skip arguments that begin with `x-`; `all-with-x` and `any-with-x`
skip `x-match` alone. A void argument asks only whether the header is there. 1 equals 1.0, true is not 1. Without
anything to compare, all matches and any does not.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from shmq.definitions import Scalar
from shmq.errors import InvalidArgument

MATCH: Final = "x-match"
DEFAULT_MATCH: Final = "all"
MATCHES: Final = (DEFAULT_MATCH, "any", "all-with-x", "any-with-x")
SKIPPED_PREFIX: Final = "x-"
NOT_THERE: Final = object()


class Criteria(NamedTuple):
    """What one binding asks of a message's headers."""

    compared: tuple[tuple[str, Scalar], ...]
    needs_all: bool

    def match(self, headers: Mapping[str, Any]) -> bool:
        test = all if self.needs_all else any
        return test(_holds(headers.get(name, NOT_THERE), wanted) for name, wanted in self.compared)


def criteria_of(arguments: Mapping[str, Scalar]) -> Criteria:
    """Return what the arguments of a binding ask for. InvalidArgument for a form of x-match that there is not."""
    how = check_match(arguments)
    with_x = how.endswith("-with-x")
    compared = tuple(
        (name, wanted)
        for name, wanted in arguments.items()
        if name != MATCH and (with_x or not name.startswith(SKIPPED_PREFIX))
    )
    return Criteria(compared, needs_all=how.startswith("all"))


def check_match(arguments: Mapping[str, Scalar]) -> str:
    """Return the form of matching, or raise InvalidArgument."""
    how = arguments.get(MATCH, DEFAULT_MATCH)
    if not isinstance(how, str) or how not in MATCHES:
        raise InvalidArgument(argument=MATCH, value=how, allowed=" or ".join(MATCHES))
    return how


def _holds(value: Any, wanted: Scalar) -> bool:  # noqa: ANN401 - whatever a header holds
    if value is NOT_THERE:
        return False
    if wanted is None:
        return True
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)
