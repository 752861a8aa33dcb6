"""The life of a child of the master: what it does first, how it answers, how it ends.

Owns: the lifeline (one socket pair a child: end of file there is the master's death, a question there wants an
answer), signals, limits, the run loop around a tick. Does not own: the work (broker.py, supervisor.py).
Invariants: a child never outlives its master by more than 100 ms: end of file on the lifeline ends it,
PR_SET_PDEATHSIG is the net below for one that is busy.
"""

import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, Protocol

from shmq.errors import ConfigError, ShmqError
from shmq_daemon.log import logger
from shmq_daemon.loop import Loop

PR_SET_PDEATHSIG: Final = 1  # prctl(2)
ASK: Final = b"?"  # master: are you there?
ALIVE: Final = b"!"  # child: my loop runs
CANT_SERVE: Final = 78  # exit code, as sysexits' EX_CONFIG: starting again would not help
READY: Final = b"R"  # child: I serve

_libc = ctypes.CDLL(None, use_errno=True)


class Work(Protocol):
    """What a child does."""

    def start(self) -> None: ...
    def tick(self, now_ns: int) -> int | None:
        """Do what is due; return the next deadline, None when nothing is planned."""

    def stop(self) -> None:
        """End in order; keep what must survive."""

    def master_died(self) -> None:
        """Last words; at once."""


class Child:
    """Runs a child's work until the master wants it to end or is gone."""

    def __init__(self, loop: Loop, lifeline: socket.socket, work: Work) -> None:
        self._loop = loop
        self._lifeline = lifeline
        self._work = work
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_terminate)
        self._loop.add(self._wake_read, self._on_wake)
        self._loop.add(self._lifeline.fileno(), self._on_lifeline)
        self._work.start()
        self._say(READY)
        while not self._stopping:
            now = time.monotonic_ns()
            deadline = self._work.tick(now)
            self._loop.poll(None if deadline is None else deadline - now)
        self._work.stop()

    def _on_terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _on_wake(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 64)

    def _on_lifeline(self, _events: int) -> None:
        try:
            asked = self._lifeline.recv(64)
        except BlockingIOError:
            return
        except OSError:
            asked = b""
        if not asked:
            self._work.master_died()
            os._exit(0)
        self._say(ALIVE)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._lifeline.send(word, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def die_with(parent_pid: int, signal_number: int) -> None:
    """Let the kernel send us a signal when our parent ends; end at once if it has already."""
    if _libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(0)


def fork_child(name: str, main: Callable[[], None]) -> int:
    """Fork; the child calls `main` with default signals and never returns. Returns the pid.

    SIGTERM waits meanwhile: the child's first moments still have the parent's handler, which would swallow it.
    """
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        raise
    if pid != 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):  # they reach the whole group; the master stops us in order
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        main()
        code = 0
    except ConfigError as error:
        logger(name).error("can't serve", why=str(error))
        code = CANT_SERVE
    except ShmqError as error:  # what may be better a moment later, as shared memory that is used up
        logger(name).error("can't serve now", why=str(error))
    except Exception:  # noqa: BLE001 - the last frame of this process: what fails here must be seen
        logger(name).exception("process failed")
    finally:
        os._exit(code)
