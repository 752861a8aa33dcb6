"""Frames between broker and supervisor, with their descriptors."""

import os
import socket
from collections.abc import Iterator

import pytest

from shmq.definitions import QueueDefinition
from shmq_daemon import link
from shmq_daemon.events import Queue, QueueDeleted
from shmq_daemon.link import Link


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs = map(Link, pair)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_frames_arrive_whole_and_in_order(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    sent: list[link.AnyFrame] = [link.SessionLost(40), QueueDeleted(7), link.Counters({"fired": 2}), link.Synced()]
    for frame in sent:
        ours.send(frame)

    assert [packet.frame for packet in theirs.receive() or []] == sent


def test_descriptors_travel_with_their_frame(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    bell = os.eventfd(3)
    ours.send(link.SessionLost(1))
    ours.send(link.KeptBell(7, 2), [bell])
    first, second = theirs.receive() or []
    os.close(bell)

    assert first.descriptors == ()
    assert os.eventfd_read(second.descriptors[0]) == 3
    os.close(second.descriptors[0])


def test_what_does_not_go_at_once_goes_later_with_its_descriptors(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    bell = os.eventfd(1)
    sent = 0
    while not ours.wants_write:
        ours.send(link.AlarmRaised("kind", "subject", "text" * 1000))
        sent += 1
    ours.send(link.KeptBell(7, 2), [bell])
    os.close(bell)
    found: list[link.Packet] = []
    while len(found) <= sent:
        found += theirs.receive() or []
        ours.flush()

    assert found[-1].frame == link.KeptBell(7, 2)
    assert os.eventfd_read(found[-1].descriptors[0]) == 1
    os.close(found[-1].descriptors[0])


def test_nothing_to_read_is_empty_and_the_end_is_none(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    assert theirs.receive() == []
    ours.close()

    assert theirs.receive() is None


def test_what_an_application_added_to_a_queue_is_not_told() -> None:
    definition = QueueDefinition("jobs", other={"x-blob": "x" * 4000})
    queue = Queue(queue_id=1, definition=definition, geometry=(1, 1, 64, 4, 0), segment="/s", number=0)

    assert link.without_unknown_arguments(queue).definition == QueueDefinition("jobs")
