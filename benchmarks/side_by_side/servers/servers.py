"""All servers of a run, each started when it is first asked for.

Owns: which run, and their common end. Does not own: how one is started.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import shmq

from .beanstalkd import beanstalkd
from .rabbitmq import rabbitmq
from .redis import redis_server
from .server import new_directory


class Servers:
    """A context manager; leaving it stops all of them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, Any] = {}
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def shmq_url(self) -> str:
        """Return the URL of a private shmq broker."""
        url: str = self._once("shmq", shmq.local)
        return url

    def redis_socket(self) -> Path:
        """Return the socket of a Redis."""
        path: Path = self._once("redis", lambda: redis_server(self.directory()))
        return path

    def beanstalkd_socket(self) -> Path:
        """Return the socket of a beanstalkd."""
        path: Path = self._once("beanstalkd", lambda: beanstalkd(self.directory()))
        return path

    def rabbitmq_port(self) -> int:
        """Return the loopback port of a RabbitMQ."""
        port: int = self._once("rabbitmq", lambda: rabbitmq(self.directory()))
        return port

    def directory(self) -> Path:
        """Return a new directory that is removed at the end."""
        directory = new_directory()
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def _once(self, name: str, start: Callable[[], AbstractContextManager[Any]]) -> Any:  # noqa: ANN401 - an address
        if name not in self._running:
            assert os.getpid() == self._owner, f"{name} is started in setup, not in a role"
            self._running[name] = self._stack.enter_context(start())
        return self._running[name]
