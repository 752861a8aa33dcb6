"""The brokers of a run, with servers of its own; their processes, so that what they use can be told.

Owns: URLs for Kombu, the processes of each. Does not own: how servers are started (side_by_side/servers).
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import psutil  # type: ignore[import-untyped] # ships no types

import shmq
from benchmarks.side_by_side.servers.rabbitmq import rabbitmq
from benchmarks.side_by_side.servers.redis import redis_server
from benchmarks.side_by_side.servers.server import new_directory


class Broker(NamedTuple):
    """A running one."""

    name: str
    url: str
    processes: tuple[psutil.Process, ...]

    def processor_seconds(self) -> float:
        """What its processes have used so far."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(each.user + each.system for each in times))

    def memory_mib(self) -> float:
        """What they have of their own, and shmq its shared memory in use."""
        mine = sum(process.memory_full_info().uss for process in self.processes)
        if self.name == "shmq":
            with shmq.connect(self.url) as connection:
                mine += sum(info.totals["memory_bytes"] for info in connection.queues())
        return float(mine / 2**20)


@contextmanager
def brokers(names: list[str]) -> Iterator[list[Broker]]:
    """Start those of these names; they are gone at the end."""
    with ExitStack() as stack:
        yield [_start(stack, name) for name in names]


def _start(stack: ExitStack, name: str) -> Broker:
    before = set(psutil.Process().children(recursive=True))
    directory = new_directory()
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    if name == "shmq":
        url = stack.enter_context(shmq.local())
    elif name == "Redis":
        url = f"redis+socket://{stack.enter_context(redis_server(directory))}"
    else:
        url = f"pyamqp://guest:guest@127.0.0.1:{stack.enter_context(rabbitmq(directory))}//"
    return Broker(name, url, tuple(set(psutil.Process().children(recursive=True)) - before))
