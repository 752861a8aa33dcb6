"""What a client writes into a queue's memory without our help: what is read there is checked, whoever wrote it, and one
that may write in one queue does no harm to another.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import scaled
from support.shmqd import SHM, Shmqd

WORDS = {"sequence": 8, "expires": 16, "origin": 56}  # of a slot, docs/SHM_LAYOUT.md
SLOT_WORDS_BYTES = 64
FORGED = b"\xff" * 4  # over the upper half: a time in the year 2500, a pid that no process has


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    running = Shmqd(tmp_path)
    try:
        running.start()
        yield running
    finally:
        running.close()


def forge(daemon: Shmqd, body: bytes, offset: int) -> None:
    """Overwrite half a word of the slot whose message has this body."""
    for name in daemon.segments():
        with (SHM / name).open("r+b", buffering=0) as segment:
            slot = slot_of(segment.fileno(), body)
            if slot >= 0:
                os.pwrite(segment.fileno(), FORGED, slot + offset + 4)
                return
    pytest.fail(f"no slot has {body!r}")


def slot_of(fd: int, body: bytes) -> int:
    """Return where the slot begins, or -1. Only what was ever written is read."""
    end = os.fstat(fd).st_size
    at = 0
    with contextlib.suppress(OSError):  # ENXIO: nothing but a hole is left
        while at < end:
            at = os.lseek(fd, at, os.SEEK_DATA)
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            found = os.pread(fd, hole - at, at).find(body)
            if found >= 0:
                return at + found - SLOT_WORDS_BYTES
            at = hole
    return -1


@pytest.mark.parametrize("offset", WORDS.values(), ids=WORDS)
def test_a_consumer_over_the_socket_gets_the_message_and_keeps_its_session(daemon: Shmqd, offset: int) -> None:
    with daemon.connect("socket") as conn:
        conn.declare_queue("jobs")
        conn.publish(b"who wrote this word?", routing_key="jobs", confirm="memory")
        forge(daemon, b"who wrote this word?", offset)
        message = conn.get("jobs", timeout=scaled(2))

        assert message is not None
        assert message.body == b"who wrote this word?"
        assert offset != WORDS["origin"] or message.sender is None
        message.ack()
        conn.publish(b"next", routing_key="jobs", confirm="memory")
        assert conn.get("jobs", timeout=scaled(2), no_ack=True) is not None


@pytest.mark.parametrize("offset", WORDS.values(), ids=WORDS)
def test_a_dead_letter_with_it_sets_no_other_queue_apart(daemon: Shmqd, offset: int) -> None:
    with daemon.connect("direct") as conn:
        conn.declare_queue("others")
        conn.declare_queue("mine", dead_letter_exchange="", dead_letter_routing_key="others")
        conn.publish(b"who wrote this word?", routing_key="mine", confirm="memory")
        forge(daemon, b"who wrote this word?", offset)
        message = conn.get("mine", timeout=scaled(2))
        assert message is not None
        message.reject()

        letter = conn.get("others", timeout=scaled(5), no_ack=True)
        assert letter is not None
        assert (letter.body, letter.headers["x-death"][0]["queue"]) == (b"who wrote this word?", "mine")
        conn.publish(b"next", routing_key="others", confirm="memory")
        assert conn.get("others", timeout=scaled(2), no_ack=True) is not None
        assert conn.status().alarms == []
