"""How a child begins: real forks."""

import os
import signal
import time

from shmq_daemon.process import fork_child

FORKS = 200
PATIENCE = 2.0  # seconds a child would live that nothing ends


def test_a_child_that_is_told_to_end_in_its_first_moment_ends() -> None:
    """The parent's handler is still there then: it belongs to another process's loop."""
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        for _ in range(FORKS):
            pid = fork_child("child", lambda: time.sleep(PATIENCE))
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_forking_leaves_the_parent_s_signals_as_they_were() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    os.waitpid(fork_child("child", lambda: None), 0)

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
