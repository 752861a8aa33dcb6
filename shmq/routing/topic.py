"""Topic patterns in a trie of their words: a look-up visits what the key can match, not all patterns.

         (root) --image--> ( ) --*--> ( ) --new--> (x)      image.*.new -> x
            |               +---#--> (y)                    image.#     -> y
            +--#--> ( ) --error--> (z)                      #.error     -> z

Owns: words, the trie, matching. Does not own: what a pattern leads to.
Rules (RabbitMQ's topic exchange): words are what stands between dots; the empty key has no word, `a..b` has an empty
one in the middle; `*` is exactly one word, an empty one too, `#` any number of words, none too.
Invariant: in each step of a match a node is looked at once, so a key of n words costs at most n times the nodes,
whatever the number of `#` in patterns; what leads nowhere is taken out with its last pattern.
"""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

ANY_WORD: Final = "*"
ANY_WORDS: Final = "#"

T = TypeVar("T", bound=Hashable)


def words_of(key: str) -> list[str]:
    """Return the words of a key or a pattern; none of the empty one."""
    return key.split(".") if key else []


class Node(Generic[T]):
    """What follows the words on the way here. `found`: what patterns that end here lead to, and how many do."""

    __slots__ = ("any_word", "any_words", "found", "is_any_words", "words")

    def __init__(self, *, is_any_words: bool = False) -> None:
        self.words: dict[str, Node[T]] = {}
        self.any_word: Node[T] | None = None
        self.any_words: Node[T] | None = None
        self.found: dict[T, int] = {}
        self.is_any_words = is_any_words

    def make(self, word: str) -> "Node[T]":
        """Return the node behind a word of a pattern."""
        if word == ANY_WORD:
            self.any_word = self.any_word or Node()
            return self.any_word
        if word == ANY_WORDS:
            self.any_words = self.any_words or Node(is_any_words=True)
            return self.any_words
        return self.words.setdefault(word, Node())

    def get(self, word: str) -> "Node[T] | None":
        """As `make`, if it is there."""
        if word == ANY_WORD:
            return self.any_word
        return self.any_words if word == ANY_WORDS else self.words.get(word)

    def drop(self, word: str) -> None:
        if word == ANY_WORD:
            self.any_word = None
        elif word == ANY_WORDS:
            self.any_words = None
        else:
            self.words.pop(word, None)

    @property
    def is_empty(self) -> bool:
        return not (self.words or self.found or self.any_word or self.any_words)


class Trie(Generic[T]):
    """Patterns, each with what it leads to; one that was added twice has to be discarded twice."""

    def __init__(self) -> None:
        self._root: Node[T] = Node()

    def add(self, pattern: str, leads_to: T) -> None:
        node = self._root
        for word in words_of(pattern):
            node = node.make(word)
        node.found[leads_to] = node.found.get(leads_to, 0) + 1

    def discard(self, pattern: str, leads_to: T) -> None:
        """Take one addition back; nothing happens when there was none."""
        words = words_of(pattern)
        way: list[Node[T]] = [self._root]
        for word in words:
            node = way[-1].get(word)
            if node is None:
                return
            way.append(node)
        last = way[-1]
        left = last.found.get(leads_to, 0) - 1
        if left > 0:
            last.found[leads_to] = left
        else:
            last.found.pop(leads_to, None)
        for parent, word, node in zip(way[-2::-1], words[::-1], way[:0:-1], strict=True):
            if not node.is_empty:
                break
            parent.drop(word)

    def match(self, key: str) -> set[T]:
        """Return what the patterns that match a key lead to."""
        here: list[Node[T]] = [self._root]  # behind the words so far
        waiting: dict[Node[T], None] = {}  # of `#`, which may take more words: each once
        _pass_any_words(here, waiting)
        for word in words_of(key):
            ahead: list[Node[T]] = []
            for node in (*here, *waiting) if waiting else here:
                following = node.words.get(word)
                if following is not None:
                    ahead.append(following)
                if node.any_word is not None:
                    ahead.append(node.any_word)
            here = ahead
            _pass_any_words(here, waiting)
            if not here and not waiting:
                return set()
        found: set[T] = set()
        for node in (*here, *waiting):
            found.update(node.found)
        return found


def _pass_any_words(here: list[Node[T]], waiting: dict[Node[T], None]) -> None:
    """Add the `#` behind these nodes: it matches no word too."""
    for node in here:
        following = node.any_words
        while following is not None and following not in waiting:
            waiting[following] = None
            following = following.any_words
