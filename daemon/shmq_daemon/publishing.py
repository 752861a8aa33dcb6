"""Publishing for socket clients: to every queue of a route, waiting for room without holding up the loop.

Owns: confirms, publishes that wait for room. Does not own: where a message goes (routing.py), the segment (the core).
Invariants: what one client publishes stays in order: behind one that waits for room its later ones wait too, up to a
bound beside the largest of them, beyond which nothing more is read from it; who needs more room than there is holds up
no other client that needs less; wake-ups are hints: where publishes wait, they are tried four times a second; every
wait ends at its deadline with an error that says why. An answer goes into the session in which it was asked for, or
nowhere: numbers of requests begin anew with each.
"""

import functools
from collections.abc import Callable
from typing import Any, Final

from shmq.core import _core
from shmq.errors import (
    BodyTooLarge,
    InternalError,
    NotDurable,
    NotFound,
    PublishError,
    PublishRejected,
    QueueFull,
    QueueStopped,
    ShmFull,
    ShmqError,
    Unroutable,
)
from shmq.wire import frames as wire
from shmq.wire.codes import to_wire
from shmq_daemon import policy
from shmq_daemon.catalog import Catalog
from shmq_daemon.clients import Client
from shmq_daemon.events import Queue
from shmq_daemon.gate import check_publish, check_user_id, without_hidden
from shmq_daemon.log import Logger
from shmq_daemon.looking import Looking
from shmq_daemon.loop import Loop, Timer, Timers
from shmq_daemon.opened import OpenQueue
from shmq_daemon.routing import Target, targets_of
from shmq_daemon.session import Session

WAITING_MAX: Final = 1024  # publishes of one client behind one that waits
WAITING_BYTES_MAX: Final = 16 << 20  # beside the largest one, which may have any size
NO_ROOM: Final = (_core.FULL, _core.STOPPED)  # outcomes that waiting may change

Publication = wire.Publish | wire.PublishMany


class Blocked:
    """A publish under way: bodies before `position` are in every queue, the one there is still missing in `missing`."""

    def __init__(self, client: Client, frame: Publication, targets: list[Target]) -> None:
        self.client = client
        self.session = client.session
        self.frame = frame
        self.targets = targets
        self.missing = list(targets)
        self.is_shared = len(targets) > 1
        self.refusal: ShmqError | None = None  # of one queue of several, while others may still get it
        self.bodies = [frame.body] if isinstance(frame, wire.Publish) else frame.bodies
        self.position = 0
        self.bytes = sum(map(len, self.bodies))
        self.timer: Timer | None = None
        self.waits_on: OpenQueue | None = None
        self.stopped = False  # the queue that had no room may not grow for now

    def place_in(self, opened: OpenQueue) -> tuple[int, int]:
        """Where its next body would lie in that queue, which has no room for it: as policy.place_of."""
        target = next(target for target in self.missing if target.queue.queue_id == opened.queue.queue_id)
        return policy.place_of(opened.queue.geometry, len(self.bodies[self.position]), len(target.envelope))

    def leave_out(self, queue: Queue, error: ShmqError) -> None:
        """A queue can't be published to any more: the others get the message all the same. One that is gone is as one
        that was never bound.
        """
        self.targets = [target for target in self.targets if target.queue is not queue]
        self.missing = [target for target in self.missing if target.queue is not queue]
        if not isinstance(error, NotFound):
            self.note(error)

    def is_partly_there(self, error: ShmqError | None) -> bool:
        """Whether one of several queues may have the body that another one has not: if it were sent again, to hear why,
        it would be there twice.
        """
        return isinstance(error, PublishRejected) or self.is_shared

    def note(self, error: ShmqError) -> None:
        """One queue of several refuses: the first refusal is told, with all the queues that are as long as they may
        be.
        """
        if isinstance(error, PublishRejected) and isinstance(self.refusal, PublishRejected):
            self.refusal = _refused([*self.refusal.queues, *error.queues], self.position)
        else:
            self.refusal = self.refusal or error


class Barrier:
    """A ping behind publishes that wait: answered when they are settled."""

    def __init__(self, client: Client, seq: int) -> None:
        self.session = client.session
        self.seq = seq
        self.bytes = 0
        self.waits_on: OpenQueue | None = None  # never: it is done when it comes first


