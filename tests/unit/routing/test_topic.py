"""Topic patterns: the rules by example, and against a matcher that tries everything."""

import functools

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shmq.routing.topic import Trie, words_of

KEYS = st.lists(st.sampled_from(["a", "b", ""]), max_size=6).map(".".join)
PATTERNS = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=6).map(".".join)


def matches(pattern: str, key: str) -> bool:
    """Try everything: each `#` takes each number of words."""
    words, tests = words_of(key), words_of(pattern)

    @functools.cache
    def rest(test: int, word: int) -> bool:
        if test == len(tests):
            return word == len(words)
        if tests[test] == "#":
            return any(rest(test + 1, after) for after in range(word, len(words) + 1))
        return word < len(words) and tests[test] in {"*", words[word]} and rest(test + 1, word + 1)

    return rest(0, 0)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("image.*.new", "image.cam1.new", True),
        ("image.*.new", "image.new", False),
        ("#", "", True),
        ("#", "a.b.c", True),
        ("*", "", False),
        ("", "", True),
        ("", "a", False),
        ("#.a", "a", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#.c", "a.c", True),
        ("a.#.c", "a.b.b.c", True),
        ("a.#.c", "a.b.b", False),
        ("a.*.b", "a..b", True),
        ("*.*", ".", True),
        ("*", ".", False),
        ("#.#", "", True),
        ("#.*", "a", True),
        ("#.*", "", False),
        ("a*", "ab", False),
        ("a.b", "a.b.", False),
    ],
)
def test_the_rules_by_example(pattern: str, key: str, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    trie: Trie[str] = Trie()
    trie.add(pattern, "x")

    assert (trie.match(key) == {"x"}) == matches(pattern, key) == expected


@given(st.lists(PATTERNS, max_size=8), KEYS)
def test_the_trie_finds_what_trying_everything_finds(patterns: list[str], key: str) -> None:
    """Invariant: a key finds a pattern exactly where trying every length of every `#` finds it."""
    trie: Trie[str] = Trie()
    for pattern in patterns:
        trie.add(pattern, pattern)

    assert trie.match(key) == {pattern for pattern in patterns if matches(pattern, key)}


def test_many_wildcards_in_one_pattern_cost_no_more_than_their_number() -> None:
    trie: Trie[str] = Trie()
    trie.add(".".join(["#.a"] * 40), "x")

    assert trie.match(".".join("a" * 120)) == {"x"}
    assert trie.match(".".join("a" * 39)) == set()


class Adding(RuleBasedStateMachine):
    """Invariant: a trie is what was added and not discarded, and keeps nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.trie: Trie[int] = Trie()
        self.added: list[tuple[str, int]] = []

    @rule(pattern=PATTERNS, leads_to=st.integers(0, 2))
    def add(self, pattern: str, leads_to: int) -> None:
        self.trie.add(pattern, leads_to)
        self.added.append((pattern, leads_to))

    @rule(pattern=PATTERNS, leads_to=st.integers(0, 2))
    def discard(self, pattern: str, leads_to: int) -> None:
        self.trie.discard(pattern, leads_to)
        if (pattern, leads_to) in self.added:
            self.added.remove((pattern, leads_to))

    @rule(data=st.data())
    def discard_one(self, data: st.DataObject) -> None:
        if self.added:
            self.discard(*data.draw(st.sampled_from(self.added)))

    @rule(key=KEYS)
    def match(self, key: str) -> None:
        assert self.trie.match(key) == {leads_to for pattern, leads_to in self.added if matches(pattern, key)}

    @invariant()
    def nothing_is_left_of_nothing(self) -> None:
        assert self.added or self.trie._root.is_empty


TestAdding = Adding.TestCase
