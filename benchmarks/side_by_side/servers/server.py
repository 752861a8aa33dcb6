"""One server process: started in a directory of its own, asked until it answers, stopped.

Owns: the process, its directory, its log. Does not own: what is started (one module each).
Invariants: nothing listens beyond loopback and Unix sockets; nothing is left, not even when the start fails, nor, where
there is setpriv(1), when the run is killed.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 20.0
ASK_SECONDS: Final = 0.05
SYSTEM_PROGRAMS: Final = ("/usr/sbin", "/usr/local/sbin")


class ServerFailed(Exception):  # noqa: N818 - says what is the case
    """A server did not start; the text is the end of its log."""


def find_program(name: str) -> str | None:
    """Return the path of a program, also where only root looks."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_PROGRAMS])
    return shutil.which(name, path=path)


def new_directory() -> Path:
    """Return a new, private directory with a path that is short enough for a socket."""
    return Path(tempfile.mkdtemp(prefix="shmq-bench-", dir="/tmp"))


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A process and its directory."""

    def __init__(self, directory: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        ends_with_us = find_program("setpriv")
        self._log = directory / f"{Path(command[0]).name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - programs found on this host
                [*([ends_with_us, "--pdeathsig", "TERM", "--"] if ends_with_us else []), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def wait_until(self, answers: Callable[[], bool], seconds: float) -> None:
        """Return when it answers. Raises ServerFailed."""
        deadline = time.monotonic() + seconds
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(f"{self._log.name}: {self._last_lines()}")
            time.sleep(ASK_SECONDS)

    def _last_lines(self) -> str:
        return " | ".join(self._log.read_text(errors="replace").splitlines()[-5:])

    def stop(self) -> None:
        """Ask it, and then make it, with all it started."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


def listens(path_or_port: Path | int) -> bool:
    """Return whether somebody accepts connections there."""
    unix = isinstance(path_or_port, Path)
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
        return probe.connect_ex(str(path_or_port) if unix else ("127.0.0.1", path_or_port)) == 0
