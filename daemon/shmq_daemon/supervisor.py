"""The supervisor: repairs what the dead leave behind and moves what is due, in all queues.

Owns: the supervisor's end of the link, the world it was told of, when which work runs. Does not own: the work itself
(reaping.py, dead_letters.py, delays.py, expiry.py, scanning.py, sweep.py), topology (it follows the broker's), state.
Invariants: whatever dies half done is found again by the recovery of a queue, which runs for every queue whenever a
broker opens the link: one path for the start of either process. A client counts as dead only when its pidfd says so,
or the broker whose peer has none. Work is done in bounded steps, and deaths are seen between any two of them.
"""

import contextlib
import functools
import os
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from shmq.core._core import DEAD, DELAYED
from shmq_daemon import discard, link, segments
from shmq_daemon.dead_letters import ALARM as TARGET_FULL
from shmq_daemon.dead_letters import BATCH, TELL_NS, DeadLetters
from shmq_daemon.delays import Delays
from shmq_daemon.events import (
    Bound,
    Event,
    ExchangeDeclared,
    ExchangeDeleted,
    Queue,
    QueueDeclared,
    QueueDeleted,
    Unbound,
)
from shmq_daemon.expiry import Expiry
from shmq_daemon.instance import Byte, wait_for_predecessor
from shmq_daemon.link import Link, Packet
from shmq_daemon.log import logger
from shmq_daemon.loop import READ, WRITE, Loop
from shmq_daemon.master import Instance
from shmq_daemon.process import Child
from shmq_daemon.reaping import Clients, Reaper
from shmq_daemon.registry import Registry
from shmq_daemon.scanning import Scans
from shmq_daemon.sweep import CANT_GROW, Sweep
from shmq_daemon.topology import Topology
from shmq_daemon.watched import QUARANTINED, Quarantine, SlotWord, Watched
from shmq_daemon.watermark import STOPPED, Marks, Watermark

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTERS_NS: Final = 1_000_000_000  # at most so often are counters told


class World:
    """All that one broker told, until the next one tells it anew."""

    def __init__(self, registry: Registry, bell: int, owner: int, broker: int) -> None:
        self.registry = registry
        self.bell = bell  # counting eventfd: look at the rings of dead and delayed
        self.owner = owner
        self.broker = broker
        self.synced = False
        self.topology = Topology()
        self.watched: dict[int, Watched] = {}
        self.leaving: dict[int, Watched] = {}  # deleted, and their dead letters not yet on their way

    def close(self) -> None:
        for watched in (*self.watched.values(), *self.leaving.values()):
            watched.close()
        self.registry.close()
        os.close(self.bell)


