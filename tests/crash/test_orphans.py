"""What a client made dead or delayed in its last instructions, before it told anybody, is found after its death."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from shmq import core
from support.deadline import wait_until
from support.shmqd import Shmqd, instance

NO_BELLS = (-1, -1, -1)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        with running.connect() as conn:
            conn.declare_queue("dead")
            conn.declare_exchange("morgue")
            conn.bind_queue("dead", "morgue", "jobs")
            conn.declare_queue("jobs", dead_letter_exchange="morgue")
        yield running


def _segment(conn: shmq.Connection) -> core.Queue:
    """The queue as its client works in it, with bells that nobody hears: as far as a client comes that dies there."""
    segment = conn._attachments.attach("jobs").queue
    segment.set_bells(NO_BELLS, 0)
    return segment


def _die_with_the_queue(daemon: Shmqd) -> None:
    """A client that had the queue is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            daemon.connect("direct")._attachments.attach("jobs")
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_dead_message_that_is_in_no_ring_is_dead_lettered(daemon: Shmqd) -> None:
    with daemon.connect("direct") as conn:
        segment = _segment(conn)
        segment.publish(b"poison")
        message = segment.take()
        assert message is not None
        message.reject()
        assert segment.dead_pop() is not None

        _die_with_the_queue(daemon)

        wait_until(lambda: conn.queue_info("dead").messages == 1, "it is among the dead", 10.0)
        assert segment.count_states()[core.DEAD] == 0


def test_a_delayed_message_that_is_in_no_ring_is_delivered(daemon: Shmqd) -> None:
    with daemon.connect("direct") as conn:
        segment = _segment(conn)
        segment.publish(b"later", delay_ns=1_000_000)
        assert segment.delayed_pop() is not None

        _die_with_the_queue(daemon)

        wait_until(lambda: segment.count_states()[core.DELAYED] == 0, "it is ready", 10.0)
        message = segment.take()
        assert message is not None
        assert message.body == b"later"
