"""What the daemon says about itself and its queues.

Owns: status, listing and inspection. Does not own: the figures (segments, supervisor), how they are shown.
Invariant: no name is told to a client that has no permission on it.
"""

import heapq
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar

import msgspec

from shmq._version import __version__
from shmq.core import _core
from shmq.errors import ShmqError
from shmq.limits import ALARMS_TOLD_MAX, CONTROL_FRAME_BYTES_MAX, COUNT_MAX, PAGE_ENTRIES_MAX, PROTOCOL
from shmq.quantiles import quantiles
from shmq.routing.bindings import Binding, Destination, binding_of, info_of
from shmq.wire import frames as wire
from shmq_daemon.catalog import Catalog
from shmq_daemon.clients import Client, Clients
from shmq_daemon.control import Control
from shmq_daemon.opened import OpenQueue
from shmq_daemon.permissions import Access
from shmq_daemon.replies import is_for_replies
from shmq_daemon.supervision import Alarm, Supervision
from shmq_daemon.watermark import MEMORY, SHM_FULL

PAGE: Final = min(PAGE_ENTRIES_MAX, 200)
PAGE_BYTES: Final = CONTROL_FRAME_BYTES_MAX // 2  # then a page ends: one more entry fits, whatever its arguments
SUMMED: Final = ("published", "delivered", "acked", "requeued", "dead", "expired", "purged")
GAUGES: Final = ("ready", "unacked", "delayed", "dead_pending", "arena_committed_bytes")
ALARMS_OF_ALL: Final = (SHM_FULL, MEMORY)  # others have the name of a queue as their subject
BOUNDS: Final = _core.Queue.histogram_bounds()

Entry = TypeVar("Entry")

_encode: Final = msgspec.msgpack.Encoder().encode


