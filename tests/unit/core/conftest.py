"""What the tests of the binding share: a small segment, and a queue over it."""

from collections.abc import Iterator

import pytest

from shmq.core import Queue
from support.segments import Segment, segment


@pytest.fixture
def small() -> Iterator[Segment]:
    with segment() as made:
        yield made


@pytest.fixture
def queue(small: Segment) -> Queue:
    return small.attach(32)
