"""Who is a client, and dead, as far as the supervisor knows."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from shmq_daemon.link import ClientJoined
from shmq_daemon.loop import READ, Loop
from shmq_daemon.reaping import Clients


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as running:
        yield running
        running.kill()


def test_only_a_process_that_ended_is_dead_whatever_the_loop_says(process: subprocess.Popen[bytes]) -> None:
    dead: list[int] = []
    clients = Clients(Loop(), dead.append)
    clients.add(ClientJoined(40, 1, process.pid), os.pidfd_open(process.pid))
    clients._on_pidfd(40, READ)  # of a closed descriptor that had the same number, in one batch of events

    assert (dead, clients.dead()) == ([], [])
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    clients._on_pidfd(40, READ)
    assert (dead, clients.dead()) == ([40], [40])
    clients.forget_all()
