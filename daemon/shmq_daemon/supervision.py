"""The broker's end of the link: what it tells the supervisor, and what it hears.

Owns: connecting and connecting again, the order in which everything is told, alarms and counters as last heard. Does
not own: what a reaped client means (clients.py), the supervisor's work.
Invariants: bells kept by the supervisor are asked for before queues are adopted, and not waited for longer than a
second; each time the link is made anew everything is told anew; what cannot be told now is told then.
"""

import os
import select
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from shmq_daemon import link, segments
from shmq_daemon.catalog import Catalog, KeptBells
from shmq_daemon.clients import Clients
from shmq_daemon.descriptors import close_all
from shmq_daemon.events import Bound, Event, ExchangeDeclared, QueueDeclared, QueueDeleted
from shmq_daemon.instance import LINK_SOCKET
from shmq_daemon.link import Link, Packet
from shmq_daemon.log import Logger
from shmq_daemon.loop import READ, WRITE, Loop, Timers
from shmq_daemon.opened import Bells, OpenQueue
from shmq_daemon.releases import Releases

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_WAIT_NS: Final = 1_000_000_000
RECONNECT_NS: Final = 50_000_000


class Alarm:
    """One that stands."""

    def __init__(self, kind: str, subject: str, text: str, raised_ns: int) -> None:
        self.kind = kind
        self.subject = subject
        self.text = text
        self.raised_ns = raised_ns


