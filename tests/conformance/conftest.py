"""One suite over every client and every mode: a test gets a connection of each to a broker of this run, and queues of
its own. The asyncio client has the blocking one's face here (`support.adapted`), so a test is written once.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

import shmq
from support import rules
from support.adapted import LoopThread, connect_adapted
from support.messages import QueueMaker

ExchangeMaker = Callable[..., str]

_numbers = itertools.count(1)


pytest_runtest_makereport = rules.pytest_runtest_makereport
pytest_sessionfinish = rules.pytest_sessionfinish


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Give the URL of a private broker."""
    with shmq.local() as url:
        yield url


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    """Give a running event loop."""
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest) -> str:
    """Name the client under test."""
    return str(request.param)


@pytest.fixture(params=["direct", "socket"])
def mode(request: pytest.FixtureRequest) -> str:
    """Name the mode under test."""
    return str(request.param)


@pytest.fixture
def connect(
    broker: str, client: str, mode: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[], shmq.Connection]]:
    """Open connections of the client and in the mode under test."""
    yield from _connections(request, broker, client, mode)


@pytest.fixture
def by_broker(
    broker: str, client: str, mode: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[], shmq.Connection]]:
    """Open connections of the client under test that may go through the broker where direct ones can't."""
    yield from _connections(request, broker, client, "socket" if mode == "socket" else "auto")


def _connections(
    request: pytest.FixtureRequest, broker: str, client: str, mode: str
) -> Iterator[Callable[[], shmq.Connection]]:
    opened: list[shmq.Connection] = []

    def one() -> shmq.Connection:
        if client == "asyncio":
            opened.append(connect_adapted(request.getfixturevalue("loop"), broker, mode=mode, timeout=5))
        else:
            opened.append(shmq.connect(broker, mode=mode, timeout=5))  # type: ignore[arg-type] # one of its words
        return opened[-1]

    yield one
    with contextlib.ExitStack() as ends:
        for connection in opened:
            ends.callback(connection.close)


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
