"""A process that has imported everything and has one thread: it forks a worker in a millisecond.

Owns: forking and reaping workers. Does not own: what they do (worker.py), whom to kill (nemesis.py). Run as a script
it is the zygote: a line of JSON in, a line of JSON out. Invariants: a dead worker stays a zombie, so that its pid
means it, until it is asked for; when the zygote's owner or the zygote ends, so do all workers.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from crash import bodies
from crash.plan import Life
from crash.worker import live

TESTS: Final = Path(__file__).parents[1]
PR_SET_PDEATHSIG: Final = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Zygote:
    """The owner's end."""

    def __init__(self, run: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.zygote", str(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=TESTS,
            text=True,
        )
        assert self._ask({}) == {"ready": True}

    def fork(self, life: Life) -> int:
        """Start a life; returns its pid."""
        pid: int = self._ask({"fork": life.to_json()})["pid"]
        return pid

    def reap(self, pid: int) -> int:
        """Wait for a worker's end; returns its exit code, as `subprocess` has it."""
        code: int = self._ask({"reap": pid})["code"]
        return code

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return answer

    def close(self) -> None:
        """End it, and with it all its workers. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()


def _child(fields: dict[str, Any]) -> None:
    """Become a worker. Does not return."""
    status = 1
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(2, 1)  # the answers are the zygote's
        os.close(0)
        status = live(Life.from_json(fields))
    finally:
        os._exit(status)


def _serve() -> None:
    """Do what the owner asks until it closes the pipe."""
    workers: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {"ready": True}
        if "fork" in request:
            pid = os.fork()
            if pid == 0:
                _child(request["fork"])
            workers.add(pid)
            answer = {"pid": pid}
        elif "reap" in request:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1])}
            workers.discard(request["reap"])
        print(json.dumps(answer), flush=True)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    bodies.prepare(int(sys.argv[1]))
    _serve()
