"""The topology made real: each event remembered, its segment made or removed, the supervisor told, in this order.

Owns: all open queues, the state, the registry, the words and the presence file; what is adopted at a start. Does not
own: rules (topology.py), sessions, what is waited for on a queue.
Invariants: state first, then segment (a death between leaves a name without memory, which is made at the next start);
deleted is marked in the segment first, then forgotten, then unlinked (a death between is finished at the next start);
the events of one request are remembered together.
"""

import errno
import functools
import os
import resource
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from shmq.core import _core
from shmq.definitions import QueueDefinition
from shmq.errors import ConfigError, NotAllowed, ShmFull, ShmqError
from shmq.names import GENERATED_PREFIX
from shmq.routing.router import DEFAULT_EXCHANGE
from shmq_daemon import policy, segments
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
from shmq_daemon.log import Logger
from shmq_daemon.loop import Loop
from shmq_daemon.opened import DESCRIPTORS_OF_A_QUEUE, Bells, OpenQueue
from shmq_daemon.presence import Presence
from shmq_daemon.registry import QUEUES_MAX, Registry
from shmq_daemon.state import State
from shmq_daemon.topology import Topology, Usage
from shmq_daemon.words import WORDS_MAX, Words

SHM_SHARE: Final = 4  # a queue that asks for no capacity in bytes gets this part of /dev/shm, as a limit
UNUSED: Final = Usage(0, 0)
RAISE_LIMIT: Final = "Raise the limit (LimitNOFILE= of the service, ulimit -n) and start shmqd again"
KeptBells = dict[int, Bells]


