"""shmq_daemon.watermark: who may not grow, from when to when, and who is told."""

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq_daemon.watched import Quarantine, Watched
from shmq_daemon.watermark import (
    HURRY_NS,
    LOOK_NS,
    MEMORY,
    QUIET_NS,
    SHARE_MIN,
    STOPPED,
    Marks,
    Watermark,
    fair_share,
)

MIB = 1 << 20


class Queue:
    """A queue that has so many bytes."""

    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self.name = name
        self.figures = {
            "stopped": 0,
            "share_bytes": 0,
            "ready": 100,
            "unacked": 0,
            "delayed": 0,
            "dead_pending": 0,
            "slots_committed": 100,
            "arena_committed_bytes": 0,
            "arena_used_bytes": 0,
        }
        core = SimpleNamespace(stats=lambda: self.figures, memory_bytes=lambda: self.size, set_share=self.set_share)
        queue = SimpleNamespace(queue_id=id(self))
        self.watched = cast("Watched", SimpleNamespace(queue=queue, core=core, name=name, quarantined=False))

    def set_share(self, share: int, mark: int) -> None:
        self.figures |= {"share_bytes": share, "mark_bytes": mark}

    @property
    def is_stopped(self) -> bool:
        return self.figures["share_bytes"] != 0

    def refuse(self) -> None:
        self.figures["stopped"] += 1


