"""A broker for a module's tests."""

from collections.abc import Iterator

import pytest

from support.shmqd import Shmqd, instance


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shmqd]:
    """Give a broker that a test may kill; it runs."""
    with instance(tmp_path_factory.mktemp("broker")) as one:
        yield one
