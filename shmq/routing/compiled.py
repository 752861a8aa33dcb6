"""Routes that a direct client keeps: what is left to decide for one exchange, when the keys are known or for all keys.

Owns: what the broker tells a client, and what the client makes of it. Does not own: how long it holds (generation
words), the frames.
What is told is one of three:
- a route, where neither keys nor headers are read on the way, or where the keys alone decide;
- all that can be reached, where that is little: the client walks this graph by the same Router, and asks no more,
  whatever keys and headers come;
- else, where headers decide, what is left for some keys: exchanges that match by keys have only the bindings that
  matched, as if they were fanouts; those that compare headers have theirs whole.
So a key, or headers, that never come twice cost a walk and no question, but for keys at an exchange of many bindings.
Invariant: a graph routes any headers as the router that it was made from routes them, with its keys or with any.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from shmq.definitions import DELAYED, ExchangeDefinition
from shmq.routing.bindings import Binding, Destination
from shmq.routing.matchers import HEADERS, effective_type
from shmq.routing.router import DEFAULT_EXCHANGE, NO_HEADERS, Node, Route, Router

FANOUT: Final = "fanout"
KEYLESS: Final = (FANOUT, HEADERS)
WHOLE_BINDINGS_MAX: Final = 256  # about 10 KiB: told anew after each change, so it must cost no more than a few routes
ANY_KEYS: Final = ("",)

_encode = msgspec.msgpack.Encoder().encode


class Compiled(NamedTuple):
    """A route; or, with exchanges, the graph. Then `route.queues` are those that the default exchange has for the keys.
    `any_key`: it is the same for all keys.
    """

    route: Route
    any_key: bool
    exchanges: tuple[ExchangeDefinition, ...] = ()
    bindings: tuple[Binding, ...] = ()

    @property
    def bytes(self) -> int:
        """About how long it is on the wire, rather too long than too short."""
        return len(_encode(self))

    @property
    def queues(self) -> set[str]:
        """All queues that a message may go to."""
        bound = {binding.destination for binding in self.bindings if not binding.to_exchange}
        return bound.union(self.route.queues, self.route.delayed)


def compile_whole(router: Router, exchange: str) -> Compiled | None:
    """Return what decides about all messages to this exchange; None: it is too much. Raises NotFound."""
    nodes = list(map(router.node, {exchange} | router.downstream(exchange)))
    if sum(len(node.bindings) for node in nodes) > WHOLE_BINDINGS_MAX or _ends_by_name(nodes):
        return None
    if not _reads_keys(nodes) and not router.reads_headers(exchange):
        return Compiled(router.route(exchange, ANY_KEYS), any_key=True)
    definitions = (msgspec.structs.replace(node.definition, other={}) for node in nodes)
    bindings = (binding for node in nodes for binding in node.bindings)
    return Compiled(Route(), any_key=True, exchanges=tuple(definitions), bindings=tuple(bindings))


def compile_route(router: Router, exchange: str, keys: tuple[str, ...]) -> Compiled:
    """Return what is left to decide about messages to this exchange with these keys. Raises NotFound."""
    if exchange == DEFAULT_EXCHANGE:
        return Compiled(router.route(exchange, keys), any_key=False)
    any_key = not _reads_keys(map(router.node, router.downstream(exchange)))
    if not router.reads_headers(exchange):
        return Compiled(router.route(exchange, keys), any_key)
    nodes, bindings = _reached(router, exchange, keys)
    if not any(node.compares_headers for node in nodes):
        return Compiled(router.route(exchange, keys), any_key)
    by_name = router.route(DEFAULT_EXCHANGE, keys) if _ends_by_name(nodes) else Route()
    return Compiled(by_name, any_key, tuple(map(_definition, nodes)), tuple(bindings))


def _reads_keys(nodes: Iterable[Node]) -> bool:
    """Whether the keys of a message decide where it goes from one of these exchanges."""
    reached = list(nodes)
    return _ends_by_name(reached) or any(effective_type(node.definition) not in KEYLESS for node in reached)


def _ends_by_name(nodes: Iterable[Node]) -> bool:
    """Whether one of these exchanges has the default exchange for what matches nothing."""
    return any(node.definition.alternate_exchange == DEFAULT_EXCHANGE for node in nodes)


def _reached(router: Router, exchange: str, keys: tuple[str, ...]) -> tuple[list[Node], list[Binding]]:
    """The exchanges that a message with these keys may come to, and the bindings that may lead it on."""
    nodes: list[Node] = []
    bindings: list[Binding] = []
    seen, left = {exchange}, [exchange]
    while left:
        node = router.get(left.pop())
        if node is None:
            continue
        nodes.append(node)
        kept = list(_kept(node, keys))
        bindings += kept
        nexts = {binding.destination for binding in kept if binding.to_exchange}
        if node.compares_headers or not kept:
            nexts |= {node.definition.alternate_exchange or exchange}
        left += nexts - seen
        seen |= nexts
    return nodes, bindings


def router_of(queues: Iterable[str], exchanges: Iterable[ExchangeDefinition], bindings: Iterable[Binding]) -> Router:
    """Return the graph that was compiled, as what routes by it."""
    router = Router()
    for exchange in exchanges:
        router.add_exchange(exchange)
    for name in queues:
        router.add_queue(name)
    for binding in bindings:
        router.bind(binding)
    return router


def _kept(node: Node, keys: tuple[str, ...]) -> Iterable[Binding]:
    """The bindings that may lead further with these keys."""
    if node.compares_headers:
        return node.bindings
    return (_bare(node.definition.name, leads_to) for leads_to in node.matcher.match(keys, NO_HEADERS))


def _bare(source: str, destination: Destination) -> Binding:
    return Binding(source=source, destination=destination.name, to_exchange=destination.to_exchange)


def _definition(node: Node) -> ExchangeDefinition:
    kind = HEADERS if node.compares_headers else FANOUT
    return ExchangeDefinition(
        node.definition.name,
        DELAYED if node.delays else kind,
        alternate_exchange=node.definition.alternate_exchange,
        delayed_type=kind if node.delays else None,
    )
