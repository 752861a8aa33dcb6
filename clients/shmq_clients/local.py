"""A private broker for tests, notebooks and demos: a child process that is gone, with all it made, when its owner is.

Owns: the child's life, its directory, its log. Does not own: what the daemon does (`shmqd --ephemeral` removes its
segments when its standard input ends).
Invariants: the daemon's standard input is a pipe that this process alone can write, so the daemon sees the end of its
owner however that comes about; a forked child lets go of the pipe and stops nothing.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shmq.errors import DaemonNotRunning, ShmqError
from shmq_clients import forks
from shmq_clients.connection import connect
from shmq_clients.durations import nanoseconds
from shmq_clients.url import SOCKET_PATH_BYTES_MAX, url_of

STOP_TIMEOUT: Final = 10.0
PROBE_INTERVAL: Final = 0.005
LOG_LINES_SHOWN: Final = 20


@contextlib.contextmanager
def local(*, timeout: float = 10.0) -> Iterator[str]:
    """Run a broker of your own and give its URL; at exit it is gone, with its messages.

    Raises DaemonNotRunning, with the daemon's log, if it does not answer within `timeout` seconds.
    """
    nanoseconds(timeout, "timeout")
    owner = os.getpid()
    directory = _private_directory()
    try:
        daemon = _Daemon(directory)
        try:
            daemon.wait_until_ready(timeout)
            yield url_of(daemon.socket)
        finally:
            if os.getpid() == owner:
                daemon.stop()
    finally:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)


def _private_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="shmq-"))
    if len(os.fsencode(directory / "shmq.sock")) <= SOCKET_PATH_BYTES_MAX:
        return directory
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="shmq-", dir="/tmp"))


class _Daemon:
    """One `shmqd --ephemeral`."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "shmq.sock"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the daemon; without a name: it leaves nothing
        command = [sys.executable, "-P", "-m", "shmq_daemon.main", "--ephemeral"]
        command += ["--socket", str(self.socket), "--data", str(directory)]
        # A group of its own: Ctrl-C must reach the owner, who still needs the broker to end in order.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
            command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, process_group=0
        )
        forks.register(self)

    def wait_until_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._answers():
            code = self._process.poll()
            if code is not None:
                raise self._failed(f"shmqd ended with code {code}")
            if time.monotonic() > deadline:
                raise self._failed(f"shmqd did not answer within {timeout:g} s")
            time.sleep(PROBE_INTERVAL)

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        try:
            connect(url_of(self.socket)).close()
        except ShmqError:
            return False
        return True

    def _failed(self, what: str) -> DaemonNotRunning:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return DaemonNotRunning("\n".join([f"{what}; its log:", *lines]))

    def stop(self) -> None:
        """End the lifeline and wait; a daemon that does not follow is killed."""
        self._let_go()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def forked(self) -> None:
        self._let_go()
        self._process.returncode = 0  # not our child here: nothing to wait for, nothing to warn of

    def _let_go(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
