"""Segments for tests of the core: a file without a name, real bells, as many owners as a test wants. No daemon."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from shmq.core import Queue, segment_bytes

SMALL = (1, 64, 256, 4, 16 << 20)
"""Rings of 4 entries for 64 messages: what wraps and grows does so at once."""
SEMAPHORE = os.EFD_NONBLOCK | os.EFD_SEMAPHORE
QUEUE_ID = 7


class Segment:
    """One segment and its bells; `attach` gives a queue with descriptors of its own."""

    def __init__(self, geometry: tuple[int, int, int, int, int] = SMALL) -> None:
        self.geometry = geometry
        self.fd = os.memfd_create("shmq-test")
        os.ftruncate(self.fd, segment_bytes(geometry))
        self.bells = (os.eventfd(0, SEMAPHORE), os.eventfd(0, SEMAPHORE), os.eventfd(0, os.EFD_NONBLOCK))
        self._queues: list[Queue] = []
        self.attach(1, create=True)

    def attach(self, owner: int, **keywords: Any) -> Queue:
        """Return the segment as `owner` works in it."""
        consumers, producers, supervisor = map(os.dup, self.bells)
        queue = Queue(
            os.dup(self.fd),
            self.geometry,
            owner,
            queue_id=QUEUE_ID,
            bells=(consumers, producers, supervisor),
            **keywords,
        )
        self._queues.append(queue)
        return queue

    def forget(self) -> None:
        """Keep no queue alive."""
        self._queues.clear()

    def close(self) -> None:
        """Close what is open."""
        for queue in self._queues:
            queue.close()
        for fd in (self.fd, *self.bells):
            os.close(fd)


@contextmanager
def segment(*geometry: int) -> Iterator[Segment]:
    """Give a segment, SMALL unless told otherwise, and close it."""
    levels, slots, inline_bytes, ring_entries, arena_bytes = geometry or SMALL
    made = Segment((levels, slots, inline_bytes, ring_entries, arena_bytes))
    try:
        yield made
    finally:
        made.close()


def _work_and_exit(work: Callable[[], object]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - the parent asserts on the status; the text helps a person
        traceback.print_exc()
    finally:
        os._exit(status)


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """Run `work()` in a forked child beside the block; give its pid. Its end is waited for; it must not have raised."""
    pid = os.fork()
    if pid == 0:
        _work_and_exit(work)
    try:
        yield pid
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0


def run_in_child(work: Callable[[], object]) -> None:
    """Run `work()` in a forked child and wait for it: it must not have raised."""
    with child(work):
        pass
