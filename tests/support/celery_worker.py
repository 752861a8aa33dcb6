"""Celery workers of a test's own, and who sends tasks to them: started, watched, killed, and gone at the end."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # ships no types
from celery import Celery

import shmq
from support.celery_tasks import SETTINGS
from support.deadline import scaled, wait_until

TESTS = Path(__file__).parents[1]
START_SECONDS = 30.0
STOP_SECONDS = 20.0


class Worker:
    """`celery worker` with these flags; `settings` are Celery's own. `folder`: where its log is."""

    def __init__(self, folder: Path, name: str, *flags: str, **settings: Any) -> None:
        self.node = f"{name}@test"
        self.log = folder / f"{name}.log"
        self._flags = flags
        self._settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Start it, in a process group of its own; it dies with its starter."""
        bound = shutil.which("setpriv")
        command = [bound, "--pdeathsig", "KILL", "--"] if bound else []
        command += [sys.executable, "-m", "celery", "-A", "support.celery_tasks", "worker", "-n", self.node]
        told = {SETTINGS: json.dumps(self._settings), "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-l", "INFO", *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env=os.environ | told | environment,
                process_group=0,
            )

    def wait_ready(self) -> None:
        wait_until(self._is_ready, f"{self.node} is ready", START_SECONDS)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.text()
        return f"{self.node} ready." in self.text()

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        """The processes of its pool."""
        return [child.pid for child in psutil.Process(self.pid).children()]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with -9 and nobody else: its children are its own to take along."""
        self.signal(signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Wait for its end; returns its exit code."""
        assert self.process is not None
        return self.process.wait(scaled(STOP_SECONDS))

    def stop(self) -> int:
        """End it as `systemctl stop` does: warm."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def close(self) -> None:
        """Leave nothing of it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(scaled(STOP_SECONDS))


@contextlib.contextmanager
def worker(folder: Path, name: str, *flags: str, **settings: Any) -> Iterator[Worker]:
    """A worker that is ready."""
    one = Worker(folder, name, *flags, **settings)
    try:
        one.start()
        one.wait_ready()
        yield one
    finally:
        one.close()


class Sender:
    """An application that sends tasks and knows none of them; and the broker, asked without Celery."""

    def __init__(self, url: str, backend: str = "rpc://", **settings: Any) -> None:
        self.url = url
        self.app = Celery("sender", broker=url, backend=backend, set_as_current=False)
        self.app.conf.update({"result_expires": 600} | settings)

    def send(self, task: str, *args: object, **options: Any) -> Any:
        """Send a task by name; returns its AsyncResult."""
        return self.app.send_task(task, args, **options)

    def result(self, task: str, *args: object, **options: Any) -> Any:
        """Send it and wait for its result."""
        return self.send(task, *args, **options).get(timeout=scaled(20))

    def ask(self, node: str, what: str) -> Any:
        """What a worker answers to `inspect`; None when it does not."""
        inspect = self.app.control.inspect(destination=[node], timeout=scaled(5))
        return (getattr(inspect, what)() or {}).get(node)

    def count(self, queue: str, what: str) -> int:
        """How many messages of a queue are `ready`, `unacked` or `delayed`."""
        with shmq.connect(self.url) as connection:
            return connection.queue_info(queue).totals[what]

    def queues(self) -> set[str]:
        """The names of all queues."""
        with shmq.connect(self.url) as connection:
            return {one.definition.name for one in connection.queues()}

    def close(self) -> None:
        self.app.close()


@contextlib.contextmanager
def sender(url: str, backend: str = "rpc://", **settings: Any) -> Iterator[Sender]:
    """Somebody who sends tasks."""
    one = Sender(url, backend, **settings)
    try:
        yield one
    finally:
        one.close()


def lines(path: Path) -> list[str]:
    """What tasks have written there."""
    return path.read_text().splitlines() if path.exists() else []


def wait_lines(path: Path, count: int, seconds: float = 20.0) -> list[str]:
    """Wait until there are so many lines, and return them."""
    wait_until(lambda: len(lines(path)) >= count, f"{count} lines in {path.name}", seconds)
    return lines(path)
