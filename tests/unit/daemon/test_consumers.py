"""Who is served next: priority while there is room, equals in turn, the one that is active."""

from collections import deque
from typing import Any

import pytest

from shmq.definitions import QueueDefinition
from shmq.errors import AccessRefused
from shmq.wire import frames as wire
from shmq_daemon.consumers import check_exclusive, next_with_room


class One:
    """A consumer that has room for so many."""

    def __init__(self, priority: int = 0, room: int = 1, *, exclusive: bool = False) -> None:
        self.priority = priority
        self.exclusive = exclusive
        self._room = room

    def room(self) -> int:
        return self._room


def opened(*consumers: One, active: One | None = None, **arguments: Any) -> Any:
    brokered = any(one.priority for one in consumers)
    queue = type("Queue", (), {"definition": QueueDefinition("q", **arguments)})()
    core = type("Core", (), {"brokered": brokered})()
    kept = {"queue": queue, "core": core, "consumers": deque(consumers), "active": active, "name": "q"}
    return type("Opened", (), kept)()


def served(queue: Any) -> Any:
    return next_with_room(queue)


def test_equals_are_served_in_turn() -> None:
    first, second = One(), One()
    queue = opened(first, second)

    assert [served(queue) for _ in range(4)] == [first, second, first, second]


def test_the_highest_is_served_while_it_has_room() -> None:
    low, high = One(1), One(5)

    assert served(opened(low, high)) is high
    assert served(opened(low, One(5, room=0))) is low


def test_nobody_has_room() -> None:
    assert served(opened(One(room=0), One(3, room=0))) is None


def test_only_the_active_one_is_served() -> None:
    active, other = One(), One(9)

    assert served(opened(other, active, active=active, single_active_consumer=True)) is active
    full = One(room=0)
    assert served(opened(other, full, active=full, single_active_consumer=True)) is None


@pytest.mark.parametrize(
    ("there", "exclusive", "arguments"),
    [
        ([One()], True, {}),
        ([One(exclusive=True)], False, {}),
        ([One(exclusive=True)], True, {}),
        ([], True, {"single_active_consumer": True}),
    ],
)
def test_an_exclusive_consumer_is_the_only_one(there: list[One], exclusive: bool, arguments: Any) -> None:  # noqa: FBT001 - a case
    with pytest.raises(AccessRefused):
        check_exclusive(opened(*there, **arguments), wire.Consume(1, "q", exclusive=exclusive))


def test_others_may_consume_together() -> None:
    check_exclusive(opened(One(), One(4)), wire.Consume(1, "q"))
    check_exclusive(opened(), wire.Consume(1, "q", exclusive=True))
