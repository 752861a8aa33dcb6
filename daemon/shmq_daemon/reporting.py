"""What the daemon says about itself and its queues.

Owns: status, listing and inspection. Does not own: the figures (segments, supervisor), how they are shown.
Invariant: no name is told to a client that has no permission on it.
"""

import itertools
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from shmq._version import __version__
from shmq.core import _core
from shmq.errors import ShmqError
from shmq.limits import ALARMS_TOLD_MAX, CONTROL_FRAME_BYTES_MAX, COUNT_MAX, PAGE_ENTRIES_MAX, PROTOCOL
from shmq.quantiles import quantiles
from shmq.wire import frames as wire
from shmq_daemon.catalog import Catalog
from shmq_daemon.clients import Client, Clients
from shmq_daemon.control import Control
from shmq_daemon.opened import OpenQueue
from shmq_daemon.permissions import Access
from shmq_daemon.supervision import Alarm, Supervision
from shmq_daemon.watermark import MEMORY, SHM_FULL

PAGE: Final = min(PAGE_ENTRIES_MAX, 200)
PAGE_BYTES: Final = CONTROL_FRAME_BYTES_MAX // 2  # then a page ends: one more queue fits, whatever its arguments
SUMMED: Final = ("published", "delivered", "acked", "requeued", "dead", "expired", "purged")
GAUGES: Final = ("ready", "unacked", "delayed", "dead_pending", "arena_committed_bytes")
ALARMS_OF_ALL: Final = (SHM_FULL, MEMORY)  # others have the name of a queue as their subject
BOUNDS: Final = _core.Queue.histogram_bounds()

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
        names = sorted(filter(client.access.sees, self._catalog.topology.queues))
        start = bisect_right(names, frame.after) if frame.after else 0
        infos: list[wire.QueueInfo] = []
        size = 0
        for name in itertools.islice(names, start, start + min(frame.limit or PAGE, PAGE)):
            infos.append(self._info(client, self._catalog.open[self._catalog.topology.queues[name].queue_id]))
            size += len(_encode(infos[-1]))
            if size > PAGE_BYTES:
                break
        _answer(client, wire.QueuesListed(frame.seq, infos, start + len(infos) < len(names)))

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