class Publishing:
    """Publishes, and remembers what waits."""

    def __init__(self, catalog: Catalog, loop: Loop, timers: Timers, log: Logger) -> None:
        self._catalog = catalog
        self._loop = loop
        self._timers = timers
        self._log = log
        self._looking = Looking(catalog.open, timers, _core.PRODUCERS, self._try_again)

    def table(self) -> dict[type, Callable[[Client, Any], None]]:
        return {wire.Publish: self.on_publish, wire.PublishMany: self.on_publish, wire.Ping: self.on_ping}

    def on_publish(self, client: Client, frame: Publication) -> None:
        """Publish now, or behind what this client has waiting."""
        try:
            check_publish(client.access, frame)
            check_user_id(client.uid, frame)
            blocked = Blocked(client, frame, self._targets(frame))
        except ShmqError as error:
            self._refuse(client, client.session, frame, error)
            return
        if not client.publishing:
            self._advance(blocked, wait=True)
            return
        client.publishing.append(blocked)
        client.publishing_bytes += blocked.bytes
        self._start_timer(blocked)
        _bound(client)

    def on_ping(self, client: Client, frame: wire.Ping) -> None:
        """Answer when all that this client published before is settled."""
        barrier = Barrier(client, frame.seq)
        if not client.publishing:
            _pass(barrier)
            return
        client.publishing.append(barrier)
        _bound(client)

    def _targets(self, frame: Publication) -> list[Target]:
        """Where to publish. Raises what AMQP says about it."""
        if frame.confirm == wire.CONFIRM_DISK:
            raise NotDurable
        targets = targets_of(self._catalog.topology, frame)
        if not targets and frame.mandatory:
            raise Unroutable(exchange=frame.exchange, routing_key=frame.routing_key)
        return targets

    # -- going forward ----------------------------------------------------------------------------------------

    def _advance(self, blocked: Blocked, *, wait: bool) -> bool:
        """Publish as far as there is room. False: it waits. Confirms or refuses when it comes to its end."""
        try:
            full = self._publish(blocked)
        except ShmqError as error:
            self._finish(blocked, error)
            return True
        if full is None:
            self._finish(blocked, None)
            return True
        if not wait or blocked.frame.timeout_ns == 0:
            self._finish(blocked, self._full_error(full, blocked))
            return True
        self._wait_for(blocked, full)
        return False

    def _publish(self, blocked: Blocked) -> OpenQueue | None:
        """Returns a queue that is full, None when all is done."""
        if len(blocked.targets) == len(blocked.missing) == 1 and blocked.refusal is None:
            return self._publish_all(blocked, blocked.targets[0])
        while blocked.position < len(blocked.bodies):
            full = self._publish_to_each(blocked)
            if full is not None:
                return full
            if blocked.refusal is not None:
                raise blocked.refusal
            blocked.position += 1
            blocked.missing = list(blocked.targets)
        return None

    def _publish_to_each(self, blocked: Blocked) -> OpenQueue | None:
        """One body to each queue that lacks it: one that is full, or refuses it, holds up no other."""
        full: dict[int, OpenQueue] = {}
        for target in blocked.missing:
            try:
                opened = self._open(target.queue)
                outcome = self._publish_one(blocked, target, opened)
            except NotFound:
                continue
            except ShmqError as error:
                blocked.note(error)
                continue
            if outcome == _core.REFUSED:
                blocked.leave_out(target.queue, _refused([opened.name], blocked.position))
            elif outcome != _core.OK:  # no room, or the slot was taken from us: it is not there, so once more
                full[target.queue.queue_id] = opened
        blocked.missing = [target for target in blocked.missing if target.queue.queue_id in full]
        return next(iter(full.values()), None)

    def _publish_all(self, blocked: Blocked, target: Target) -> OpenQueue | None:
        """The usual case, one target: all bodies in one call."""
        frame, opened = blocked.frame, self._open(target.queue)
        done, outcome = opened.core.publish_many(
            blocked.bodies,
            blocked.position,
            frame.priority,
            target.envelope,
            policy.ttl_ns_of(target.queue.definition, frame.ttl_ns),
            target.delay_ns,
            frame.flags,
            blocked.client.sender,
        )
        blocked.position += done
        if blocked.position == len(blocked.bodies):
            return None
        if outcome == _core.REFUSED:
            raise _refused([opened.name], blocked.position)
        self._check(outcome, opened, len(blocked.bodies[blocked.position]))
        blocked.stopped = outcome == _core.STOPPED
        return opened

    def _publish_one(self, blocked: Blocked, target: Target, opened: OpenQueue) -> int:
        frame, body = blocked.frame, blocked.bodies[blocked.position]
        ttl_ns = policy.ttl_ns_of(target.queue.definition, frame.ttl_ns)
        sender = blocked.client.sender
        outcome = opened.core.publish(
            body, frame.priority, target.envelope, ttl_ns, target.delay_ns, frame.flags, sender
        )
        self._check(outcome, opened, len(body))
        if outcome in NO_ROOM:
            blocked.stopped = outcome == _core.STOPPED
        return outcome

    def _open(self, queue: Queue) -> OpenQueue:
        opened = self._catalog.open.get(queue.queue_id)
        if opened is None:
            raise NotFound(kind="queue", name=queue.name)
        return opened

    def _check(self, outcome: int, opened: OpenQueue, size: int) -> None:
        if outcome == _core.NO_MEMORY:
            raise ShmFull(queue=opened.name)
        if outcome == _core.TOO_LARGE:
            raise BodyTooLarge(size=size, limit=policy.body_bytes_max(opened.queue.geometry), queue=opened.name)
        if outcome == _core.DELETED:
            raise NotFound(kind="queue", name=opened.name)

    # -- waiting ----------------------------------------------------------------------------------------------

    def _wait_for(self, blocked: Blocked, opened: OpenQueue) -> None:
        client = blocked.client
        if blocked not in client.publishing:
            client.publishing.append(blocked)
            client.publishing_bytes += blocked.bytes
            self._start_timer(blocked)
        blocked.waits_on = opened
        opened.blocked.append(blocked)
        self._looking.begin()
        if opened.wait_for(self._loop, _core.PRODUCERS, self._on_room):
            self._on_room(opened)

    def _start_timer(self, blocked: Blocked) -> None:
        blocked.timer = self._timers.after(blocked.frame.timeout_ns, functools.partial(self._on_deadline, blocked))

    def _on_room(self, opened: OpenQueue) -> None:
        """Room in a queue: let those who wait try again, in their order, but nobody who needs as much as one who found
        none, or more of the same.
        """
        missing: dict[int, int] = {}  # by tier, bytes
        for blocked in tuple(opened.blocked):
            if blocked.waits_on is not opened:
                continue  # settled behind another one of its client
            tier, size = blocked.place_in(opened)
            if tier in missing and size >= missing[tier]:
                continue
            if self._advance_first(opened, blocked):
                continue
            tier, size = blocked.place_in(opened)  # it may have come further
            missing[tier] = size
            if tier == policy.INLINE:
                break  # everybody needs a slot
        if not opened.usable:
            return
        if not opened.blocked:
            opened.stop_waiting(self._loop, _core.PRODUCERS)
        elif opened.wait_for(self._loop, _core.PRODUCERS, self._on_room) and opened.core.may_have(_core.PRODUCERS):
            self._on_room(opened)

    def _try_again(self, opened: OpenQueue) -> None:
        """Not while we are registered: who finds no granules gives a slot back, and would ring us for that."""
        opened.stop_waiting(self._loop, _core.PRODUCERS)
        self._on_room(opened)

    def _advance_first(self, opened: OpenQueue, blocked: Blocked) -> bool:
        """Go on with a client's first waiting publish, then with those behind it. False: this queue is still full."""
        client = blocked.client
        try:
            full = self._publish(blocked)
        except ShmqError as error:
            _waits_no_more(blocked)
            self._finish(blocked, error)
        else:
            if full is opened:
                return False
            _waits_no_more(blocked)
            if full is not None:  # another of its targets
                self._wait_for(blocked, full)
                return True
            self._finish(blocked, None)
        self._next_of(client)
        return True

    def _next_of(self, client: Client) -> None:
        while client.publishing and client.publishing[0].waits_on is None:
            first = client.publishing[0]
            if isinstance(first, Barrier):
                client.publishing.pop(0)
                _pass(first)
            elif not self._advance(first, wait=True):
                break
        if client.session is not None and _are_within(client, WAITING_BYTES_MAX // 2):
            client.session.resume()

    def _on_deadline(self, blocked: Blocked, _now_ns: int) -> None:
        opened = blocked.waits_on
        if opened is None:  # still behind another one of its client
            opened = blocked.client.publishing[0].waits_on
        error = self._full_error(opened, blocked) if opened is not None else InternalError("nothing to wait for")
        _waits_no_more(blocked)
        if opened is not None and opened.usable and not opened.blocked:
            opened.stop_waiting(self._loop, _core.PRODUCERS)
        self._finish(blocked, error)
        self._next_of(blocked.client)

    def queue_deleted(self, opened: OpenQueue) -> None:
        self.end_all(opened, NotFound(kind="queue", name=opened.name))

    def end_all(self, opened: OpenQueue, error: ShmqError) -> None:
        """Whoever waits for room there waits no more."""
        waiting = list(opened.blocked)
        opened.blocked.clear()
        for blocked in waiting:
            blocked.waits_on = None
            blocked.leave_out(opened.queue, error)
            if blocked.targets:
                self._advance(blocked, wait=True)
            else:
                self._finish(blocked, blocked.refusal or error)
            self._next_of(blocked.client)

    # -- answering --------------------------------------------------------------------------------------------

    def _finish(self, blocked: Blocked, error: ShmqError | None) -> None:
        client, frame = blocked.client, blocked.frame
        if blocked in client.publishing:
            client.publishing.remove(blocked)
            client.publishing_bytes -= blocked.bytes
        if blocked.timer is not None:
            blocked.timer.cancel()
        told_later = isinstance(frame, wire.PublishMany) and blocked.position and not blocked.is_partly_there(error)
        if isinstance(error, PublishError):
            error.published = blocked.position
        if error is not None and not told_later:
            self._refuse(client, blocked.session if frame.seq else client.session, frame, error)
        elif frame.confirm >= wire.CONFIRM_MEMORY and frame.seq and blocked.session is not None:
            many = isinstance(frame, wire.PublishMany)
            done = wire.Counted(frame.seq, blocked.position) if many else wire.Ok(frame.seq)
            blocked.session.send(done)
        elif error is not None:
            self._refuse(client, blocked.session if frame.seq else client.session, frame, error)

    @staticmethod
    def _refuse(client: Client, session: Session | None, frame: Publication, error: ShmqError) -> None:
        if frame.confirm != wire.CONFIRM_NONE and session is not None:
            session.send(wire.Error(frame.seq, *to_wire(without_hidden(error, client.access))))

    def _full_error(self, opened: OpenQueue, blocked: Blocked) -> QueueFull:
        """Full in messages, or in bytes of large bodies; or it may not grow."""
        stats = opened.core.stats() if opened.usable else {}
        timeout = blocked.frame.timeout_ns / 1e9
        if blocked.stopped and stats:
            had, share, mark = stats["memory_bytes"], stats["share_bytes"], stats["mark_bytes"]
            return QueueStopped(queue=opened.name, depth=had, limit=share, timeout=timeout, unit="bytes", mark=mark)
        depth = stats.get("ready", 0) + stats.get("unacked", 0) + stats.get("delayed", 0) + stats.get("dead_pending", 0)
        limit = opened.queue.geometry[1]
        if depth < limit and stats.get("arena_committed_bytes", 0):
            used, limit_bytes = stats["arena_committed_bytes"], opened.queue.geometry[4]
            return QueueFull(queue=opened.name, depth=used, limit=limit_bytes, timeout=timeout, unit="bytes")
        return QueueFull(queue=opened.name, depth=depth, limit=limit, timeout=timeout)


def _refused(queues: list[str], published: int) -> PublishRejected:
    return PublishRejected(queues=queues, reason=policy.TOO_LONG, published=published)


def _waits_no_more(blocked: Blocked) -> None:
    if blocked.waits_on is not None:
        blocked.waits_on.blocked.remove(blocked)
        blocked.waits_on = None


def _bound(client: Client) -> None:
    """Read nothing more from a client that has too much waiting."""
    too_much = len(client.publishing) > WAITING_MAX or not _are_within(client, WAITING_BYTES_MAX)
    if too_much and client.session is not None:
        client.session.pause()


def _are_within(client: Client, limit: int) -> bool:
    """Whether the publishes that wait are no more than that, beside the largest one."""
    within = client.publishing_bytes <= limit
    return within or client.publishing_bytes - max(waiting.bytes for waiting in client.publishing) <= limit


def _pass(barrier: Barrier) -> None:
    if barrier.session is not None:
        barrier.session.send(wire.Ok(barrier.seq))
