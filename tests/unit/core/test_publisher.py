"""Publisher: what its fast path takes, and that everything else reaches the fallback untouched."""

from typing import Any

import pytest

from shmq import core
from support.segments import Segment, segment


class Fallback:
    """Remember the calls that the fast path left."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **keywords: Any) -> None:
        self.calls.append((args, keywords))


@pytest.fixture
def fallback() -> Fallback:
    return Fallback()


@pytest.fixture
def publish(queue: core.Queue, fallback: Fallback) -> core.Publisher:
    publisher = core.Publisher(fallback)
    publisher.routes["jobs"] = queue
    return publisher


@pytest.mark.parametrize("body", [b"", b"body", b"x" * (1 << 20), bytearray(b"body"), memoryview(b"body")])
@pytest.mark.parametrize("keywords", [{}, {"exchange": ""}, {"priority": 3, "persistent": True}, {"persistent": False}])
def test_the_fast_path_publishes(
    publish: core.Publisher, queue: core.Queue, fallback: Fallback, body: Any, keywords: dict[str, Any]
) -> None:
    publish(body, routing_key="jobs", **keywords)

    message = queue.take()
    assert message is not None
    assert (message.body, message.priority) == (bytes(body), keywords.get("priority", 0))
    assert message.flags == (core.PERSISTENT if keywords.get("persistent") else 0)
    assert fallback.calls == []


def test_a_priority_above_the_highest_is_the_highest(fallback: Fallback) -> None:
    with segment(10, 64, 256, 4, 0) as made:
        queue = made.attach(32)
        publisher = core.Publisher(fallback)
        publisher.routes = {"jobs": queue}
        for priority in (0, 9, 255):
            publisher(b"", routing_key="jobs", priority=priority)

        assert [m.priority for m in queue.take_many(3)] == [9, 255, 0]  # one level, in the order of publishing
        assert fallback.calls == []


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"routing_key": "unknown"},
        {"routing_key": 7},
        {"routing_key": ["jobs"]},
        {"routing_key": "jobs", "exchange": "images"},
        {"routing_key": "jobs", "exchange": None},
        {"routing_key": "jobs", "priority": 256},
        {"routing_key": "jobs", "priority": -1},
        {"routing_key": "jobs", "priority": 1 << 80},
        {"routing_key": "jobs", "priority": True},
        {"routing_key": "jobs", "priority": 1.0},
        {"routing_key": "jobs", "persistent": 1},
        {"routing_key": "jobs", "headers": None},
        {"routing_key": "jobs", "timeout": 1},
    ],
)
def test_anything_unusual_goes_to_the_fallback_as_it_came(
    publish: core.Publisher, queue: core.Queue, fallback: Fallback, keywords: dict[str, Any]
) -> None:
    publish(b"body", **keywords)

    assert fallback.calls == [((b"body",), keywords)]
    assert queue.take() is None


@pytest.mark.parametrize("args", [(), (b"body", "jobs"), ("text",), (memoryview(b"abcd")[::2],), (None,)])
def test_bodies_that_are_none_go_to_the_fallback(
    publish: core.Publisher, fallback: Fallback, args: tuple[Any, ...]
) -> None:
    publish(*args, routing_key="jobs")

    assert fallback.calls == [(args, {"routing_key": "jobs"})]


def test_keywords_that_are_not_interned_go_the_slow_way(
    publish: core.Publisher, queue: core.Queue, fallback: Fallback
) -> None:
    publish(b"body", **{"routing_" + "key".lower(): "jobs"})

    assert len(fallback.calls) + queue.stats()["published"] == 1


def test_any_outcome_but_ok_goes_to_the_fallback(
    small: Segment, publish: core.Publisher, queue: core.Queue, fallback: Fallback
) -> None:
    publish(bytes(17 << 20), routing_key="jobs")
    for _ in range(small.geometry[1] + 1):
        publish(b"", routing_key="jobs")
    queue.mark_deleted()
    publish(b"", routing_key="jobs")
    queue.close()
    publish(b"", routing_key="jobs")

    assert len(fallback.calls) == 4


def test_stale_bells_go_to_the_fallback_until_there_are_new_ones(
    publish: core.Publisher, queue: core.Queue, fallback: Fallback
) -> None:
    queue.set_epoch(2)
    publish(b"1", routing_key="jobs")
    queue.set_bells((-1, -1, -1), 2)
    publish(b"2", routing_key="jobs")

    assert [args for args, _ in fallback.calls] == [(b"1",)]
    assert [message.body for message in queue.take_many(2)] == [b"2"]


def test_an_error_of_the_fallback_is_the_callers(queue: core.Queue) -> None:
    def fail(_body: Any, **_keywords: Any) -> None:
        raise ZeroDivisionError

    publisher = core.Publisher(fail)
    publisher.routes["jobs"] = queue
    with pytest.raises(ZeroDivisionError):
        publisher("text", routing_key="jobs")  # type: ignore[arg-type] # what is refused


def test_routes_are_a_dict(publish: core.Publisher, fallback: Fallback) -> None:
    with pytest.raises(TypeError):
        publish.routes = None  # type: ignore[assignment] # what is refused
    publish.routes["odd"] = "no queue"  # type: ignore[assignment] # as any dict takes it

    publish(b"", routing_key="odd")

    assert len(fallback.calls) == 1
