"""One suite over every mode: a test gets a connection of each mode to a broker of this run, and queues of its own."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

import shmq

QueueMaker = Callable[..., str]
ExchangeMaker = Callable[..., str]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Give the URL of a private broker."""
    with shmq.local() as url:
        yield url


@pytest.fixture(params=["direct", "socket"])
def mode(request: pytest.FixtureRequest) -> str:
    """Name the mode under test."""
    return str(request.param)


@pytest.fixture
def connect(broker: str, mode: str) -> Iterator[Callable[[], shmq.Connection]]:
    """Open connections in the mode under test."""
    opened: list[shmq.Connection] = []

    def one() -> shmq.Connection:
        opened.append(shmq.connect(broker, mode=mode, timeout=5))  # type: ignore[arg-type] # one of its words
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


@pytest.fixture
def conn(connect: Callable[[], shmq.Connection]) -> shmq.Connection:
    """Give a connection in the mode under test."""
    return connect()


@pytest.fixture
def new_queue(conn: shmq.Connection) -> Iterator[QueueMaker]:
    """Declare queues that are gone after the test."""
    names: list[str] = []

    def declare(**arguments: object) -> str:
        names.append(conn.declare_queue(f"q{next(_numbers)}", **arguments).name)  # type: ignore[arg-type] # any of them
        return names[-1]

    yield declare
    for name in names:
        with contextlib.suppress(shmq.NotFound, shmq.ConnectionClosed):
            conn.delete_queue(name)


@pytest.fixture
def queue(new_queue: QueueMaker) -> str:
    """Give a queue with ten levels."""
    return new_queue(max_priority=9)


@pytest.fixture
def new_exchange(conn: shmq.Connection) -> Iterator[ExchangeMaker]:
    """Declare exchanges that are gone after the test."""
    names: list[str] = []

    def declare(kind: str = "direct", **arguments: object) -> str:
        names.append(f"e{next(_numbers)}")
        conn.declare_exchange(names[-1], kind, **arguments)  # type: ignore[arg-type] # any of them
        return names[-1]

    yield declare
    for name in names:
        with contextlib.suppress(shmq.NotFound, shmq.ConnectionClosed):
            conn.delete_exchange(name)
