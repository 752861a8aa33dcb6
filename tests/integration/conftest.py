"""A private broker for each module that asks for one, and a connection to it in either mode."""

from collections.abc import Iterator
from typing import Any

import pytest

import shmq


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with shmq.local() as url:
        yield url


@pytest.fixture(params=["direct", "socket"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def conn(url: str, mode: Any) -> Iterator[shmq.Connection]:
    with shmq.connect(url, mode=mode) as connection:
        yield connection
