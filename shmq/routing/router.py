"""The graph of exchanges and bindings, and the walk of a message through it.

Owns: bindings by source and by destination, the walk, what it remembers of earlier walks. Does not own: whether
something may be declared or bound, what a queue is beyond its name.
Rules (RabbitMQ): each exchange is passed once, so a cycle ends; where no binding of an exchange matched, the message
goes to its alternate exchange, if there is one, which counts as routed if that routes it; a queue gets one copy.
Invariants: what is remembered at an exchange is dropped when a binding changes there, or anywhere that a message could
come to from there, and by nothing else. No change fails; one that changes nothing is let pass.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from shmq.definitions import DELAYED, ExchangeDefinition
from shmq.errors import NotFound
from shmq.routing.bindings import Binding, Destination
from shmq.routing.matchers import HEADERS, count_down, effective_type, new_matcher

DEFAULT_EXCHANGE: Final = ""  # every queue is bound to it by its name
REMEMBERED_MAX: Final = 20_000  # routes; then all of them are forgotten: keys may never come again
KEYS_REMEMBERED_MAX: Final = 8  # of one message; more are walked each time: there is no end of lists in CC
NO_HEADERS: Final[Mapping[str, Any]] = {}


class Route(NamedTuple):
    """The names of the queues, sorted; `delayed`: those that only an x-delayed-message exchange leads to."""

    queues: tuple[str, ...] = ()
    delayed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.queues or self.delayed)


class Node:
    """One exchange with the bindings that start there."""

    def __init__(self, definition: ExchangeDefinition) -> None:
        self.definition = definition
        self.matcher = new_matcher(definition)
        self.bindings: set[Binding] = set()
        self.feeds: Counter[str] = Counter()  # exchanges, by the number of bindings that lead there
        self.remembered: dict[tuple[str, ...], Route] = {}
        self.reads_headers: bool | None = None  # None: not known

    @property
    def compares_headers(self) -> bool:
        return effective_type(self.definition) == HEADERS

    @property
    def delays(self) -> bool:
        return self.definition.type == DELAYED

    def forget(self) -> None:
        self.remembered.clear()
        self.reads_headers = None


class Router:
    """Exchanges, bindings and the names of queues."""

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self._nodes: dict[str, Node] = {}
        self._remembered = 0  # at most so many routes
        self._leading_to: dict[Destination, set[Binding]] = {}
        self._fed_by: dict[str, Counter[str]] = {}  # the same from the other end
        self._alternate_of: dict[str, set[str]] = {}  # exchange -> those that name it as their alternate

    # -- changing ---------------------------------------------------------------------------------------------

    def add_queue(self, name: str) -> None:
        self.queues.add(name)
        self._forget_upstream(DEFAULT_EXCHANGE)

    def remove_queue(self, name: str) -> None:
        self.queues.discard(name)
        self._forget_upstream(DEFAULT_EXCHANGE)

    def add_exchange(self, definition: ExchangeDefinition) -> None:
        """What is there already keeps its bindings."""
        if definition.name in self._nodes:
            return
        self._nodes[definition.name] = Node(definition)
        if definition.alternate_exchange is not None:
            self._alternate_of.setdefault(definition.alternate_exchange, set()).add(definition.name)
        self._forget_upstream(definition.name)

    def remove_exchange(self, name: str) -> None:
        """Its bindings went before it."""
        self._forget_upstream(name)
        node = self._nodes.pop(name, None)
        if node is not None and (alternate := node.definition.alternate_exchange) is not None:
            _discard(self._alternate_of, alternate, name)

    def bind(self, binding: Binding) -> None:
        node = self._nodes.get(binding.source)
        if node is None or binding in node.bindings:
            return
        node.bindings.add(binding)
        node.matcher.add(binding)
        self._leading_to.setdefault(binding.leads_to, set()).add(binding)
        if binding.to_exchange:
            node.feeds[binding.destination] += 1
            self._fed_by.setdefault(binding.destination, Counter())[binding.source] += 1
        self._forget_upstream(binding.source)

    def unbind(self, binding: Binding) -> None:
        node = self._nodes.get(binding.source)
        if node is None or binding not in node.bindings:
            return
        self._forget_upstream(binding.source)
        node.bindings.discard(binding)
        node.matcher.discard(binding)
        _discard(self._leading_to, binding.leads_to, binding)
        if binding.to_exchange:
            count_down(node.feeds, binding.destination)
            fed_by = self._fed_by[binding.destination]
            count_down(fed_by, binding.source)
            if not fed_by:
                del self._fed_by[binding.destination]

    def _forget_upstream(self, name: str) -> None:
        for upstream in self.upstream(name):
            if upstream in self._nodes:
                self._nodes[upstream].forget()

    # -- looking ----------------------------------------------------------------------------------------------

    def outgoing(self, exchange: str) -> AbstractSet[Binding]:
        """The bindings that start at an exchange."""
        node = self._nodes.get(exchange)
        return node.bindings if node is not None else frozenset()

    def leading_to(self, destination: Destination) -> AbstractSet[Binding]:
        return self._leading_to.get(destination, frozenset())

    def bindings(self) -> Iterator[Binding]:
        for node in self._nodes.values():
            yield from node.bindings

    def upstream(self, name: str) -> set[str]:
        """An exchange, there or not, and each that passes messages on to it: a change here changes their routes."""
        found, left = {name}, [name]
        while left:
            current = left.pop()
            sources = self._alternate_of.get(current, set()).union(self._fed_by.get(current, ()))
            left.extend(sources - found)
            found |= sources
        return found

    def downstream(self, exchange: str) -> set[str]:
        """An exchange and each that a message can come to from it; those that are there."""
        found, left = {exchange}, [exchange]
        while left:
            node = self._nodes.get(left.pop())
            if node is None:
                continue
            nexts = {node.definition.alternate_exchange or exchange, *node.feeds}
            left.extend(nexts - found)
            found |= nexts
        return found & self._nodes.keys()

    def get(self, exchange: str) -> Node | None:
        return self._nodes.get(exchange)

    def node(self, exchange: str) -> Node:
        """Raises NotFound, also for the default exchange, which has no bindings of its own."""
        node = self._nodes.get(exchange)
        if node is None:
            raise NotFound(kind="exchange", name=exchange)
        return node

    def reads_headers(self, exchange: str) -> bool:
        """Whether the headers of a message decide where it goes from here, or when. Raises NotFound."""
        if exchange == DEFAULT_EXCHANGE:
            return False
        node = self.node(exchange)
        if node.reads_headers is None:
            reached = map(self.node, self.downstream(exchange))
            node.reads_headers = any(one.compares_headers or one.delays for one in reached)
        return node.reads_headers

    # -- routing ----------------------------------------------------------------------------------------------

    def route(self, exchange: str, keys: tuple[str, ...], headers: Mapping[str, Any] = NO_HEADERS) -> Route:
        """Return where a message with these keys (its own and those of CC and BCC) goes. Raises NotFound."""
        if exchange == DEFAULT_EXCHANGE:
            return Route(tuple(sorted(self.queues.intersection(keys))))
        node = self._nodes.get(exchange) or self.node(exchange)
        known = node.remembered.get(keys)
        if known is not None:
            return known
        walk = Walk(self, keys, headers)
        found = walk.go(exchange)
        if not walk.compared_headers and len(keys) <= KEYS_REMEMBERED_MAX:
            self._remember(node, keys, found)
        return found

    def _remember(self, node: Node, keys: tuple[str, ...], found: Route) -> None:
        if self._remembered >= REMEMBERED_MAX:
            self._remembered = 0
            for one in self._nodes.values():
                one.remembered.clear()
        self._remembered += 1
        node.remembered[keys] = found


class Walk:
    """One message on its way. What leads through an exchange that delays is walked last: a queue that is also reached
    without gets its copy at once.
    """

    def __init__(self, router: Router, keys: tuple[str, ...], headers: Mapping[str, Any]) -> None:
        self._router = router
        self._keys = keys
        self._headers = headers
        self._seen: set[str] = set()
        self._left: list[Node] = []
        self._postponed: list[Node] | None = []  # exchanges that delay; None: it is their turn
        self.compared_headers = False

    def go(self, exchange: str) -> Route:
        self._pass_to(exchange)
        at_once = self._walk()
        if not self._postponed:
            return Route(tuple(sorted(at_once)))
        self._left, self._postponed = self._postponed, None
        return Route(tuple(sorted(at_once)), tuple(sorted(self._walk() - at_once)))

    def _walk(self) -> set[str]:
        queues: set[str] = set()
        while self._left:
            node = self._left.pop()
            self.compared_headers |= node.compares_headers
            matched = False
            for to_exchange, name in node.matcher.match(self._keys, self._headers):
                matched = True
                if to_exchange:
                    self._pass_to(name)
                else:
                    queues.add(name)
            alternate = node.definition.alternate_exchange
            if matched or alternate is None:
                continue
            if alternate == DEFAULT_EXCHANGE:
                queues |= self._router.queues.intersection(self._keys)
            else:
                self._pass_to(alternate)
        return queues

    def _pass_to(self, exchange: str) -> None:
        node = self._router.get(exchange)
        if node is None or exchange in self._seen:
            return
        self._seen.add(exchange)
        if node.delays and self._postponed is not None:
            self._postponed.append(node)
        else:
            self._left.append(node)


def _discard(of: dict[Any, set[Any]], key: object, value: object) -> None:
    left = of.get(key, set())
    left.discard(value)
    if not left:
        of.pop(key, None)
