"""Copies of descriptors: all of them, or none; and none left of a queue that can't be opened."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.definitions import QueueDefinition
from shmq.errors import LayoutMismatch
from shmq_daemon import segments
from shmq_daemon.descriptors import close_all, copies
from shmq_daemon.events import Queue
from shmq_daemon.opened import Bells, OpenQueue
from shmq_daemon.watched import Watched


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def queue() -> Iterator[Queue]:
    """Give a queue whose segment was never laid out."""
    name = segments.new_name("0123456789abcdef")
    os.close(segments.create(name, 1 << 20))
    yield Queue(queue_id=1, definition=QueueDefinition("q"), geometry=(1, 64, 64, 4, 0), segment=name, number=0)
    segments.unlink(name)


def test_a_copy_that_fails_leaves_none_of_the_others() -> None:
    before = open_files()
    with pytest.raises(OSError, match="Bad file descriptor"):
        copies(0, 1, -1)

    assert open_files() == before
    close_all(copies(0, 1))
    assert open_files() == before


def test_a_segment_that_cannot_be_read_leaves_nothing_open(queue: Queue) -> None:
    bells = Bells.make(1)
    bell = os.eventfd(0)
    before = open_files()
    with pytest.raises((OSError, LayoutMismatch)):
        Watched(queue, 1, bells[:2], bell, 16)
    with pytest.raises((OSError, LayoutMismatch)):
        OpenQueue(queue, bells).attach(segments.open_existing(queue.segment), 1, bell, create=False)

    assert open_files() == before
    bells.close()
    os.close(bell)
