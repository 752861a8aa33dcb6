"""Connections whose consumers are drained, in each mode, at a private broker."""

from collections.abc import Callable, Iterator

import pytest

import shmq


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with shmq.local() as url:
        yield url


@pytest.fixture(params=["direct", "socket", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(broker: str, mode: str) -> Iterator[Callable[[], shmq.Connection]]:
    opened: list[shmq.Connection] = []

    def one() -> shmq.Connection:
        opened.append(shmq.connect(broker, mode=mode, timeout=5))  # type: ignore[arg-type] # one of its words
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


@pytest.fixture
def conn(connect: Callable[[], shmq.Connection]) -> shmq.Connection:
    """Give a connection whose consumers are drained from the start."""
    connection = connect()
    connection.fileno()
    return connection
