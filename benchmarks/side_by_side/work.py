"""The work of one measurement: the same for every peer.

Owns: its numbers, and the bounds that keep a run from filling the memory. Does not own: how a peer does it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
ON_THE_WAY_BYTES: Final = 256 * MIB  # what a peer that can be told so lets lie between producers and consumers
ON_THE_WAY_MESSAGES: Final = 4  # but so many at least
RUN_BYTES_MAX: Final = 2 << 30  # of all bodies of a run: a peer without bounds may hold them all
RUN_MESSAGES_MAX: Final = 4_000_000
RUN_MESSAGES_MIN: Final = 4


@dataclass(frozen=True)
class Work:
    """Messages are the sum over all producers, and over all consumers."""

    messages: int = 0
    body_bytes: int = 256
    producers: int = 1
    consumers: int = 1
    levels: int = 1
    backlog: int = 0

    def of(self, messages: int) -> "Work":
        """Return the same work with another number of messages, one that can be shared out evenly."""
        shares = self.producers * self.consumers
        return replace(self, messages=max(messages // shares, 1) * shares)

    @property
    def body(self) -> bytes:
        return b"x" * self.body_bytes

    @property
    def messages_max(self) -> int:
        """Of a run."""
        return max(min(RUN_BYTES_MAX // max(self.body_bytes, 1), RUN_MESSAGES_MAX), RUN_MESSAGES_MIN)

    @property
    def on_the_way_bytes(self) -> int:
        """Bytes of bodies between producers and consumers."""
        return max(ON_THE_WAY_BYTES, ON_THE_WAY_MESSAGES * self.body_bytes)

    @property
    def on_the_way_messages(self) -> int:
        """The same, counted."""
        return max(self.on_the_way_bytes // max(self.body_bytes, 1), ON_THE_WAY_MESSAGES)

    def published_by(self, producer: int) -> int:
        """Return how many messages one of the producers publishes."""
        assert 0 <= producer < self.producers
        return self.messages // self.producers

    def consumed_by(self, consumer: int) -> int:
        """Return how many messages one of the consumers takes; it stops there."""
        assert 0 <= consumer < self.consumers
        return self.messages // self.consumers

    def priorities(self, producer: int) -> Iterator[int]:
        """Yield the priority of each message of a producer: all levels in turn."""
        return itertools.islice(itertools.cycle(range(self.levels)), self.published_by(producer))


def batches(messages: int, size: int) -> Iterator[int]:
    """Yield the sizes of batches that make up so many messages."""
    yield from itertools.repeat(size, messages // size)
    if messages % size:
        yield messages % size
