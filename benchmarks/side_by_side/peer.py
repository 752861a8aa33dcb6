"""What a peer is: something that carries messages from producers to consumers, through its own Python client.

Owns: the interface. Does not own: processes and clocks (processes.py), servers (servers/).
Each role is a context manager: connecting and closing lie outside the function it yields, and outside the time taken.
Invariants: every body that arrives is a Python object of its own (bytes) unless the name says otherwise; every message
is acked where the peer knows acks. A peer that is set up twice has queues of its own each time.
"""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from .servers.servers import Servers
from .work import MIB, Work

Role = AbstractContextManager[Callable[[], Any]]
"""Enter: connect; call what it yields: work; exit: close."""

_numbers = itertools.count(1)


class Peer(ABC):
    """One peer, set up for one kind of work. `acks`: how consumers ack."""

    name: ClassVar[str]
    acks: ClassVar[str]
    distributions: ClassVar[Sequence[str]]
    program: ClassVar[str | None] = None
    serves_many: ClassVar[bool] = True  # several producers and consumers
    copies: ClassVar[bool] = True  # bodies are copied in and out
    body_bytes_max: ClassVar[int] = 64 * MIB
    levels_max: ClassVar[int] = 1
    backlog_max: ClassVar[int] = 0

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        unique = f"bench-{os.getpid()}-{next(_numbers)}"
        self.there, self.back = f"{unique}-there", f"{unique}-back"

    def can(self, work: Work) -> bool:
        """Return whether this peer can do it."""
        return (
            work.body_bytes <= self.body_bytes_max
            and work.levels <= self.levels_max
            and work.backlog <= self.backlog_max
            and (self.serves_many or work.producers == work.consumers == 1)
        )

    @abstractmethod
    def setup(self, work: Work) -> None:
        """Make two queues, `there` and `back`, in the parent process and hold no connection afterwards."""

    @abstractmethod
    def teardown(self) -> None:
        """Take away what `setup` made."""

    @abstractmethod
    def producer(self, work: Work, index: int) -> Role:
        """Publish `work.published_by(index)` messages `there`."""

    @abstractmethod
    def consumer(self, work: Work, index: int) -> Role:
        """Take `work.consumed_by(index)` messages from `there`."""

    @abstractmethod
    def ping(self, work: Work) -> Role:
        """Publish one `there`, wait for one from `back`, as often as there are messages; return the ns each took."""

    @abstractmethod
    def echo(self, work: Work) -> Role:
        """Publish what comes from `there` to `back`, `work.messages` times."""
