"""A shmqd of a test's own: started, asked, killed in parts, and gone at the end with all it made."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import shmq
from shmq_daemon import segments, state
from support.deadline import scaled, wait_until

SHM = Path("/dev/shm")
COMMAND = [sys.executable, "-P", "-m", "shmq_daemon.main"]


class Shmqd:
    """One instance, running or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "shmq.sock"
        self.data = folder / "data"
        self.log = folder / "shmqd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.command = COMMAND

    @property
    def url(self) -> str:
        return f"shmq://{self.socket}"

    @property
    def places(self) -> list[str]:
        return ["--socket", str(self.socket), "--data", str(self.data)]

    def start(self, *flags: str, **environment: str) -> float:
        """Start and wait until it serves. Returns the seconds that took."""
        self._forget()
        started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *self.places, *flags],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                process_group=0,
            )
        wait_until(self.serves, f"shmqd serves:\n{self.log.read_text()}", 10.0)
        return time.monotonic() - started

    def serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError, shmq.ShmqError), self.connect() as connection:
            connection.status()
            return True
        return False

    def connect(self, mode: str = "auto") -> shmq.Connection:
        return shmq.connect(self.url, mode=mode)  # type: ignore[arg-type] # one of its words

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def child(self, role: str) -> int:
        """The pid of the broker or the supervisor."""
        with self.connect() as connection:
            return next(process.pid for process in connection.status().processes if process.role == role)

    def kill(self, role: str) -> None:
        os.kill(self.pid if role == "master" else self.child(role), signal.SIGKILL)

    def kill_all(self) -> None:
        """Master, broker and supervisor at once."""
        os.killpg(self.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait(scaled(5))

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(scaled(10))
        self._forget()
        return code

    def _forget(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run the command on the same places, as a person would."""
        return subprocess.run(
            [*COMMAND, *self.places, *flags], capture_output=True, text=True, timeout=scaled(20), check=False
        )

    def segments(self) -> set[str]:
        """What the instance has in /dev/shm."""
        instance = state.instance_of(self.data / "state.db")
        if instance is None:
            return set()
        start = segments.prefix(instance).removeprefix("/")
        return {name for name in in_shm() if name.startswith(start)}

    def close(self) -> None:
        """Leave nothing."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(scaled(5))
        self._forget()
        if self.data.exists():
            wait_until(lambda: self.run("--discard").returncode == 0, "the instance can be discarded")


@contextlib.contextmanager
def instance(folder: Path, *flags: str, start: bool = True) -> Iterator[Shmqd]:
    """An instance in `folder`, running unless told otherwise."""
    daemon = Shmqd(folder)
    try:
        if start:
            daemon.start(*flags)
        yield daemon
    finally:
        daemon.close()


def in_shm() -> set[str]:
    """The names of all shared memory objects of this host."""
    return {entry.name for entry in SHM.iterdir()}


def receive_from(listener: socket.socket) -> str:
    """One datagram, as text."""
    return listener.recv(4096).decode()