class Reporting:
    """Answers who asks."""

    def __init__(
        self,
        catalog: Catalog,
        clients: Clients,
        supervision: Supervision,
        *,
        master_ns: int,
        started_ns: int,
        restarts: int,
    ) -> None:
        self._catalog = catalog
        self._clients = clients
        self._supervision = supervision
        self._master_ns = master_ns
        self._started_ns = started_ns
        self._restarts = restarts
        self.now_ns: Callable[[], int] = _core.monotonic_ns

    def table(self) -> dict[type, Callable[[Client, Any], None]]:
        return {
            wire.Status: self.on_status,
            wire.InspectQueue: self.on_inspect_queue,
            wire.ListQueues: self.on_list_queues,
            wire.ListExchanges: self.on_list_exchanges,
            wire.ListBindings: self.on_list_bindings,
        }

    def on_status(self, client: Client, frame: wire.Status) -> None:
        report = wire.StatusReport(
            frame.seq,
            __version__,
            PROTOCOL,
            _core.LAYOUT,
            self._catalog.state.instance,
            "memory",
            self.now_ns() - self._master_ns,
            self._processes(),
            [
                wire.Alarm(alarm.kind, alarm.text, alarm.raised_ns)
                for alarm in itertools.islice(self._alarms(client.access), ALARMS_TOLD_MAX)
            ],
            self._totals(),
        )
        _answer(client, report)

    def _alarms(self, access: Access) -> Iterator[Alarm]:
        """Those of queues that it may see, and of what is no queue."""
        alarms = self._supervision.alarms.values()
        return (alarm for alarm in alarms if alarm.kind in ALARMS_OF_ALL or access.sees(alarm.subject))

    def _processes(self) -> list[wire.ProcessInfo]:
        found = [
            wire.ProcessInfo("master", os.getppid(), 0, self._master_ns),
            wire.ProcessInfo("broker", os.getpid(), self._restarts, self._started_ns),
        ]
        other = self._supervision.supervisor
        if other is not None:
            found.append(wire.ProcessInfo("supervisor", other.pid, other.restarts, other.started_ns))
        return found

    def _totals(self) -> dict[str, int]:
        totals = dict.fromkeys((*SUMMED, *GAUGES), 0)
        for opened in self._catalog.open.values():
            figures = _stats(opened)
            for name in totals:
                totals[name] += figures.get(name, 0)
        totals |= {f"supervisor_{name}": count for name, count in self._supervision.counts.items()}
        totals |= {
            "queues": len(self._catalog.open),
            "exchanges": len(self._catalog.topology.exchanges),
            "connections": len(self._clients),
        }
        return totals

    def on_inspect_queue(self, client: Client, frame: wire.InspectQueue) -> None:
        opened = self._catalog.opened(frame.queue, client.connection_id)
        _answer(client, wire.QueueInspected(frame.seq, self._info(client, opened)))

    def on_list_queues(self, client: Client, frame: wire.ListQueues) -> None:
        queues, opened = self._catalog.topology.queues, self._catalog.open
        infos = (
            self._info(client, opened[queues[name].queue_id])
            for name in _seen(client, queues, frame.after)
            if not is_for_replies(name)
        )
        _answer(client, wire.QueuesListed(frame.seq, *_page(infos, min(frame.limit or PAGE, PAGE))))

    def on_list_exchanges(self, client: Client, frame: wire.ListExchanges) -> None:
        exchanges = self._catalog.topology.exchanges
        definitions = (exchanges[name].definition for name in _seen(client, exchanges, frame.after))
        _answer(client, wire.ExchangesListed(frame.seq, *_page(definitions, frame.limit)))

    def on_list_bindings(self, client: Client, frame: wire.ListBindings) -> None:
        """Those whose ends it may see, both of them."""
        sees = client.access.sees
        found = (one for one in self._bindings(frame) if sees(one.source) and sees(one.destination))
        _answer(client, wire.BindingsListed(frame.seq, *_page(map(info_of, found), frame.limit)))

    def _bindings(self, frame: wire.ListBindings) -> Iterator[Binding]:
        """In their order, the first of the page first; no more than one exchange's are looked at at a time."""
        router, after = self._catalog.topology.router, frame.after
        last = _order(binding_of(after)) if after is not None else None
        groups: Iterable[AbstractSet[Binding]]
        if frame.destination:
            groups = [
                router.leading_to(Destination(False, frame.destination))
                | router.leading_to(Destination(True, frame.destination))
            ]
        else:
            exchanges = [frame.source] if frame.source else sorted(self._catalog.topology.exchanges)
            groups = (router.outgoing(name) for name in exchanges if last is None or name >= last[0])
        for group in groups:
            left = [(_order(one), one) for one in group if frame.source in ("", one.source)]
            if last is not None:
                left = [pair for pair in left if pair[0] > last]
            heapq.heapify(left)  # a page takes few of many: no two have the same place
            while left:
                yield heapq.heappop(left)[1]

    def _info(self, client: Client, opened: OpenQueue) -> wire.QueueInfo:
        figures = _stats(opened)
        reason = Control.why_not_consumed(client, opened)
        return wire.QueueInfo(
            opened.queue.definition,
            opened.queue.queue_id,
            figures.get("ready", 0),
            figures.get("unacked", 0),
            len(opened.consumers),
            opened.queue.geometry[1],
            opened.queue.geometry[4],
            "socket" if reason else "direct",
            reason,
            figures,
            _latency(opened, "queue"),
            _latency(opened, "ack"),
        )


def _seen(client: Client, names: Iterable[str], after: str) -> Iterator[str]:
    """Those behind one, in their order, that a client may know of."""
    return filter(client.access.sees, sorted(name for name in names if name > after))


def _page(entries: Iterable[Entry], limit: int) -> tuple[list[Entry], bool]:
    """As many as were asked for (0: any number) and fit in a frame, and whether there are more."""
    page: list[Entry] = []
    size = 0
    for entry in entries:
        if len(page) >= min(limit or PAGE_ENTRIES_MAX, PAGE_ENTRIES_MAX) or size > PAGE_BYTES:
            return page, True
        page.append(entry)
        size += len(_encode(entry))
    return page, False


def _order(binding: Binding) -> tuple[str, str, bool, str, bytes]:
    return binding.source, binding.destination, binding.to_exchange, binding.routing_key, binding.arguments


def _stats(opened: OpenQueue) -> dict[str, int]:
    try:
        return opened.core.stats()
    except (ShmqError, OSError):
        return {}


def _latency(opened: OpenQueue, which: str) -> wire.Latency:
    """Counts come from a segment that others write: what would not fit in a frame is cut."""
    try:
        counts = opened.core.histogram(which)
    except (ShmqError, OSError):
        return wire.Latency()
    return wire.Latency(min(sum(counts), COUNT_MAX), *quantiles(counts, BOUNDS, (50, 99)))


def _answer(client: Client, frame: wire.BrokerFrame) -> None:
    if client.session is not None:
        client.session.send(frame)
