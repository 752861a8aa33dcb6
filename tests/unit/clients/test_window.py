"""shmq_clients.window: publishes without an answer stay below what the broker keeps for one client."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from shmq.wire import frames as wire
from shmq_clients.session import Answer
from shmq_clients.window import ALONE_BYTES, STEP_MESSAGES, STEPS_MAX, Window
from support.deadline import scaled
from support.scripted_broker import ScriptedBroker, scripted


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as broker:
        yield broker


@pytest.fixture
def conn(broker: ScriptedBroker) -> Iterator[shmq.Connection]:
    with shmq.connect(broker.url, mode="socket", timeout=scaled(2)) as conn:
        yield conn


def publish(conn: shmq.Connection, count: int) -> None:
    for _ in range(count):
        conn.publish(b"x", routing_key="q", timeout=0)


def test_one_publish_in_each_step_asks_for_an_answer(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    broker.answers[wire.Publish] = lambda frame: [wire.Ok(frame.seq)] if frame.seq else []
    publish(conn, 3 * STEP_MESSAGES)
    conn.wait_for_confirms()

    published = broker.received(wire.Publish)
    assert len(published) == 3 * STEP_MESSAGES
    assert [frame.confirm for frame in published].count(wire.CONFIRM_MEMORY) == 3
    assert all(bool(frame.seq) == (frame.confirm == wire.CONFIRM_MEMORY) for frame in published)


def test_a_broker_that_does_not_answer_gets_no_more_than_the_window(
    broker: ScriptedBroker, conn: shmq.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shmq_clients.socket_path.REQUEST_TIMEOUT", 0.2)

    with pytest.raises(shmq.OperationTimeout):
        publish(conn, 10_000)

    conn.wait_for_confirms()
    assert len(broker.received(wire.Publish)) == STEPS_MAX * STEP_MESSAGES


def test_a_refused_step_is_raised_by_a_later_call(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    broker.answers[wire.Publish] = lambda frame: [wire.Error(frame.seq, 608, "full", {})] if frame.seq else []

    with pytest.raises(shmq.QueueFull):
        publish(conn, (STEPS_MAX + 2) * STEP_MESSAGES)
    with contextlib.suppress(shmq.QueueFull):  # of the others
        conn.close()


def test_much_at_a_time_waits_for_its_answer(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    broker.answers[wire.Publish] = lambda frame: [wire.Ok(frame.seq)]
    conn.publish(bytes(ALONE_BYTES), routing_key="q")

    (frame,) = broker.received(wire.Publish)
    assert frame.confirm == wire.CONFIRM_MEMORY


def test_a_step_that_another_thread_takes_away_fails_no_publish() -> None:
    class Taken(Answer):
        """The other thread is as quick as can be: it has the step as soon as we know that it is done."""

        @property
        def done(self) -> bool:
            other = threading.Thread(target=take_away)
            other.start()
            other.join(0.05)
            return True

        @done.setter
        def done(self, value: bool) -> None: ...

    def take_away() -> None:
        with window._lock:
            window._steps.clear()

    unused: Any = None
    window = Window(unused, unused)
    window.end_step(Taken())

    assert window.enter(1, timeout=1.0) is False
