"""What each type of exchange does with a message: from keys and headers to the destinations of its own bindings.

Owns: one matcher a type, and which types read headers. Does not own: what happens behind a destination (router.py).
Invariants: a matcher answers for its own exchange alone and changes nothing by answering; each destination once,
whatever the number of bindings and keys that lead to it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from shmq.definitions import DELAYED, ExchangeDefinition
from shmq.routing.bindings import Binding, Destination, decode_arguments
from shmq.routing.headers import Criteria, criteria_of
from shmq.routing.topic import Trie

HEADERS: Final = "headers"

T = TypeVar("T")


class Matcher(Protocol):
    """The bindings of one exchange."""

    def add(self, binding: Binding) -> None: ...
    def discard(self, binding: Binding) -> None: ...
    def match(self, keys: Sequence[str], headers: Mapping[str, Any]) -> Iterable[Destination]:
        """Each destination once."""


class DirectMatcher:
    """Equal keys."""

    def __init__(self) -> None:
        self._by_key: dict[str, Counter[Destination]] = {}

    def add(self, binding: Binding) -> None:
        self._by_key.setdefault(binding.routing_key, Counter())[binding.leads_to] += 1

    def discard(self, binding: Binding) -> None:
        found = self._by_key.get(binding.routing_key, Counter())
        count_down(found, binding.leads_to)
        if not found:
            self._by_key.pop(binding.routing_key, None)

    def match(self, keys: Sequence[str], _headers: Mapping[str, Any]) -> Iterable[Destination]:
        if len(keys) == 1:
            return self._by_key.get(keys[0], ())
        return {destination for key in keys for destination in self._by_key.get(key, ())}


class FanoutMatcher:
    """Everything."""

    def __init__(self) -> None:
        self._found: Counter[Destination] = Counter()

    def add(self, binding: Binding) -> None:
        self._found[binding.leads_to] += 1

    def discard(self, binding: Binding) -> None:
        count_down(self._found, binding.leads_to)

    def match(self, _keys: Sequence[str], _headers: Mapping[str, Any]) -> Iterable[Destination]:
        return self._found


class TopicMatcher:
    """Patterns of words."""

    def __init__(self) -> None:
        self._trie: Trie[Destination] = Trie()

    def add(self, binding: Binding) -> None:
        self._trie.add(binding.routing_key, binding.leads_to)

    def discard(self, binding: Binding) -> None:
        self._trie.discard(binding.routing_key, binding.leads_to)

    def match(self, keys: Sequence[str], _headers: Mapping[str, Any]) -> Iterable[Destination]:
        if len(keys) == 1:
            return self._trie.match(keys[0])
        return {destination for key in keys for destination in self._trie.match(key)}


class HeadersMatcher:
    """Headers; keys mean nothing. Bindings that ask for the same are asked once."""

    def __init__(self) -> None:
        self._bound: dict[bytes, tuple[Criteria, Counter[Destination]]] = {}

    def add(self, binding: Binding) -> None:
        asked = self._bound.get(binding.arguments)
        if asked is None:
            asked = self._bound[binding.arguments] = criteria_of(decode_arguments(binding.arguments)), Counter()
        asked[1][binding.leads_to] += 1

    def discard(self, binding: Binding) -> None:
        asked = self._bound.get(binding.arguments)
        if asked is None:
            return
        count_down(asked[1], binding.leads_to)
        if not asked[1]:
            del self._bound[binding.arguments]

    def match(self, _keys: Sequence[str], headers: Mapping[str, Any]) -> Iterable[Destination]:
        return {found for criteria, leads_to in self._bound.values() if criteria.match(headers) for found in leads_to}


MATCHERS: Final[Mapping[str, type[Matcher]]] = {
    "direct": DirectMatcher,
    "fanout": FanoutMatcher,
    "topic": TopicMatcher,
    HEADERS: HeadersMatcher,
}


def effective_type(definition: ExchangeDefinition) -> str:
    """Return how an exchange matches: one that delays matches as another type."""
    return definition.delayed_type or "direct" if definition.type == DELAYED else definition.type


def new_matcher(definition: ExchangeDefinition) -> Matcher:
    """Return an exchange's matcher, still without bindings."""
    return MATCHERS[effective_type(definition)]()


def count_down(found: Counter[T], key: T) -> None:
    """Take one away, and the key with the last one."""
    found[key] -= 1
    if found[key] <= 0:
        del found[key]
