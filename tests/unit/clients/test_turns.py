"""shmq_clients.turns: each has its turn, none waits behind an empty one, and the one that is gone is told once."""

import pytest

from shmq.errors import NotFound, ShmqError
from shmq_clients.turns import Turns


class Place:
    """A queue's place that hands out what it was given."""

    def __init__(self, *messages: str, gone: bool = False) -> None:
        self.messages = list(messages)
        self.gone = gone
        self.ended = 0

    def take(self) -> str | None:
        if self.gone:
            raise NotFound(kind="queue", name="gone")
        return self.messages.pop(0) if self.messages else None

    def end(self) -> None:
        self.ended += 1


def turns(*places: Place) -> Turns[Place]:
    return Turns(places, lambda place: place.end())


def test_each_has_its_turn() -> None:
    both = turns(Place("a1", "a2", "a3"), Place("b1", "b2"))

    assert [both.take() for _ in range(6)] == ["a1", "b1", "a2", "b2", "a3", None]


def test_an_empty_one_holds_up_no_other() -> None:
    of_three = turns(Place(), Place("b1", "b2"), Place())

    assert [of_three.take() for _ in range(3)] == ["b1", "b2", None]


def test_none_at_all_have_nothing() -> None:
    assert turns().take() is None


def test_one_that_is_gone_is_ended_and_told_once_and_the_others_go_on() -> None:
    gone, other = Place(gone=True), Place("b1", "b2")
    both = turns(gone, other)
    with pytest.raises(NotFound):
        both.take()

    assert [both.take(), both.take(), both.take()] == ["b1", "b2", None]
    assert (both.places, gone.ended, other.ended) == ([other], 1, 0)


def test_an_error_at_its_end_is_not_told_beside_that_it_is_gone() -> None:
    class Broken(Place):
        def end(self) -> None:
            raise ShmqError

    both = turns(Broken(gone=True), Place("b1"))
    with pytest.raises(NotFound):
        both.take()

    assert both.take() == "b1"
