"""Whose turn it is among the places of one consumer's queues: each in turn, the one that is gone told once.

Owns: the order. Does not own: taking from a place, waiting at them (several.py, aio/several.py).
Invariant: none waits behind another that has messages.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from shmq.errors import NotFound, ShmqError


class Taking(Protocol):
    """What there are several of."""

    def take(self) -> Any:  # noqa: ANN401 - a message of either client, as the core or the client makes it
        """Return a message that is there, or None. Raises NotFound of a queue that is gone."""


PlaceT = TypeVar("PlaceT", bound=Taking)


class Turns(Generic[PlaceT]):
    """`places` that are there, one for each queue; `end`: ends one whose queue is gone."""

    def __init__(self, places: Iterable[PlaceT], end: Callable[[PlaceT], object]) -> None:
        self.places = list(places)
        self._end = end
        self._turn = 0

    def take(self) -> Any:  # noqa: ANN401 - as Taking's
        """Return a message that is there, without waiting for one, or None. Raises NotFound of a queue that is gone."""
        for _ in range(len(self.places)):
            place = self.places[self._turn % len(self.places)]
            try:
                message = place.take()
            except NotFound:
                self.drop(place)
                raise
            self._turn += 1
            if message is not None:
                return message
        return None

    def drop(self, place: PlaceT) -> None:
        """Its queue is gone: the others go on."""
        self.places.remove(place)
        with contextlib.suppress(ShmqError):
            self._end(place)