class Supervisor:
    """One process's work."""

    def __init__(self, instance: Instance, loop: Loop, restarts: int) -> None:
        self._restarts = restarts
        self._started_ns = time.monotonic_ns()
        self._instance = instance
        self._loop = loop
        self._log = logger("supervisor")
        self._link: Link | None = None
        self._world: World | None = None
        self._quarantine = Quarantine(self._on_damage)
        self._clients = Clients(loop, self._on_client_dead)
        self._counts: Counter[str] = Counter()
        self._counters_due_ns = 0
        self._alarms: dict[tuple[str, str], str] = {}
        self._busy: set[int] = set()  # queues whose rings may hold more
        self._dispatch: dict[type, Callable[[Any, tuple[int, ...]], None]] = {
            link.Opening: self._on_opening,
            link.QueueOpened: self._on_queue_opened,
            link.ClientJoined: self._on_client_joined,
            link.SessionLost: self._on_session_lost,
            link.ClientLeft: self._on_client_left,
            link.ClientDied: self._on_client_died,
            link.Synced: self._on_synced,
            QueueDeleted: self._on_queue_deleted,
            ExchangeDeclared: self._on_topology,
            ExchangeDeleted: self._on_topology,
            Bound: self._on_topology,
            Unbound: self._on_topology,
        }

    # -- the life of the process ------------------------------------------------------------------------------

    def start(self) -> None:
        self._loop.add(self._instance.link_listener.fileno(), self._on_connect)

    def stop(self) -> None:
        if self._world is not None:
            self._letters.tell(time.monotonic_ns() + TELL_NS)
        self._log.info("stopped")

    def master_died(self) -> None:
        """Of an ephemeral instance nothing is left, wait for the broker's end, then remove all."""
        if self._instance.ephemeral:
            wait_for_predecessor(self._instance.lock_fd, Byte.BROKER)
            discard.discard_everything(self._instance.places)

    def tick(self, now_ns: int) -> int | None:
        """One bounded piece of everything that is due."""
        world = self._world
        if world is None or not world.synced:
            return None
        for watched, at in self._delays.due(now_ns):
            fired = self._quarantine.run(watched, lambda w, at=at: self._delays.fire(w, at, now_ns), 0)  # type: ignore[misc] # mypy infers no lambda that has a default
            self._counts["fired"] += fired
        self._counts["expired"] += self._expiry.tick(now_ns)
        self._scans.tick(now_ns)
        self._look(now_ns)
        if self._world is not world:  # another broker has opened the link
            return now_ns
        self._letters.tell(now_ns)
        self._watermark.tick(now_ns)
        self._sweep.tick(now_ns)
        self._tell_counters(now_ns)
        return self._next_deadline(now_ns)

    def _next_deadline(self, now_ns: int) -> int:
        assert self._world is not None
        if self._busy or self._world.leaving or self._sweep.recovering:
            return now_ns
        candidates = [self._sweep.due_ns]
        dues = [work.next_due() for work in (self._scans, self._delays, self._expiry)]
        dues += [self._letters.tell_ns, self._watermark.due_ns]
        candidates += [due for due in dues if due is not None]
        candidates += [w.retry_ns for w in self._world.watched.values() if w.stuck and not w.quarantined]
        return min(candidates)

    # -- the link ---------------------------------------------------------------------------------------------

    def _on_connect(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._instance.link_listener.accept()
            self._drop_link()
            self._link = Link(connection)
            self._loop.add(self._link.fileno(), self._on_link)
            self._tell_kept()

    def _tell_kept(self) -> None:
        if self._world is not None:
            self._send(link.KeptBell(0, 0), self._world.bell)
            for watched in self._world.watched.values():
                self._send(link.KeptBell(watched.queue.queue_id, watched.epoch), *watched.bells)
        self._send(link.KeptEnd(os.getpid(), self._restarts, self._started_ns))

    def _send(self, frame: link.ToBroker, *descriptors: int) -> None:
        if self._link is None:
            return
        try:
            self._link.send(frame, descriptors)
            self._loop.change(self._link.fileno(), READ | WRITE if self._link.wants_write else READ)
        except OSError:
            self._drop_link()

    def _drop_link(self) -> None:
        if self._link is not None:
            self._loop.remove(self._link.fileno())
            self._link.close()
            self._link = None

    def _on_link(self, events: int) -> None:
        if self._link is None:
            return
        if events & WRITE:
            with contextlib.suppress(OSError):
                self._link.flush()
                self._loop.change(self._link.fileno(), READ | WRITE if self._link.wants_write else READ)
        self._read_link()

    def _read_link(self) -> None:
        """Take all that has come."""
        while self._link is not None:
            packets = self._link.receive()
            if packets is None:
                self._log.info("link to the broker ended")
                self._drop_link()
            elif not packets:
                return
            else:
                for packet in packets:
                    self._take(packet)

    def _take(self, packet: Packet) -> None:
        self._dispatch[type(packet.frame)](packet.frame, packet.descriptors)

    # -- what the broker tells --------------------------------------------------------------------------------

    def _on_opening(self, frame: link.Opening, descriptors: tuple[int, ...]) -> None:
        if self._world is not None:
            self._loop.remove(self._world.bell)
            self._clients.forget_all()
            self._world.close()
        registry, bell = descriptors
        world = self._world = World(Registry(registry, read_only=True), bell, frame.supervisor, frame.broker)
        self._alarms.clear()
        self._busy.clear()
        self._reaper = Reaper(world.registry, world.watched, self._quarantine, self._log)
        self._delays = Delays(world.watched)
        self._expiry = Expiry(world.watched, self._quarantine)
        self._scans = Scans(world.watched, self._quarantine, self._take_up)
        self._letters = DeadLetters(
            world.topology, world.watched, self._quarantine, self, self._log, lambda: int(time.time())
        )
        config = self._instance.config
        marks = Marks(config.memory_watermark, config.memory_watermark_bytes, config.memory_watermark_clear)
        self._watermark = Watermark(world.watched, self._quarantine, self, marks)
        self._sweep = Sweep(
            world.watched,
            self._quarantine,
            self,
            self._recover,
            self._scans.begin,
            lambda watched: self._busy.add(watched.queue.queue_id),
            self._watermark.look,
            self._log,
        )
        self._loop.add(bell, self._on_bell)

    def _on_queue_opened(self, frame: link.QueueOpened, descriptors: tuple[int, ...]) -> None:
        world, queue = self._told(), frame.queue
        consumers, producers, *segment = descriptors
        world.topology.apply(QueueDeclared(queue))
        try:
            watched = Watched(queue, frame.epoch, (consumers, producers), world.bell, world.owner, *segment)
        except Exception as error:  # noqa: BLE001 - a segment that cannot be opened stops only its queue
            os.close(consumers)
            os.close(producers)
            self._alarm_damage(queue, error)
            return
        world.watched[queue.queue_id] = watched
        self._sweep.add(watched)
        self._watermark.add(watched)

    def _on_queue_deleted(self, frame: QueueDeleted, _descriptors: tuple[int, ...]) -> None:
        world = self._told()
        queue = world.topology.queues_by_id[frame.queue_id]
        for kind in (QUARANTINED, TARGET_FULL, CANT_GROW, STOPPED):
            self.clear_alarm(kind, queue.name)
        world.topology.apply(frame)
        watched = world.watched.pop(frame.queue_id, None)
        if watched is not None:
            self._sweep.remove(watched)
            self._watermark.remove(watched)
            self._letters.forget(watched)
            self._delays.forget(watched)
            self._expiry.forget(frame.queue_id)
            self._scans.forget(frame.queue_id)
            self._busy.discard(frame.queue_id)
            world.leaving[frame.queue_id] = watched
        else:
            self._send(link.QueueReleased(frame.queue_id))

    def _on_topology(self, frame: Event, _descriptors: tuple[int, ...]) -> None:
        self._told().topology.apply(frame)

    def _on_client_joined(self, frame: link.ClientJoined, descriptors: tuple[int, ...]) -> None:
        self._clients.add(frame, descriptors[0] if descriptors else -1)

    def _on_session_lost(self, frame: link.SessionLost, _descriptors: tuple[int, ...]) -> None:
        if frame.owner in self._clients:
            self._reaper.requeue_unacked(self._clients[frame.owner], count_failure=True)

    def _on_client_left(self, frame: link.ClientLeft, _descriptors: tuple[int, ...]) -> None:
        if frame.owner not in self._clients:
            return
        client = self._clients[frame.owner]
        if not frame.clean:
            self._reaper.requeue_unacked(client, count_failure=False)
            return
        self._reaper.reap(client, count_failure=False)
        self._clients.remove(client)
        self._send(link.ClientReaped(client.owner, client.incarnation))

    def _on_client_died(self, frame: link.ClientDied, _descriptors: tuple[int, ...]) -> None:
        if frame.owner in self._clients:
            self._clients[frame.owner].alive = False
            self._reap_dead(frame.owner)

    def _on_client_dead(self, owner: int) -> None:
        """The kernel says so. What the broker told before is read first: of every queue that this client was given."""
        self._read_link()
        self._reap_dead(owner)

    def _reap_dead(self, owner: int) -> None:
        if self._world is None or not self._world.synced or owner not in self._clients:
            return  # what dies before all was told is found when it is
        client = self._clients[owner]
        self._clients.remove(client)
        now_ns = time.monotonic_ns()
        for watched in self._reaper.reap(client, count_failure=True):
            self._scans.begin_after_death(watched, now_ns)
            self._quarantine.run(watched, lambda w: self._sweep.hurry(w, now_ns), None)
        self._counts["clients_reaped"] += 1
        self._send(link.ClientReaped(client.owner, client.incarnation))

    def _on_synced(self, _frame: link.Synced, _descriptors: tuple[int, ...]) -> None:
        """Everything is known: recover every queue, then answer for those who died while nobody looked."""
        world = self._told()
        world.synced = True
        self._dead_at_opening = self._clients.dead()
        self._sweep.recover_all(self._on_recovered)
        self._log.info("watching", queues=len(world.watched), clients=len(self._clients))

    def _recover(self, watched: Watched) -> None:
        """A whole pass over one queue after either process started: what the dead left, then what nobody remembers."""
        world = self._told()
        watched.core.ring_unheard()
        self._reaper.recover(watched, world.broker, world.owner, self._dead_at_opening)
        watched.core.heal(full=True)
        self._expiry.look(watched)
        self._scans.begin(watched)

    def _on_recovered(self) -> None:
        for owner in self._dead_at_opening:
            if owner in self._clients and not self._clients[owner].alive:
                client = self._clients[owner]
                self._clients.remove(client)
                self._counts["clients_reaped"] += 1
                self._send(link.ClientReaped(owner, client.incarnation))

    def _told(self) -> World:
        assert self._world is not None, "the broker speaks before it opens"
        return self._world

    # -- rings of dead and delayed ----------------------------------------------------------------------------

    def _on_bell(self, _events: int) -> None:
        world = self._told()
        with contextlib.suppress(BlockingIOError):
            os.read(world.bell, 8)
        self._busy.update(world.watched)
        self._watermark.grown()

    def _look(self, now_ns: int) -> None:
        """At the queues that may have something, and at those with stuck ones whose time has come."""
        world = self._told()
        stuck = {key for key, w in world.watched.items() if w.stuck and now_ns >= w.retry_ns}
        looked, self._busy = self._busy | stuck, set()
        leaving = dict(world.leaving)
        found = {key: world.watched[key] for key in looked & world.watched.keys()} | leaving
        dead: dict[int, list[SlotWord]] = {}
        for queue_id, watched in found.items():
            dead[queue_id] = self._quarantine.run(watched, self._letters.take, [])
        if any(dead.values()):
            self._read_link()
        if self._world is not world:  # the next recovery finds them
            return
        for queue_id, watched in found.items():
            look = self._leave if queue_id in world.leaving else self._look_at
            work = functools.partial(look, dead=dead[queue_id], now_ns=now_ns)
            if self._quarantine.run(watched, work, otherwise=False):
                self._busy.add(queue_id)
            elif queue_id in leaving:  # since before it was looked at: nothing is in its ring any more
                self._release(watched)

    def _leave(self, watched: Watched, dead: list[SlotWord], now_ns: int) -> bool:
        """What died in a queue before it was deleted goes where it was to go all the same, if there is room now."""
        for _ in range(0, len(watched.stuck) + 1, BATCH):
            watched.retry_ns = 0
            self._letters.step(watched, dead, now_ns)
        return bool(dead)

    def _release(self, watched: Watched) -> None:
        """It is gone, and with it what its targets had no room for."""
        lost = 0 if watched.quarantined else watched.core.stats()["dead_pending"]
        if lost:
            self._log.warning("dead letters lost with their queue", queue=watched.name, messages=lost)
        self._letters.forget(watched)
        self.clear_alarm(TARGET_FULL, watched.name)
        del self._told().leaving[watched.queue.queue_id]
        watched.close()
        self._send(link.QueueReleased(watched.queue.queue_id))

    def _look_at(self, watched: Watched, dead: list[SlotWord], now_ns: int) -> bool:
        watched.core.ring_unheard()
        more_dead = self._letters.step(watched, dead, now_ns)
        if self._letters.wants_scan(watched):
            self._scans.begin(watched)
        self._expiry.note(watched)
        return self._delays.step(watched, now_ns) or more_dead

    def _take_up(self, watched: Watched, first: int, slots: int) -> None:
        """What is dead or delayed in some slots, and in no ring."""
        self._letters.adopt(watched, watched.core.scan(DEAD, first, slots))
        self._delays.adopt(watched, watched.core.scan(DELAYED, first, slots), time.monotonic_ns())
        self._busy.add(watched.queue.queue_id)

    # -- alarms and counters ----------------------------------------------------------------------------------

    def raise_alarm(self, kind: str, subject: str, text: str) -> None:
        if self._alarms.get((kind, subject)) == text:
            return
        self._alarms[kind, subject] = text
        self._log.warning("alarm raised", alarm=kind, subject=subject, text=text)
        self._send(link.AlarmRaised(kind, subject, text))

    def clear_alarm(self, kind: str, subject: str) -> None:
        if self._alarms.pop((kind, subject), None) is not None:
            self._log.info("alarm cleared", alarm=kind, subject=subject)
            self._send(link.AlarmCleared(kind, subject))

    def _on_damage(self, watched: Watched, error: Exception) -> None:
        self._alarm_damage(watched.queue, error)

    def _alarm_damage(self, queue: Queue, error: Exception) -> None:
        why = segments.explain(queue.segment, error)
        text = f"queue {queue.name!r} is set apart: {why}. Delete it when its messages are not needed"
        self.raise_alarm(QUARANTINED, queue.name, text)

    def _tell_counters(self, now_ns: int) -> None:
        if now_ns < self._counters_due_ns:
            return
        counts = self._counts + self._letters.counts + self._reaper.counts + self._sweep.counts
        if not counts:
            return
        self._counters_due_ns = now_ns + COUNTERS_NS
        for source in (self._counts, self._letters.counts, self._reaper.counts, self._sweep.counts):
            source.clear()
        self._send(link.Counters(dict(counts)))


def run(instance: Instance, lifeline: socket.socket, restarts: int) -> None:
    """The supervisor's process. The kernel's signal at the master's end would keep an ephemeral one from tidying up."""
    loop = Loop()
    wait_for_predecessor(instance.lock_fd, Byte.SUPERVISOR)
    Child(loop, lifeline, Supervisor(instance, loop, restarts)).run()
