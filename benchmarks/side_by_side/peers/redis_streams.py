"""Redis Streams through redis-py (with the C parser): a consumer group, pipelines of 100, acked and deleted by 100."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import redis

from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.work import MIB, Work, batches

PIPELINE = 100
PIPELINE_BYTES = 8 * MIB  # fewer where bodies are large
BLOCK_MS = 5000
GROUP = "bench"


class RedisStreams(Peer):
    """XADD, XREADGROUP, XACK and XDEL."""

    name = "Redis Streams, by 100"
    acks = "by 100"
    distributions = ("redis", "hiredis")
    program = "redis-server"
    backlog_max = 1_000_000

    def setup(self, work: Work) -> None:  # noqa: ARG002 - the same for all
        with self.connect() as client:
            for stream in (self.there, self.back):
                client.xgroup_create(stream, GROUP, id="0", mkstream=True)

    def teardown(self) -> None:
        with self.connect() as client:
            client.delete(self.there, self.back)

    def connect(self) -> Any:  # noqa: ANN401 - untyped here
        """Return a client with a connection of its own."""
        return redis.Redis(unix_socket_path=str(self.servers.redis_socket()))

    @contextmanager
    def producer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as client:
            client.ping()

            def run() -> None:
                fields = {"body": work.body}
                for size in batches(work.published_by(index), _pipelined(work)):
                    pipeline = client.pipeline(transaction=False)
                    for _ in repeat(None, size):
                        pipeline.xadd(self.there, fields)
                    pipeline.execute()

            yield run

    @contextmanager
    def consumer(self, work: Work, index: int) -> Iterator[Callable[[], None]]:
        with self.connect() as client:
            client.ping()

            def run() -> None:
                left, name = work.consumed_by(index), f"consumer-{index}"
                while left:
                    count = min(_pipelined(work), left)
                    streams = client.xreadgroup(GROUP, name, {self.there: ">"}, count=count, block=BLOCK_MS)
                    for _, entries in streams or ():
                        numbers = [number for number, _ in entries]
                        pipeline = client.pipeline(transaction=False)
                        pipeline.xack(self.there, GROUP, *numbers)
                        pipeline.xdel(self.there, *numbers)
                        pipeline.execute()
                        left -= len(numbers)

            yield run

    @contextmanager
    def ping(self, work: Work) -> Iterator[Callable[[], list[int]]]:
        with self.connect() as client:
            client.ping()

            def run() -> list[int]:
                clock, fields = time.perf_counter_ns, {"body": work.body}
                taken = []
                for _ in repeat(None, work.messages):
                    start = clock()
                    client.xadd(self.there, fields)
                    streams = client.xreadgroup(GROUP, "ping", {self.back: ">"}, count=1, block=BLOCK_MS)
                    taken.append(clock() - start)
                    client.xack(self.back, GROUP, streams[0][1][0][0])
                return taken

            yield run

    @contextmanager
    def echo(self, work: Work) -> Iterator[Callable[[], None]]:
        with self.connect() as client:
            client.ping()

            def run() -> None:
                left = work.messages
                while left:
                    for _, entries in (
                        client.xreadgroup(GROUP, "echo", {self.there: ">"}, count=1, block=BLOCK_MS) or ()
                    ):
                        for number, fields in entries:
                            client.xadd(self.back, fields)
                            client.xack(self.there, GROUP, number)
                            left -= 1

            yield run


def _pipelined(work: Work) -> int:
    return max(min(PIPELINE, PIPELINE_BYTES // max(work.body_bytes, 1)), 1)


PEERS = (RedisStreams,)
