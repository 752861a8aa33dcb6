"""The frames of the topology and of direct mode: declared, bound, deleted, attached.

Owns: the answers, the limits of a uid. Does not own: who may do that to what (gate.py), the rules (topology.py), the
memory (catalog.py).
Invariants: that a client has a queue is in the registry before its descriptors are in the socket; no queue is refused
for want of memory that comes back in this moment.
"""

from collections.abc import Callable
from typing import Any, Final

from shmq.core import _core
from shmq.definitions import QueueDefinition, check_queue, queue_difference
from shmq.errors import DirectRefused, InvalidArgument, PreconditionFailed, ShmFull
from shmq.names import check_exchange_name, check_routing_key
from shmq.routing.bindings import Binding, encode_arguments, info_of
from shmq.routing.compiled import Compiled, compile_route, compile_whole
from shmq.routing.router import DEFAULT_EXCHANGE, Route
from shmq.wire import frames as wire
from shmq_daemon import policy, segments
from shmq_daemon.catalog import Catalog
from shmq_daemon.clients import Client
from shmq_daemon.descriptors import closed_on_failure, copies
from shmq_daemon.events import Queue
from shmq_daemon.opened import OpenQueue
from shmq_daemon.permissions import Access
from shmq_daemon.releases import Releases
from shmq_daemon.replies import is_for_replies
from shmq_daemon.routing import check_may_publish

Bind = wire.BindQueue | wire.BindExchange
Unbind = wire.UnbindQueue | wire.UnbindExchange

ROUTED_EXCHANGES_MAX: Final = 1024
ROUTED_BYTES_MAX: Final = 512 << 10  # of what a client follows by itself; what is longer stays with the broker


