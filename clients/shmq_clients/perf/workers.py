"""The processes that publish and consume, one for each producer and consumer.

Owns: forking them, the start they have in common, their end and their errors. Does not own: what they do.
Invariants: a worker ends when it is told to, when it has done its count, and when its parent is gone; none outlives the
`with` block. They are forked, so that the shared pages need no names; the parent has no thread and no connection then.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Final, Protocol, Self

from shmq.errors import ShmqError
from shmq_clients.connection import Connection, connect
from shmq_clients.perf.consuming import Consumer
from shmq_clients.perf.plan import Plan
from shmq_clients.perf.producing import Producer
from shmq_clients.perf.tally import ENDED, Tally

READY_SECONDS: Final = 30.0
END_SECONDS: Final = 5.0
PARENT_SECONDS: Final = 1.0  # between two looks whether the parent is there
HEADSTART_NS: Final = 20_000_000  # so that all workers wait when the first message is due
_processes: Final = multiprocessing.get_context("fork")


class Work(Protocol):
    """A Producer or a Consumer."""

    def run(self, start_ns: int) -> None: ...


class WorkerFailed(Exception):  # noqa: N818 - says what is the case
    """A worker ended with an error; the text is for people."""


class Worker:
    """One process."""

    def __init__(self, name: str, plan: Plan, url: str, make: Callable[[Plan, Connection, Tally], Work]) -> None:
        self.name = name
        self.tally = Tally()
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(
            target=_work, args=(make, plan, url, self.tally, theirs), name=name, daemon=True
        )
        self._process.start()
        theirs.close()

    def wait_until_ready(self, deadline: float) -> None:
        """Raise WorkerFailed if it is not by then."""
        if not self._pipe.poll(max(deadline - time.monotonic(), 0)):
            raise WorkerFailed(f"{self.name}: not ready within {READY_SECONDS:g} s")
        self.check()

    def check(self) -> None:
        """Raise WorkerFailed with what it said, if it said something or died."""
        if not self._pipe.poll():
            return
        try:
            said = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            said = "" if self.tally.ended_ns else "died"
        if said:
            raise WorkerFailed(f"{self.name}: {said}")

    def start(self, start_ns: int) -> None:
        """Let it go."""
        self._pipe.send(start_ns)

    def stop(self) -> None:
        """Tell it to end."""
        self.tally.stop()
        try:
            self._pipe.send(None)
        except OSError:
            return  # it has ended

    def join(self, seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        self._process.join(seconds)
        return not self._process.is_alive()

    def kill(self) -> None:
        """End it now."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()


class Workers:
    """All of a run, ready and waiting for `start` once the `with` block is entered."""

    def __init__(self, plan: Plan, url: str) -> None:
        self.producers: list[Worker] = []
        self.consumers: list[Worker] = []
        self._plan = plan
        self._url = url

    def __enter__(self) -> Self:
        try:
            for i in range(self._plan.consumers):
                self.consumers.append(Worker(f"consumer {i}", self._plan, self._url, Consumer))
            for i in range(self._plan.producers):
                self.producers.append(Worker(f"producer {i}", self._plan, self._url, Producer))
            deadline = time.monotonic() + READY_SECONDS
            for worker in self.all:
                worker.wait_until_ready(deadline)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def all(self) -> list[Worker]:
        return [*self.producers, *self.consumers]

    def start(self) -> int:
        """Let all go; returns the time at which the first message is due."""
        start_ns = time.monotonic_ns() + HEADSTART_NS
        for worker in self.all:
            worker.start(start_ns)
        return start_ns

    def check(self) -> None:
        """Raise WorkerFailed for the first that failed."""
        for worker in self.all:
            worker.check()

    def stop(self, make_room: Callable[[], None]) -> None:
        """Tell all to end and wait; `make_room` is called while a producer may be waiting for room."""
        for worker in self.all:
            worker.stop()
        deadline = time.monotonic() + END_SECONDS
        for worker in self.all:
            while not worker.join(0.05) and time.monotonic() < deadline:
                make_room()

    def _end(self) -> None:
        for worker in self.all:
            worker.kill()


def _work(make: Callable[[Plan, Connection, Tally], Work], plan: Plan, url: str, tally: Tally, pipe: Pipe) -> None:
    """Be the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, who gets it too, says when to end
    try:
        with connect(url, mode=plan.mode) as connection:
            work = make(plan, connection, tally)
            pipe.send("")
            start_ns = pipe.recv()
            if start_ns is None:
                return
            threading.Thread(target=_watch, args=(work, tally, pipe, os.getppid()), daemon=True).start()
            time.sleep(max(start_ns - time.monotonic_ns(), 0) / 1e9)
            work.run(start_ns)
            tally.words[ENDED] = time.monotonic_ns()
    except ShmqError as error:
        if not tally.stopped:
            pipe.send(f"{type(error).__name__}: {error}")
    except EOFError:
        return  # the parent is gone


def _watch(work: Work, tally: Tally, pipe: Pipe, parent: int) -> None:
    """Stop the work when the parent says so or is gone."""
    while not pipe.poll(PARENT_SECONDS):
        if os.getppid() != parent:
            break
    tally.stop()
    if isinstance(work, Consumer):
        work.stop()
