"""shmq_daemon.releases: who waits for memory tries again when it has come, or is not to be expected any more."""

from typing import Any

import pytest

from shmq.wire.frames import Ping
from shmq_daemon.loop import Timers
from shmq_daemon.releases import RELEASE_NS, Releases

FRAME = Ping(1)


class Session:
    """Counts how often it went on."""

    def __init__(self, *, waits: bool = True) -> None:
        self.waits = waits
        self.resumed = 0

    def postpone(self, _frame: object) -> bool:
        return self.waits

    def resume(self) -> None:
        self.resumed += 1


@pytest.fixture
def timers() -> Timers:
    return Timers(lambda: 0)


@pytest.fixture
def releases(timers: Timers) -> Releases:
    return Releases(timers)


def test_where_nothing_was_deleted_nobody_waits(releases: Releases) -> None:
    session: Any = Session()

    assert not releases.postpone(session, FRAME)
    assert not releases.postpone(None, FRAME)


def test_a_session_whose_peer_is_dead_does_not_wait(releases: Releases) -> None:
    dead: Any = Session(waits=False)
    releases.expect(1)

    assert not releases.postpone(dead, FRAME)


def test_all_go_on_when_the_last_queue_is_released(releases: Releases, timers: Timers) -> None:
    sessions: list[Any] = [Session(), Session()]
    releases.expect(1)
    releases.expect(2)
    assert all(releases.postpone(session, FRAME) for session in sessions)
    releases.released(1)
    assert [session.resumed for session in sessions] == [0, 0]
    releases.released(2)
    timers.tick(2 * RELEASE_NS)

    assert [session.resumed for session in sessions] == [1, 1]


def test_a_supervisor_that_does_not_come_is_not_waited_for_twice(releases: Releases, timers: Timers) -> None:
    session: Any = Session()
    releases.expect(1)
    assert releases.postpone(session, FRAME)
    timers.tick(RELEASE_NS - 1)
    assert session.resumed == 0
    timers.tick(RELEASE_NS)

    assert session.resumed == 1
    assert not releases.postpone(session, FRAME)