class Control:
    """Answers what needs no waiting."""

    def __init__(self, catalog: Catalog, releases: Releases) -> None:
        self._catalog = catalog
        self._releases = releases

    def table(self) -> dict[type, Callable[[Client, Any], None]]:
        return {
            wire.DeclareQueue: self.on_declare_queue,
            wire.DeleteQueue: self.on_delete_queue,
            wire.PurgeQueue: self.on_purge_queue,
            wire.DeclareExchange: self.on_declare_exchange,
            wire.DeleteExchange: self.on_delete_exchange,
            wire.BindQueue: self.on_bind,
            wire.UnbindQueue: self.on_unbind,
            wire.BindExchange: self.on_bind,
            wire.UnbindExchange: self.on_unbind,
            wire.Attach: self.on_attach,
            wire.RenewBells: self.on_renew_bells,
            wire.Detach: self.on_detach,
            wire.Route: self.on_route,
        }

    # -- topology ---------------------------------------------------------------------------------------------

    def on_declare_queue(self, client: Client, frame: wire.DeclareQueue) -> None:
        if frame.passive:
            opened = self._catalog.opened(frame.definition.name, client.connection_id)
        else:
            try:
                opened = self._declare(client, check_queue(frame.definition))
            except ShmFull:
                if self._releases.postpone(client.session, frame):
                    return
                raise
        opened.used()
        ready = opened.core.stats()["ready"]
        _answer(client, wire.QueueDeclared(frame.seq, opened.name, ready, len(opened.consumers)))

    def _declare(self, client: Client, definition: QueueDefinition) -> OpenQueue:
        if definition.name in self._catalog.topology.queues:
            opened = self._catalog.opened(definition.name, client.connection_id)
            difference = queue_difference(opened.queue.definition, definition) or _exclusive_difference(
                opened, definition
            )
            if difference is not None:
                raise difference
            return opened
        policy.check_unreserved("queue", definition.name)
        return self.make(client, definition)

    def make(self, client: Client, definition: QueueDefinition) -> OpenQueue:
        """Make a queue, within the limits of the client's uid."""
        try:
            queue = self._catalog.new_queue(definition, client.connection_id, client.uid)
        except ValueError as error:
            raise InvalidArgument(f"queue {definition.name!r} can't be made: {error}") from error
        self._check_limits(client.access, queue)
        self._catalog.declare_queue(queue)
        return self._catalog.open[queue.queue_id]

    def _check_limits(self, access: Access, queue: Queue) -> None:
        """Raises NotAllowed for a queue too many, or too large, of this uid."""
        if access.limits.queues is None and access.limits.bytes is None:
            return
        declared = [_core.segment_bytes(other.geometry) for other in self._catalog.topology.declared_by(queue.uid)]
        access.check_queues(len(declared))
        access.check_bytes(sum(declared), _core.segment_bytes(queue.geometry))

    def on_delete_queue(self, client: Client, frame: wire.DeleteQueue) -> None:
        count = 0
        if frame.queue in self._catalog.topology.queues:
            opened = self._catalog.opened(frame.queue, client.connection_id)
            count = self._catalog.delete_queue(
                opened.queue, consumers=len(opened.consumers), if_unused=frame.if_unused, if_empty=frame.if_empty
            )
        _answer(client, wire.Counted(frame.seq, count))

    def on_purge_queue(self, client: Client, frame: wire.PurgeQueue) -> None:
        opened = self._catalog.opened(frame.queue, client.connection_id)
        _answer(client, wire.Counted(frame.seq, opened.core.purge()))

    def on_declare_exchange(self, client: Client, frame: wire.DeclareExchange) -> None:
        topology = self._catalog.topology
        if not frame.passive:
            self._catalog.commit(topology.declare_exchange(frame.definition))
        else:
            topology.exchange(check_exchange_name(frame.definition.name))
        _answer(client, wire.Ok(frame.seq))

    def on_delete_exchange(self, client: Client, frame: wire.DeleteExchange) -> None:
        self._catalog.commit(self._catalog.topology.delete_exchange(frame.exchange, if_unused=frame.if_unused))
        _answer(client, wire.Ok(frame.seq))

    def on_bind(self, client: Client, frame: Bind) -> None:
        self._catalog.commit(self._catalog.topology.bind(_binding(frame), client.connection_id))
        _answer(client, wire.Ok(frame.seq))

    def on_unbind(self, client: Client, frame: Unbind) -> None:
        self._catalog.commit(self._catalog.topology.unbind(_binding(frame), client.connection_id))
        _answer(client, wire.Ok(frame.seq))

    # -- direct mode ------------------------------------------------------------------------------------------

    def on_attach(self, client: Client, frame: wire.Attach) -> None:
        opened = self._direct(client, frame.queue)
        queue = opened.queue
        self._catalog.registry.mark(queue.number, client.owner)
        answer = wire.Attached(
            frame.seq,
            queue.definition,
            queue.queue_id,
            queue.geometry,
            opened.bells.epoch,
            policy.delivery_limit_of(queue.definition),
            policy.ttl_ns_of(queue.definition, -1),
        )
        descriptors = [segments.open_existing(queue.segment)]
        with closed_on_failure(descriptors):
            descriptors += copies(*opened.bells[:2])
        _answer(client, answer, tuple(descriptors))

    def on_renew_bells(self, client: Client, frame: wire.RenewBells) -> None:
        opened = self._direct(client, frame.queue)
        answer = wire.Bells(frame.seq, opened.queue.queue_id, opened.bells.epoch)
        _answer(client, answer, copies(*opened.bells[:2]))

    def on_detach(self, client: Client, frame: wire.Detach) -> None:
        """The registry keeps the mark: it says what a client ever had, and the reap asks that."""
        self._catalog.topology.queue(frame.queue, client.connection_id)
        _answer(client, wire.Ok(frame.seq))

    def on_route(self, client: Client, frame: wire.Route) -> None:
        topology, exchange = self._catalog.topology, frame.exchange
        check_may_publish(topology, exchange)
        words = []
        compiled = None
        if exchange != DEFAULT_EXCHANGE:
            index = topology.exchange(exchange).word
            words.append((index, self._catalog.words[index]))
            compiled = compile_whole(topology.router, exchange)
        if compiled is None or not self._may_be_direct(client, compiled):
            compiled = compile_route(topology.router, exchange, (frame.routing_key, *frame.more_keys))
        direct = self._may_be_direct(client, compiled)
        _answer(
            client,
            _routed(frame.seq, compiled if direct else Compiled(Route(), compiled.any_key), words, direct=direct),
        )

    def _may_be_direct(self, client: Client, compiled: Compiled) -> bool:
        """Whether a client may follow it by itself into all its queues, and may know of the exchanges on the way."""
        if not client.direct or len(compiled.exchanges) > ROUTED_EXCHANGES_MAX or compiled.bytes > ROUTED_BYTES_MAX:
            return False
        access = client.access
        if not all(access.sees(exchange.name) for exchange in compiled.exchanges):
            return False
        queues = map(self._catalog.topology.queues.__getitem__, compiled.queues)
        return not any(access.why_not_direct(queue.name) for queue in queues)

    def _direct(self, client: Client, name: str) -> OpenQueue:
        opened = self._catalog.opened(name, self._owner_of(name, client))
        reason = self.why_not_direct(client, opened)
        if reason:
            raise DirectRefused(queue=name, reason=reason)
        return opened

    def _owner_of(self, name: str, client: Client) -> int:
        """Who was told the name of a queue for replies may write there, though it is another's."""
        queue = self._catalog.topology.queues.get(name) if is_for_replies(name) else None
        return client.connection_id if queue is None else queue.exclusive_to

    @staticmethod
    def why_not_direct(client: Client, opened: OpenQueue) -> str:
        if reason := client.access.why_not_direct(opened.name):
            return reason
        if not client.direct:
            return "this connection is in socket mode"
        if not opened.usable:
            return f"the queue is set apart: {opened.damage}"
        return ""

    @staticmethod
    def why_not_consumed(client: Client, opened: OpenQueue) -> str:
        """Why a client can't take from the segment itself."""
        if reason := Control.why_not_direct(client, opened):
            return reason
        if reason := policy.consumer_needs_broker(opened.queue.definition):
            return reason
        return policy.DECIDES if opened.core.brokered else ""


def _exclusive_difference(opened: OpenQueue, definition: QueueDefinition) -> PreconditionFailed | None:
    there, asked = opened.queue.definition.exclusive, definition.exclusive
    if there == asked:
        return None
    return PreconditionFailed(kind="queue", name=opened.name, argument="exclusive", declared=there, asked=asked)


def _binding(frame: Bind | Unbind) -> Binding:
    """Raises InvalidName, InvalidArgument."""
    check_routing_key(frame.routing_key)
    if isinstance(frame, wire.BindExchange | wire.UnbindExchange):
        source, destination, to_exchange = frame.source, frame.destination, True
    else:
        source, destination, to_exchange = frame.exchange, frame.queue, False
    return Binding(
        source=source,
        destination=destination,
        to_exchange=to_exchange,
        routing_key=frame.routing_key,
        arguments=encode_arguments(frame.arguments),
    )


def _routed(seq: int, compiled: Compiled, words: list[tuple[int, int]], *, direct: bool) -> wire.Routed:
    bindings = [info_of(binding) for binding in compiled.bindings]
    queues, delayed = map(list, compiled.route)
    exchanges = list(compiled.exchanges)
    return wire.Routed(seq, queues, words, direct, delayed, exchanges, bindings, compiled.any_key)


def _answer(client: Client, frame: wire.BrokerFrame, descriptors: tuple[int, ...] = ()) -> None:
    if client.session is not None:
        client.session.send(frame, descriptors)
