"""The worker processes: started, replaced when they are killed, ended with the pipeline."""

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from typing import Self

from .stages import work

WORKERS = {"decode": 1, "resize": 1, "features": 2}


class WorkerError(Exception):
    """A worker ended by itself: an error in the pipeline, which a new worker would only repeat."""


class Workers:
    """WORKERS processes per stage. A context manager; on exit no process is left.

    `tell` is called with a line for people whenever something happens.
    """

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        self._url, self._tell = url, tell
        self._context = get_context("spawn")
        self._processes: dict[str, list[SpawnProcess]] = {stage: [] for stage in WORKERS}

    def __enter__(self) -> Self:
        for stage, count in WORKERS.items():
            self._processes[stage] = [self._start(stage) for _ in range(count)]
        return self

    def _start(self, stage: str) -> SpawnProcess:
        process = self._context.Process(target=work, args=(self._url, stage), name=stage, daemon=True)
        process.start()
        return process

    def kill(self, stage: str) -> int | None:
        """Kill one worker of `stage` with -9, whatever it is at, and return its pid."""
        victim = self._processes[stage][0]
        victim.kill()
        victim.join()
        return victim.pid

    def tend(self) -> None:
        """Put a new worker in the place of each that was killed. WorkerError when one failed by itself."""
        for stage, processes in self._processes.items():
            for place, process in enumerate(processes):
                if process.exitcode is None:
                    continue
                if process.exitcode >= 0:
                    raise WorkerError(f"worker {process.pid} ({stage}) ended with exit code {process.exitcode}")
                processes[place] = self._start(stage)
                cause = signal.Signals(-process.exitcode).name
                self._tell(f"{stage} worker {process.pid} died of {cause}, {processes[place].pid} takes its place")

    def __exit__(self, *_: object) -> None:
        processes = [process for processes in self._processes.values() for process in processes]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(5)
            process.kill()
