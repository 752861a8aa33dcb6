"""A private broker for a module's tests, and Kombu connections to it."""

from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest

import shmq
import shmq_clients.kombu  # noqa: F401 - sets the alias


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with shmq.local() as url:
        yield url


@pytest.fixture
def connect(url: str) -> Iterator[Callable[..., Any]]:
    """Give new Kombu connections; they are closed at the end."""
    opened: list[Any] = []

    def one(**keywords: Any) -> Any:
        opened.append(kombu.Connection(url, **keywords))
        return opened[-1]

    yield one
    for connection in opened:
        connection.release()


@pytest.fixture
def conn(connect: Callable[..., Any]) -> Any:
    return connect()
