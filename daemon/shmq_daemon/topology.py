"""The topology: exchanges, bindings and queues by name, changed by events alone.

Owns: what follows from a declaration, a deletion, a binding (the events), and the errors of AMQP that stand against
it.
Does not own: where messages go (shmq.routing, whose router it keeps), sockets, segments, clocks, memory of it
(state.py). Broker and supervisor each hold one, fed the same events.
Invariants: `apply` never fails on an event that a method here returned; bindings go before what they hang on.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from shmq.definitions import ExchangeDefinition, check_exchange, exchange_difference
from shmq.errors import NotFound, PreconditionFailed, ResourceLocked
from shmq.names import check_exchange_name
from shmq.routing.bindings import Binding, Destination, decode_arguments
from shmq.routing.headers import check_match
from shmq.routing.matchers import HEADERS, effective_type
from shmq.routing.router import Router
from shmq_daemon.events import (
    Bound,
    Event,
    Exchange,
    ExchangeDeclared,
    ExchangeDeleted,
    Queue,
    QueueDeclared,
    QueueDeleted,
    Unbound,
)
from shmq_daemon.policy import check_unreserved

PREDECLARED: Final = tuple(
    Exchange(definition=ExchangeDefinition(f"amq.{name}", kind, durable=True), word=word)
    for word, (name, kind) in enumerate(
        [("direct", "direct"), ("fanout", "fanout"), ("topic", "topic"), ("headers", "headers"), ("match", "headers")]
    )
)


class Usage(NamedTuple):
    """What `if_unused` and `if_empty` look at."""

    consumers: int
    ready: int


class Topology:
    """What exists, by name."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.queues_by_id: dict[int, Queue] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.router = Router()
        for exchange in PREDECLARED:
            self.apply(ExchangeDeclared(exchange))

    # -- looking ----------------------------------------------------------------------------------------------

    def queue(self, name: str, connection_id: int = 0) -> Queue:
        """Raises NotFound; ResourceLocked if it is exclusive to another connection."""
        found = self.queues.get(name)
        if found is None:
            raise NotFound(kind="queue", name=name)
        if found.exclusive_to not in (0, connection_id):
            raise ResourceLocked(queue=name)
        return found

    def exchange(self, name: str) -> Exchange:
        """Raises NotFound, also for the default exchange, which cannot be changed."""
        if name not in self.exchanges:
            raise NotFound(kind="exchange", name=name)
        return self.exchanges[name]

    def exclusive_to(self, connection_id: int) -> list[Queue]:
        return [queue for queue in self.queues.values() if queue.exclusive_to == connection_id]

    def declared_by(self, uid: int) -> list[Queue]:
        return [queue for queue in self.queues.values() if queue.uid == uid]

    def free_word(self) -> int:
        """The lowest generation word that no exchange has."""
        taken = {exchange.word for exchange in self.exchanges.values()}
        return next(word for word in range(len(taken) + 1) if word not in taken)

    def free_number(self) -> int:
        """The lowest registry bitmap that no queue has."""
        taken = {queue.number for queue in self.queues.values()}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    # -- deciding: what would happen --------------------------------------------------------------------------

    def declare_exchange(self, definition: ExchangeDefinition) -> list[Event]:
        """No events: it is there already, and equal. Raises PreconditionFailed and its kin, AccessRefused."""
        check_exchange(definition)
        existing = self.exchanges.get(definition.name)
        if existing is None:
            check_unreserved("exchange", definition.name)
            return [ExchangeDeclared(Exchange(definition=definition, word=self.free_word()))]
        difference = exchange_difference(existing.definition, definition)
        if difference is not None:
            raise difference
        return []

    def delete_exchange(self, name: str, *, if_unused: bool) -> list[Event]:
        """No events: it was not there, which RabbitMQ calls fine, as it does for queues and bindings ("AMQP 0-9-1
        specification errata": methods that make sure that something is not there).
        """
        check_exchange_name(name)
        check_unreserved("exchange", name)
        if name not in self.exchanges:
            return []
        outgoing = self.router.outgoing(name)
        if if_unused and outgoing:
            raise PreconditionFailed(f"exchange {name!r} is in use: it has {len(outgoing)} bindings. Unbind them first")
        gone = list(outgoing | self.router.leading_to(Destination(to_exchange=True, name=name)))
        return [*map(Unbound, gone), ExchangeDeleted(name), *self._orphans(gone, besides=name)]

    def delete_queue(
        self, queue: Queue, usage: Usage, *, if_unused: bool = False, if_empty: bool = False
    ) -> list[Event]:
        if if_unused and usage.consumers:
            raise PreconditionFailed(f"queue {queue.name!r} is in use: {usage.consumers} consumers")
        if if_empty and usage.ready:
            raise PreconditionFailed(f"queue {queue.name!r} is not empty: {usage.ready} messages are ready")
        gone = list(self.router.leading_to(Destination(to_exchange=False, name=queue.name)))
        return [*map(Unbound, gone), QueueDeleted(queue.queue_id), *self._orphans(gone)]

    def bind(self, binding: Binding, connection_id: int) -> list[Event]:
        """No events: it is there already. Raises InvalidArgument for arguments that the source can't keep."""
        self._check_ends(binding, connection_id)
        if effective_type(self.exchange(binding.source).definition) == HEADERS:
            check_match(decode_arguments(binding.arguments))
        return [] if binding in self.router.outgoing(binding.source) else [Bound(binding)]

    def unbind(self, binding: Binding, connection_id: int) -> list[Event]:
        """No events: it was not there, nor had its ends to be."""
        _check_no_default(binding)
        if not binding.to_exchange and binding.destination in self.queues:
            self.queue(binding.destination, connection_id)
        if binding.source not in self.exchanges or binding not in self.router.outgoing(binding.source):
            return []
        return [Unbound(binding), *self._orphans([binding])]

    def _check_ends(self, binding: Binding, connection_id: int) -> None:
        _check_no_default(binding)
        self.exchange(binding.source)
        if binding.to_exchange:
            self.exchange(binding.destination)
        else:
            self.queue(binding.destination, connection_id)

    def _orphans(self, gone: list[Binding], besides: str = "") -> Iterator[Event]:
        """Exchanges that delete themselves because these were their last bindings as source, and so on up."""
        unbound, ended = set(gone), {besides}
        left = sorted({binding.source for binding in gone})
        while left:
            name = left.pop(0)
            auto = name not in ended and self.exchanges[name].definition.auto_delete
            if not auto or self.router.outgoing(name) - unbound:
                continue
            ended.add(name)
            incoming = self.router.leading_to(Destination(to_exchange=True, name=name)) - unbound
            unbound |= incoming
            left.extend(sorted({binding.source for binding in incoming}))
            yield from map(Unbound, incoming)
            yield ExchangeDeleted(name)

    # -- changing ---------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        match event:
            case QueueDeclared(queue=queue):
                self.queues[queue.name] = self.queues_by_id[queue.queue_id] = queue
                self.router.add_queue(queue.name)
            case QueueDeleted(queue_id=queue_id):
                name = self.queues_by_id.pop(queue_id).name
                self.queues.pop(name, None)
                self.router.remove_queue(name)
            case ExchangeDeclared(exchange=exchange):
                self.exchanges[exchange.name] = exchange
                self.router.add_exchange(exchange.definition)
            case ExchangeDeleted(name=name):
                self.exchanges.pop(name, None)
                self.router.remove_exchange(name)
            case Bound(binding=binding):
                self.router.bind(binding)
            case Unbound(binding=binding):
                self.router.unbind(binding)


def _check_no_default(binding: Binding) -> None:
    """Raise AccessRefused where an end is the default exchange."""
    check_exchange_name(binding.source, "source")
    if binding.to_exchange:
        check_exchange_name(binding.destination, "destination")
