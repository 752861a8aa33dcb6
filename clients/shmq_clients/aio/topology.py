"""Queues, exchanges and bindings: the requests of the blocking client, awaited.

Owns: that they are awaited. Does not own: what they are (shmq_clients.topology).
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from shmq_clients.aio.link import AsyncLink
from shmq_clients.topology import Topology

P = ParamSpec("P")
T = TypeVar("T")


class Questions(Topology):
    """The requests themselves, on a link that says what must be answered first."""

    def __init__(self, link: AsyncLink) -> None:
        self._link = link


def awaited(
    call: Callable[Concatenate[Topology, P], T],
) -> Callable[Concatenate["AsyncTopology", P], Coroutine[Any, Any, T]]:
    """Return a method that does the same, awaited. Cancelled: it was done or not."""

    @functools.wraps(call)
    async def method(self: "AsyncTopology", /, *args: P.args, **keywords: P.kwargs) -> T:
        return await self._settled(lambda: call(self._questions, *args, **keywords))

    return method


class AsyncTopology:
    """The part of a connection that only asks the broker."""

    def __init__(self, link: AsyncLink) -> None:
        self._settled = link.settled
        self._questions = Questions(link)

    declare_queue = awaited(Topology.declare_queue)
    delete_queue = awaited(Topology.delete_queue)
    purge_queue = awaited(Topology.purge_queue)
    queue_info = awaited(Topology.queue_info)
    queues = awaited(Topology.queues)
    declare_exchange = awaited(Topology.declare_exchange)
    delete_exchange = awaited(Topology.delete_exchange)
    exchanges = awaited(Topology.exchanges)
    bindings = awaited(Topology.bindings)
    bind_queue = awaited(Topology.bind_queue)
    unbind_queue = awaited(Topology.unbind_queue)
    bind_exchange = awaited(Topology.bind_exchange)
    unbind_exchange = awaited(Topology.unbind_exchange)
    status = awaited(Topology.status)
