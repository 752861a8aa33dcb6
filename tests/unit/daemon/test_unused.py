"""Queues that go when nobody uses them: by a clock that the test moves."""

from typing import Any

import pytest
import structlog

from shmq.definitions import QueueDefinition
from shmq.errors import InternalError
from shmq_daemon.events import Queue, QueueDeclared
from shmq_daemon.loop import Timers
from shmq_daemon.unused import COME_BACK_NS, Unused

MS = 1_000_000


class Opened:
    """A queue, and when it was last used: by way of the broker, and without it."""

    def __init__(self, expires_ms: int | None) -> None:
        definition = QueueDefinition("q", expires_ms=expires_ms)
        self.queue = Queue(queue_id=7, definition=definition, geometry=(1, 1, 64, 4, 0), segment="/s", number=0)
        self.name = "q"
        self.consumers: list[str] = []
        self.waiting: list[str] = []
        self.used_ns = 0
        self.core_ns = 0
        self.usable = True
        self.core: Any = type("Core", (), {"used_ns": lambda _: self.core_ns})()


class Catalog:
    def __init__(self, opened: Opened) -> None:
        self.open = {7: opened}
        self.fails = 0

    def delete_queue(self, queue: Queue) -> None:
        if self.fails:
            self.fails -= 1
            raise InternalError("the disk is full")
        del self.open[queue.queue_id]


class Scene:
    def __init__(self, expires_ms: int | None = 100) -> None:
        self.now_ns = 0
        self.opened = Opened(expires_ms)
        self.catalog = Catalog(self.opened)
        self.timers = Timers(lambda: self.now_ns)
        self.unused = Unused(self.catalog, self.timers, structlog.get_logger())  # type: ignore[arg-type] # what it needs of one

    def declare(self) -> None:
        self.unused.on_event(QueueDeclared(self.opened.queue))

    def is_there_at(self, ms: int) -> bool:
        self.now_ns = ms * MS
        self.timers.tick(self.now_ns)
        return 7 in self.catalog.open


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_queue_goes_when_its_time_is_over(scene: Scene) -> None:
    scene.declare()

    assert scene.is_there_at(99)
    assert not scene.is_there_at(100)


@pytest.mark.parametrize("how", ["used_ns", "core_ns"])
def test_each_use_begins_the_time_anew(scene: Scene, how: str) -> None:
    scene.declare()
    setattr(scene.opened, how, 60 * MS)

    assert scene.is_there_at(100)
    assert scene.is_there_at(159)
    assert not scene.is_there_at(160)


@pytest.mark.parametrize("who", ["consumers", "waiting"])
def test_who_consumes_or_waits_keeps_it(scene: Scene, who: str) -> None:
    scene.declare()
    getattr(scene.opened, who).append("somebody")
    assert scene.is_there_at(100)
    getattr(scene.opened, who).clear()
    scene.opened.used_ns = 150 * MS

    assert scene.is_there_at(200)
    assert not scene.is_there_at(250)


def test_a_queue_without_a_time_stays() -> None:
    scene = Scene(expires_ms=None)
    scene.declare()
    scene.unused.begin()

    assert scene.is_there_at(10**6)


def test_after_a_start_clients_have_time_to_come_back(scene: Scene) -> None:
    scene.unused.begin()

    assert scene.is_there_at(COME_BACK_NS // MS - 1)
    assert not scene.is_there_at(COME_BACK_NS // MS)


def test_what_cannot_be_deleted_is_tried_again(scene: Scene) -> None:
    scene.declare()
    scene.catalog.fails = 1

    assert scene.is_there_at(100)
    assert not scene.is_there_at(200)