class Host:
    """Its /dev/shm has 1 GiB; the mark is at 100 MiB, and clears at 80."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queues: list[Queue] = []
        self.others = 0
        self.alarms: dict[tuple[str, str], str] = {}
        self.told: list[tuple[str, str]] = []
        self.now_ns = 0
        self.known: dict[int, Watched] = {}
        self.watermark = self.started()
        monkeypatch.setattr(os, "statvfs", lambda _path: self.figures())

    def started(self) -> Watermark:
        quarantine = Quarantine(lambda _watched, error: pytest.fail(str(error)))
        return Watermark(self.known, quarantine, cast("Any", self), Marks(1.0, 100 * MIB, 0.8))

    def figures(self) -> SimpleNamespace:
        free = (1 << 30) - self.others - sum(queue.size for queue in self.queues)
        return SimpleNamespace(f_bavail=free, f_bfree=free, f_blocks=1 << 30, f_frsize=1)

    def raise_alarm(self, kind: str, subject: str, text: str) -> None:
        if (kind, subject) not in self.alarms:
            self.told.append((kind, subject))
        self.alarms[kind, subject] = text

    def clear_alarm(self, kind: str, subject: str) -> None:
        self.alarms.pop((kind, subject), None)

    def queue(self, name: str, mib: float) -> Queue:
        queue = Queue(name, int(mib * MIB))
        self.queues.append(queue)
        self.known[id(queue)] = queue.watched
        self.watermark.add(queue.watched)
        return queue

    def delete(self, queue: Queue) -> None:
        self.queues.remove(queue)
        self.watermark.remove(self.known.pop(id(queue)))

    def look(self, later_ns: int = LOOK_NS) -> set[str]:
        self.now_ns += later_ns
        self.watermark.look(self.now_ns)
        return {queue.name for queue in self.queues if queue.is_stopped}

    @property
    def kinds(self) -> list[str]:
        return sorted(kind for kind, _ in self.alarms)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_below_the_mark_nobody_is_stopped(host: Host) -> None:
    host.queue("large", 99)
    host.queue("small", 1)

    assert host.look() == set()
    assert host.alarms == {}
    assert host.watermark.due_ns is None


def test_above_it_those_with_more_than_their_share_are(host: Host) -> None:
    large, other, small = host.queue("large", 60), host.queue("other", 45), host.queue("small", 5)

    assert host.look() == {"large", "other"}
    assert large.figures["share_bytes"] == other.figures["share_bytes"] == (80 - 5) * MIB // 2
    assert large.figures["mark_bytes"] == 100 * MIB
    assert not small.is_stopped
    assert host.kinds == [MEMORY]


def test_they_are_let_go_below_where_it_clears_and_not_before(host: Host) -> None:
    large = host.queue("large", 101)
    for size, stopped in ((101, True), (99, True), (81, True), (80, False), (99, False), (101, True)):
        large.size = size * MIB
        assert (host.look() == {"large"}) is stopped, size


def test_who_comes_below_its_share_is_let_go_while_others_are_not(host: Host) -> None:
    large, other = host.queue("large", 60), host.queue("other", 45)
    assert host.look() == {"large", "other"}
    other.size = 25 * MIB

    assert host.look() == {"large"}
    large.size = 70 * MIB
    host.delete(other)
    assert host.look() == set()


def test_many_small_queues_may_have_the_least_that_every_queue_may(host: Host) -> None:
    storm = [host.queue(f"storm-{number}", 0.2) for number in range(600)]
    storm[0].size = SHARE_MIN + 1

    assert host.look() == {"storm-0"}


def test_what_others_take_of_dev_shm_is_no_longer_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    host.watermark = Watermark(
        host.known, Quarantine(lambda _w, e: pytest.fail(str(e))), cast("Any", host), Marks(0.5, 0, 0.9)
    )
    host.queue("jobs", 300)
    assert host.look() == set()
    host.others = 600 * MIB

    assert host.look() == {"jobs"}


def test_a_queue_is_told_of_when_a_publisher_was_stopped_and_until_there_is_room(host: Host) -> None:
    large = host.queue("large", 200)
    host.look()
    assert host.kinds == [MEMORY]
    for _ in range(3):
        large.refuse()
        host.look()
        assert host.kinds == [MEMORY, STOPPED]
    large.figures["ready"] = 10
    host.look()
    assert host.kinds == [MEMORY, STOPPED], "for a while"
    host.look(QUIET_NS)

    assert host.kinds == [MEMORY]
    assert host.told == [(MEMORY, "/dev/shm"), (STOPPED, "large")]


def test_while_publishers_may_still_wait_it_stays_told(host: Host) -> None:
    large = host.queue("large", 200)
    host.look()
    large.refuse()
    host.look()
    host.look(100 * QUIET_NS)

    assert host.kinds == [MEMORY, STOPPED]
    large.figures |= {"ready": 1, "arena_committed_bytes": 100, "arena_used_bytes": 90}
    host.look(QUIET_NS)
    assert host.kinds == [MEMORY, STOPPED]
    large.size = MIB
    host.look()
    assert host.kinds == []


def test_the_next_supervisor_goes_on_where_the_headers_say(host: Host) -> None:
    large = host.queue("large", 200)
    large.refuse()
    host.look()
    large.size = 90 * MIB
    host.alarms.clear()
    host.watermark = host.started()
    host.watermark.add(large.watched)

    assert host.watermark.due_ns is not None, "at once"
    assert host.look() == {"large"}
    assert host.kinds == [MEMORY, STOPPED]
    large.size = 70 * MIB
    assert host.look() == set()
    assert host.kinds == []


def test_growth_is_looked_at_soon_but_not_all_the_time(host: Host) -> None:
    large = host.queue("large", 10)
    host.look()
    large.size = 200 * MIB
    host.watermark.grown()
    host.watermark.tick(host.now_ns + HURRY_NS - 1)
    assert not large.is_stopped
    host.watermark.tick(host.now_ns + HURRY_NS)

    assert large.is_stopped


def test_a_deleted_queue_is_forgotten(host: Host) -> None:
    host.queue("small", 1)
    large = host.queue("large", 200)
    host.look()
    host.delete(large)

    assert host.look() == set()
    assert host.kinds == []


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(1, 10_000))
def test_nobody_has_more_than_the_budget_and_what_is_left_is_nobodys(sizes: list[int], budget: int) -> None:
    """The share is the largest one with which all together stay within the budget."""
    share = fair_share(sizes, budget)
    taken = sum(min(size, share) for size in sizes)
    if sum(sizes) <= budget:
        assert taken == sum(sizes)
    else:
        assert taken <= budget < sum(min(size, share + 1) for size in sizes)
