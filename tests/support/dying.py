"""A process that gets one message, by either client in either mode, and is killed with it."""

import subprocess
import sys
from types import TracebackType
from typing import Self

HOLDING = """
import asyncio, sys
import shmq

url, client, mode, queue = sys.argv[1:]

def told(message):
    print(message.body.decode(), flush=True)
    sys.stdin.read()

async def hold():
    connection = await shmq.connect_async(url, mode=mode)
    told(await connection.get(queue, timeout=10))

if client == "asyncio":
    asyncio.run(hold())
else:
    connection = shmq.connect(url, mode=mode)
    told(connection.get(queue, timeout=10))
"""


class Dying:
    """A context manager; `held` is the body that the process got."""

    def __init__(self, url: str, client: str, mode: str, queue: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", HOLDING, url, client, mode, queue],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def held(self) -> str:
        """Wait for it to say so."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