class Catalog:
    """What exists, and the memory it exists in."""

    def __init__(self, state: State, sizes: policy.Sizes, loop: Loop, log: Logger, descriptors_max: int) -> None:
        self.state = state
        self._descriptors_max = descriptors_max
        self.topology = Topology()
        self.open: dict[int, OpenQueue] = {}
        self._sizes = sizes
        self._loop = loop
        self._log = log
        instance = state.instance
        self._registry_name = state.meta("registry", segments.new_name(instance))
        self._words_name = state.meta("words", segments.new_name(instance))
        self._presence_name = state.meta("presence", segments.new_name(instance))
        self.registry = Registry.open(self._registry_name)
        self.words = Words.open(self._words_name)
        self.words_fd = segments.open_existing(self._words_name, read_only=True)
        self.presence = Presence.open(self._presence_name)
        self.epoch = self.registry.next_epoch()
        self.owner = self.registry.next_broker_index()
        self.supervisor_bell = -1
        self.leaving: OpenQueue | None = None  # the queue whose deletion is being told
        self.on_event: Callable[[Event], None] = lambda _event: None

    # -- adoption ---------------------------------------------------------------------------------------------

    def adopt(self, kept: KeptBells, supervisor_bell: int | None) -> None:
        """Open all that the state names, with the bells that somebody kept; remove what has our prefix and no name."""
        self.supervisor_bell = (
            os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if supervisor_bell is None else supervisor_bell
        )
        for event in self.state.events():
            self.topology.apply(event)
        self._check_limit(len(self.topology.queues))
        for queue in list(self.topology.queues.values()):
            self._adopt_queue(queue, kept.pop(queue.queue_id, None))
        for bells in kept.values():
            bells.close()
        names = [queue.segment for queue in self.topology.queues.values()]
        names += [self._registry_name, self._words_name, self._presence_name]
        removed = segments.unlink_all_but(self.state.instance, names)
        self._log.info("adopted", queues=len(self.open), exchanges=len(self.topology.exchanges), removed=len(removed))

    def _check_limit(self, queues: int) -> None:
        """Starting again would not help where queues need more open files than we may have."""
        needed = queues * DESCRIPTORS_OF_A_QUEUE
        if needed > self._descriptors_max:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            raise ConfigError(f"{queues} queues need {needed} open files, and the limit is {limit}. {RAISE_LIMIT}")

    def _adopt_queue(self, queue: Queue, kept: Bells | None) -> None:
        """Also with kept bells the epoch is a new one: it tells direct clients that never wait of the new broker."""
        bells = Bells.make(self.epoch) if kept is None else kept._replace(epoch=self.epoch)
        opened = self.open[queue.queue_id] = OpenQueue(queue, bells)
        try:
            self._open_segment(opened)
            deleted = opened.core.deleted
        except (OSError, ShmqError) as error:
            self.set_apart(opened, error)
            return
        if deleted:
            self._log.info("deletion finished", queue=queue.name)
            self.commit(self.topology.delete_queue(queue, usage=UNUSED))

    def _open_segment(self, opened: OpenQueue) -> None:
        try:
            fd, create = segments.open_existing(opened.queue.segment), False
        except FileNotFoundError:
            self._log.warning("segment is gone, made anew", queue=opened.name)
            fd, create = self._make_segment(opened.queue), True
        if not create and os.fstat(fd).st_size == 0:  # made, and its maker died before it had a size
            os.ftruncate(fd, _core.segment_bytes(opened.queue.geometry))
        create = create or not any(os.pread(fd, 8, 0))  # nor was it laid out
        opened.attach(fd, self.owner, self.supervisor_bell, create=create)
        self._prepare(opened)  # also one that is there: its maker may have died before it had its limits

    def set_apart(self, opened: OpenQueue, error: Exception) -> None:
        opened.set_apart(self._loop, segments.explain(opened.queue.segment, error))
        self._log.error("queue set apart", queue=opened.name, segment=opened.queue.segment, why=opened.damage)

    # -- making ----------------------------------------------------------------------------------------------

    def new_queue(self, definition: QueueDefinition, connection_id: int, uid: int = 0) -> Queue:
        """A queue to declare, with a name if it has none. Raises ShmFull, ValueError for impossible sizes."""
        number = self.topology.free_number()
        if number >= QUEUES_MAX:
            raise ShmFull(f"this instance has {QUEUES_MAX} queues, which is all it can have")
        named = definition
        if not definition.name:
            named = policy.renamed(definition, GENERATED_PREFIX + secrets.token_urlsafe(16))
        geometry = policy.geometry_of(definition, self._effective_sizes())
        _core.segment_bytes(geometry)
        return Queue(
            queue_id=secrets.randbits(63) | 1,
            definition=named,
            exclusive_to=connection_id if definition.exclusive else 0,
            geometry=geometry,
            segment=segments.new_name(self.state.instance),
            number=number,
            uid=uid,
        )

    def _effective_sizes(self) -> policy.Sizes:
        if self._sizes.capacity_bytes:
            return self._sizes
        figures = os.statvfs(segments.SHM)
        return self._sizes._replace(capacity_bytes=figures.f_blocks * figures.f_frsize // SHM_SHARE)

    def _make_segment(self, queue: Queue) -> int:
        return segments.create(queue.segment, _core.segment_bytes(queue.geometry))

    def _prepare(self, opened: OpenQueue) -> None:
        opened.core.set_epoch(opened.bells.epoch)
        definition = opened.queue.definition
        opened.core.set_limits(**policy.limits_of(definition))  # type: ignore[arg-type] # warn: 0 or 1
        kept = definition.auto_delete and opened.core.brokered  # as in Consuming
        opened.core.set_brokered(kept or bool(policy.consumer_needs_broker(definition)))

    # -- changing --------------------------------------------------------------------------------------------

    def commit(self, events: Iterable[Event]) -> None:
        """Make events so, all of them or none: what dies in between leaves the topology before them or after them.

        Words are bumped first: no route compiled before lives on if we die behind the record.
        """
        made = list(events)
        for event in made:
            self._bump_words_for(event)
        deleted = [self.open[event.queue_id] for event in made if isinstance(event, QueueDeleted)]
        if made:
            self.state.record(*made, before_commit=functools.partial(self._mark_deleted, deleted))
        for event in made:
            if isinstance(event, QueueDeleted):
                self._delete(event)
            else:
                self._change(event)

    def declare_queue(self, queue: Queue) -> None:
        """Make a queue. Raises ShmFull, NotAllowed, InternalError; then nothing of it is left."""
        event = QueueDeclared(queue)
        self._bump_words_for(event)
        self.registry.open_bitmap(queue.number)
        self.state.record(event)
        opened: OpenQueue | None = None
        try:
            opened = OpenQueue(queue, Bells.make(self.epoch))
            opened.attach(self._make_segment(queue), self.owner, self.supervisor_bell, create=True)
            self._check_descriptors(opened)
            self._prepare(opened)
        except (OSError, ShmqError) as error:
            self.state.record(QueueDeleted(queue.queue_id))
            if opened is not None:
                opened.close(self._loop)
            segments.unlink(queue.segment)
            raise self._why_not_made(queue.name, error) from error
        self.open[queue.queue_id] = opened
        self.topology.apply(event)
        self.on_event(event)
        self._log.info("queue declared", queue=queue.name, segment=queue.segment, durable=queue.definition.durable)
        if queue.definition.queue_type == "quorum":
            self._log.info("a quorum queue of one host is a durable classic queue", queue=queue.name)

    def _check_descriptors(self, opened: OpenQueue) -> None:
        """The kernel gives the lowest number that is free: a high one says how many are in use."""
        if opened.core.bell_fd(_core.PRODUCERS) >= self._descriptors_max:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def _why_not_made(self, name: str, error: Exception) -> ShmqError:
        if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
            what = f"queue {name!r} can't be made: with {len(self.open)} queues shmqd has as many files open as it may"
            return NotAllowed(f"{what}. {RAISE_LIMIT}, or delete queues")
        return ShmFull(f"no shared memory for queue {name!r}: {error}")

    def _delete(self, event: QueueDeleted) -> None:
        opened = self.open.pop(event.queue_id)
        self.topology.apply(event)
        segments.unlink(opened.queue.segment)
        self.leaving = opened
        self.on_event(event)
        self.leaving = None
        opened.close(self._loop)
        self._log.info("queue deleted", queue=opened.name)

    def _change(self, event: Event) -> None:
        self.topology.apply(event)
        self.on_event(event)
        match event:
            case ExchangeDeclared(exchange=exchange):
                self._log.info("exchange declared", exchange=exchange.name, type=exchange.definition.type)
            case ExchangeDeleted(name=name):
                self._log.info("exchange deleted", exchange=name)

    def delete_queue(self, queue: Queue, *, consumers: int = 0, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue with its bindings. Returns how many ready messages went with it."""
        opened = self.open[queue.queue_id]
        ready = opened.core.stats()["ready"] if opened.usable else 0
        usage = Usage(consumers, ready)
        self.commit(self.topology.delete_queue(queue, usage, if_unused=if_unused, if_empty=if_empty))
        return ready

    def opened(self, name: str, connection_id: int) -> OpenQueue:
        """The queue of that name, for this connection. Raises NotFound, ResourceLocked."""
        return self.open[self.topology.queue(name, connection_id).queue_id]

    def _bump_words_for(self, event: Event) -> None:
        match event:
            case ExchangeDeclared(exchange=exchange) if exchange.word >= WORDS_MAX:
                raise ShmFull(f"this instance has {WORDS_MAX} exchanges, which is all it can have")
            case ExchangeDeclared(exchange=exchange):
                changed = exchange.name  # somebody's alternate exchange, perhaps
            case ExchangeDeleted(name=name):
                changed = name
            case Bound(binding=binding) | Unbound(binding=binding):
                changed = binding.source
            case QueueDeclared() | QueueDeleted():
                changed = DEFAULT_EXCHANGE  # as an alternate exchange; else a queue of its own changes no route
        for name in self.topology.router.upstream(changed) & self.topology.exchanges.keys():
            self.words.bump(self.topology.exchanges[name].word)

    @staticmethod
    def _mark_deleted(queues: Iterable[OpenQueue]) -> None:
        for opened in queues:
            if opened.usable:
                opened.core.mark_deleted()

    def mark_all_deleted(self) -> None:
        """Nobody works on in segments whose names are about to go."""
        self._mark_deleted(self.open.values())

    def close(self) -> None:
        """Segments stay; that is the point."""
        for opened in self.open.values():
            opened.close(self._loop)
        self.words.close()
        os.close(self.words_fd)
        self.presence.close()
        self.registry.close()
        self.state.close()