class Supervision:
    """Talks to the supervisor."""

    def __init__(self, loop: Loop, timers: Timers, log: Logger) -> None:
        self._loop = loop
        self._timers = timers
        self._log = log
        self._link: Link | None = None
        self._catalog: Catalog | None = None
        self._clients: Clients | None = None
        self._opened = False
        self.releases = Releases(timers)
        self.alarms: dict[tuple[str, str], Alarm] = {}
        self.counts: Counter[str] = Counter()
        self.supervisor: link.KeptEnd | None = None
        self.on_alarms: Callable[[], None] = lambda: None
        self._dispatch: dict[type, Callable[[Any, tuple[int, ...]], None]] = {
            link.KeptBell: lambda _frame, descriptors: close_all(descriptors),
            link.KeptEnd: self._on_kept_end,
            link.ClientReaped: self._on_reaped,
            link.QueueReleased: lambda frame, _descriptors: self.releases.released(frame.queue_id),
            link.AlarmRaised: self._on_alarm_raised,
            link.AlarmCleared: self._on_alarm_cleared,
            link.Counters: self._on_counters,
        }

    # -- the start ---------------------------------------------------------------------------------------------

    def ask_for_bells(self) -> tuple[KeptBells, int | None]:
        """Connect and wait for the bells that the supervisor kept, and for its own; (nothing, None) if it kept none."""
        self._connect()
        kept: KeptBells = {}
        own: int | None = None
        deadline = time.monotonic_ns() + KEPT_WAIT_NS
        while self.supervisor is None and self._link is not None:
            for packet in self._wait_for_packets(self._link, deadline):
                match packet.frame:
                    case link.KeptBell(queue_id=0):
                        (own,) = packet.descriptors
                    case link.KeptBell(queue_id=queue_id, epoch=epoch):
                        consumers, producers = packet.descriptors
                        kept[queue_id] = Bells(consumers, producers, epoch)
                    case link.KeptEnd():
                        self.supervisor = packet.frame
        return kept, own

    def _wait_for_packets(self, connection: Link, deadline_ns: int) -> list[Packet]:
        """Empty, and no link, when the time is up: a supervisor that is stopped must not stop the broker."""
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        left_ms = max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000)
        packets = connection.receive() if poll.poll(left_ms) else None
        if packets is None:
            connection.close()
            self._link = None
            return []
        return packets

    def begin(self, catalog: Catalog, clients: Clients) -> None:
        """Everything is adopted: tell it, and go on telling."""
        self._catalog, self._clients = catalog, clients
        if self._link is None:
            self._reconnect(0)
            return
        self._loop.add(self._link.fileno(), self._on_ready)
        self._tell_all()

    # -- the link ---------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            self._link = link.connect(LINK_SOCKET)
        except OSError as error:
            self._log.warning("no link to the supervisor", why=str(error))

    def _reconnect(self, _now_ns: int) -> None:
        self._opened = False
        self._connect()
        if self._link is None:
            self._timers.after(RECONNECT_NS, self._reconnect)
            return
        self._loop.add(self._link.fileno(), self._on_ready)

    def _on_ready(self, events: int) -> None:
        if self._link is None:
            return
        if events & WRITE:
            self._flush()
        packets = self._link.receive() if self._link is not None else None
        if packets is None:
            self._lose()
            return
        for packet in packets:
            self._dispatch[type(packet.frame)](packet.frame, packet.descriptors)

    def _lose(self) -> None:
        if self._link is None:
            return
        self._log.info("link to the supervisor ended")
        self._loop.remove(self._link.fileno())
        self._link.close()
        self._link = self.supervisor = None
        self._opened = False
        self.releases.forget_all()
        self._timers.after(0, self._reconnect)

    def tell(self, frame: link.ToSupervisor, descriptors: tuple[int, ...] = ()) -> None:
        """Send; without a link it is told with all the rest when there is one."""
        if self._link is None or not self._opened:
            return
        try:
            self._link.send(frame, descriptors)
        except OSError:
            return  # its end of file is on its way to the loop
        if self._link.wants_write:
            self._loop.change(self._link.fileno(), READ | WRITE)

    def _flush(self) -> None:
        assert self._link is not None
        try:
            self._link.flush()
        except OSError:
            self._lose()
            return
        self._loop.change(self._link.fileno(), READ | WRITE if self._link.wants_write else READ)

    # -- telling ----------------------------------------------------------------------------------------------

    def _tell_all(self) -> None:
        assert self._catalog is not None
        assert self._clients is not None
        catalog, self._opened = self._catalog, True
        supervisor = catalog.registry.next_supervisor_index()
        self.tell(link.Opening(catalog.owner, supervisor), (catalog.registry.fd, catalog.supervisor_bell))
        for exchange in catalog.topology.exchanges.values():
            self.tell_event(ExchangeDeclared(exchange))
        for opened in catalog.open.values():
            self._tell_queue(opened)
        for binding in catalog.topology.router.bindings():
            self.tell(Bound(binding))
        for client in self._clients:
            self._clients.tell_joined(client)
        self.tell(link.Synced())

    def _tell_queue(self, opened: OpenQueue, *segment: int) -> None:
        brief = link.without_unknown_arguments(opened.queue)
        self.tell(link.QueueOpened(brief, opened.bells.epoch), (*opened.bells[:2], *segment))

    def _tell_new_queue(self, opened: OpenQueue) -> None:
        try:
            segment = segments.open_existing(opened.queue.segment)
        except OSError:  # no descriptors left: by its name, which is there for now
            self._tell_queue(opened)
            return
        self._tell_queue(opened, segment)
        os.close(segment)

    def tell_event(self, event: Event) -> None:
        match event:
            case QueueDeclared(queue=queue):
                assert self._catalog is not None
                self._tell_new_queue(self._catalog.open[queue.queue_id])
            case QueueDeleted(queue_id=queue_id):
                self.tell(event)
                if self._opened:
                    self.releases.expect(queue_id)
            case ExchangeDeclared(exchange=exchange):
                self.tell(ExchangeDeclared(link.without_unknown_arguments(exchange)))
            case _:
                self.tell(event)

    # -- hearing ----------------------------------------------------------------------------------------------

    def _on_kept_end(self, frame: link.KeptEnd, _descriptors: tuple[int, ...]) -> None:
        """A supervisor that was started again, while we have bells of our own."""
        self.supervisor = frame
        self.alarms.clear()
        self.on_alarms()
        self._tell_all()

    def _on_reaped(self, frame: link.ClientReaped, _descriptors: tuple[int, ...]) -> None:
        if self._clients is not None:
            self._clients.reaped(frame)

    def _on_alarm_raised(self, frame: link.AlarmRaised, _descriptors: tuple[int, ...]) -> None:
        self.raise_alarm(frame.kind, frame.subject, frame.text)

    def _on_alarm_cleared(self, frame: link.AlarmCleared, _descriptors: tuple[int, ...]) -> None:
        self.clear_alarm(frame.kind, frame.subject)

    def _on_counters(self, frame: link.Counters, _descriptors: tuple[int, ...]) -> None:
        self.counts.update(frame.counts)

    def raise_alarm(self, kind: str, subject: str, text: str) -> None:
        before = self.alarms.get((kind, subject))
        raised_ns = before.raised_ns if before else time.monotonic_ns()
        self.alarms[kind, subject] = Alarm(kind, subject, text, raised_ns)
        self.on_alarms()

    def clear_alarm(self, kind: str, subject: str) -> None:
        if self.alarms.pop((kind, subject), None) is not None:
            self.on_alarms()
