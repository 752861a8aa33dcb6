"""The topology: exchanges, bindings and queues by name, changed by events alone.

Owns: what follows from a declaration, a deletion, a binding (the events), and the errors of AMQP that stand against
it.
Does not own: sockets, segments, clocks, memory of it (state.py). Broker and supervisor each hold one, fed the same
events.
Invariants: `apply` never fails on an event that a method here returned; bindings go before what they hang on.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from shmq.definitions import ExchangeDefinition, check_exchange, exchange_difference
from shmq.errors import AccessRefused, NotFound, PreconditionFailed, ResourceLocked
from shmq_daemon.events import (
    DEFAULT_EXCHANGE,
    Binding,
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
from shmq_daemon.policy import check_exchange_kept, check_unreserved

PREDECLARED: Final = (Exchange(definition=ExchangeDefinition("amq.direct", durable=True), word=0),)


class Usage(NamedTuple):
    """What `if_unused` and `if_empty` look at."""

    consumers: int
    ready: int


class Topology:
    """What exists, by name."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.queues_by_id: dict[int, Queue] = {}
        self.exchanges: dict[str, Exchange] = {exchange.name: exchange for exchange in PREDECLARED}
        self._from: dict[str, dict[str, set[Binding]]] = {}  # source -> routing key -> bindings
        self._to: dict[tuple[bool, str], set[Binding]] = {}  # destination -> bindings

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

    def bound(self, source: str, routing_key: str) -> frozenset[Binding] | set[Binding]:
        """The bindings that a direct exchange follows for a key."""
        return self._from.get(source, {}).get(routing_key, frozenset())

    def bindings(self) -> Iterator[Binding]:
        for by_key in self._from.values():
            for bindings in by_key.values():
                yield from bindings

    def exclusive_to(self, connection_id: int) -> list[Queue]:
        return [queue for queue in self.queues.values() if queue.exclusive_to == connection_id]

    def upstream(self, name: str) -> set[str]:
        """An exchange and every exchange from which a message can come to it: whose routes a change here changes."""
        found, left = {name}, [name]
        while left:
            for binding in self._to.get((True, left.pop()), ()):
                if binding.source not in found:
                    found.add(binding.source)
                    left.append(binding.source)
        return found

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
        """No events: it is there already, and equal. Raises PreconditionFailed and its kin, NotSupported."""
        if definition.name == DEFAULT_EXCHANGE:
            raise _default_exchange_refused()
        check_exchange(definition)
        existing = self.exchanges.get(definition.name)
        if existing is None:
            check_unreserved("exchange", definition.name)
            check_exchange_kept(definition)
            return [ExchangeDeclared(Exchange(definition=definition, word=self.free_word()))]
        difference = exchange_difference(existing.definition, definition)
        if difference is not None:
            raise difference
        return []

    def delete_exchange(self, name: str, *, if_unused: bool) -> list[Event]:
        if name == DEFAULT_EXCHANGE:
            raise _default_exchange_refused()
        self.exchange(name)
        check_unreserved("exchange", name)
        outgoing = list(self.outgoing(name))
        if if_unused and outgoing:
            raise PreconditionFailed(f"exchange {name!r} is in use: it has {len(outgoing)} bindings. Unbind them first")
        gone = [*outgoing, *self._to.get((True, name), ())]
        return [*map(Unbound, gone), ExchangeDeleted(name), *self._orphans(gone, besides=name)]

    def delete_queue(
        self, queue: Queue, usage: Usage, *, if_unused: bool = False, if_empty: bool = False
    ) -> list[Event]:
        if if_unused and usage.consumers:
            raise PreconditionFailed(f"queue {queue.name!r} is in use: {usage.consumers} consumers")
        if if_empty and usage.ready:
            raise PreconditionFailed(f"queue {queue.name!r} is not empty: {usage.ready} messages are ready")
        gone = list(self._to.get((False, queue.name), ()))
        return [*map(Unbound, gone), QueueDeleted(queue.queue_id), *self._orphans(gone)]

    def bind(self, binding: Binding, connection_id: int) -> list[Event]:
        """No events: it is there already."""
        self._check_ends(binding, connection_id)
        return [] if binding in self.bound(binding.source, binding.routing_key) else [Bound(binding)]

    def unbind(self, binding: Binding, connection_id: int) -> list[Event]:
        """No events: it was not there, which AMQP calls fine."""
        self._check_ends(binding, connection_id)
        if binding not in self.bound(binding.source, binding.routing_key):
            return []
        return [Unbound(binding), *self._orphans([binding])]

    def _check_ends(self, binding: Binding, connection_id: int) -> None:
        if DEFAULT_EXCHANGE in (binding.source, binding.destination if binding.to_exchange else None):
            raise _default_exchange_refused()
        self.exchange(binding.source)
        if binding.to_exchange:
            self.exchange(binding.destination)
        else:
            self.queue(binding.destination, connection_id)

    def outgoing(self, name: str) -> Iterator[Binding]:
        for bindings in self._from.get(name, {}).values():
            yield from bindings

    def _orphans(self, gone: list[Binding], besides: str = "") -> Iterator[Event]:
        """Exchanges that delete themselves because these were their last bindings as source, and so on up."""
        unbound, ended = set(gone), {besides}
        left = sorted({binding.source for binding in gone})
        while left:
            name = left.pop(0)
            auto = name not in ended and self.exchanges[name].definition.auto_delete
            if not auto or set(self.outgoing(name)) - unbound:
                continue
            ended.add(name)
            incoming = self._to.get((True, name), set()) - unbound
            unbound |= incoming
            left.extend(sorted({binding.source for binding in incoming}))
            yield from map(Unbound, incoming)
            yield ExchangeDeleted(name)

    # -- changing ---------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        match event:
            case QueueDeclared(queue=queue):
                self.queues[queue.name] = self.queues_by_id[queue.queue_id] = queue
            case QueueDeleted(queue_id=queue_id):
                self.queues.pop(self.queues_by_id.pop(queue_id).name, None)
            case ExchangeDeclared(exchange=exchange):
                self.exchanges[exchange.name] = exchange
            case ExchangeDeleted(name=name):
                self.exchanges.pop(name, None)
            case Bound(binding=binding):
                self._from.setdefault(binding.source, {}).setdefault(binding.routing_key, set()).add(binding)
                self._to.setdefault(_destination(binding), set()).add(binding)
            case Unbound(binding=binding):
                self._unbind(binding)

    def _unbind(self, binding: Binding) -> None:
        by_key = self._from.get(binding.source, {})
        _discard(by_key, binding.routing_key, binding)
        if not by_key:
            self._from.pop(binding.source, None)
        _discard(self._to, _destination(binding), binding)


def _destination(binding: Binding) -> tuple[bool, str]:
    return binding.to_exchange, binding.destination


def _discard(bindings: dict[Any, set[Binding]], key: object, binding: Binding) -> None:
    left = bindings.get(key, set())
    left.discard(binding)
    if not left:
        bindings.pop(key, None)


def _default_exchange_refused() -> AccessRefused:
    reason = "every queue is bound to it by its name; it can't be declared, deleted or bound"
    return AccessRefused(f"the default exchange: {reason}", what="the default exchange", reason=reason)
