"""Keywords that a call passes on: one that it does not know is refused, and the error says which it knows."""

import difflib
from collections.abc import Collection, Mapping

from shmq.errors import InvalidArgument


def check_known(keywords: Mapping[str, object], known: Collection[str]) -> None:
    """Raise InvalidArgument for a keyword that is not known, with the one that was probably meant, or all of them."""
    for name, value in keywords.items():
        if name not in known:
            meant = difflib.get_close_matches(name, known, n=1) or sorted(known)
            raise InvalidArgument(argument=name, value=value, allowed=f"the keyword {' or '.join(meant)}")
