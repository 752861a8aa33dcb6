"""What tests of the daemon's parts share."""

import secrets
from collections.abc import Iterator

import pytest

from shmq_daemon import segments


@pytest.fixture
def name() -> Iterator[str]:
    """Name a shared memory object that is gone at the end."""
    name = segments.new_name("test-" + secrets.token_hex(4))
    yield name
    segments.unlink(name)
