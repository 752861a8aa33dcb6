"""beanstalkd through greenstalk: each job put, reserved and deleted by itself, as its protocol has it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import Any

import greenstalk

from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.work import Work

WAIT = 10
HIGHEST = 1 << 16  # beanstalkd's priorities: smaller is sooner


class Beanstalkd(Peer):
    """One tube there, one back."""

    name = "beanstalkd"
    acks = "each"
    distributions = ("greenstalk",)
    program = "beanstalkd"
    levels_max = 256
    backlog_max = 100_000  # more takes minutes to publish

    def setup(self, work: Work) -> None:  # noqa: ARG002 - the same for all
        """Start the server; tubes need no declaration."""
        self.servers.beanstalkd_socket()

    def teardown(self) -> None:
        with self.connect() as client:
            for tube in (self.there, self.back):
                client.watch(tube)
                with suppress(greenstalk.TimedOutError):
                    while True:
                        client.delete(client.reserve(timeout=0))
                client.ignore(tube)

    @contextmanager
    def connect(self, use: str = "default", watch: str = "default") -> Iterator[Any]:
        """Yield a client that puts into one tube and reserves from another."""
        client = greenstalk.Client(str(self.servers.beanstalkd_socket()), encoding=None, use=use, watch=watch)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect(use=self.there) as client:

            def run() -> None:
                put, body = client.put, work.body
                for priority in work.priorities(index):
                    put(body, priority=HIGHEST - priority)

            yield run

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect(watch=self.there) as client:

            def run() -> None:
                for _ in repeat(None, work.consumed_by(index)):
                    client.delete(client.reserve(timeout=WAIT))

            yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        with self.connect(use=self.there, watch=self.back) as client:

            def run() -> list[int]:
                clock, body = time.perf_counter_ns, work.body
                taken = []
                for _ in repeat(None, work.messages):
                    start = clock()
                    client.put(body)
                    job = client.reserve(timeout=WAIT)
                    taken.append(clock() - start)
                    client.delete(job)
                return taken

            yield run

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        with self.connect(use=self.back, watch=self.there) as client:

            def run() -> None:
                for _ in repeat(None, work.messages):
                    job = client.reserve(timeout=WAIT)
                    client.put(job.body)
                    client.delete(job)

            yield run


PEERS = (Beanstalkd,)
