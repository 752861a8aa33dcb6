"""Who may do what to which name: the rules of the configuration, and what follows from them for one process.

Owns: matching of patterns, precedence, limits, the words of a refusal. Does not own: names of users and groups
(principals.py), which frame needs which permission (gate.py), sockets.
Invariants: what no rule allows is refused; what one rule denies is refused whatever others allow; root and the
daemon's own uid may do everything; no answer depends on whether the thing that is named exists.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from shmq.errors import AccessRefused, NotAllowed
from shmq.names import REPLY_PREFIX

Verb = Literal["configure", "write", "read", "direct"]
"""As in RabbitMQ; `direct`: to work in a queue's memory, together with write and read."""
Kind = Literal["queue", "exchange"]

VERBS: Final[tuple[Verb, ...]] = ("configure", "write", "read", "direct")
SEEING: Final[tuple[Verb, ...]] = ("configure", "write", "read")  # each of them shows that a thing is there
ROOT: Final = 0
DEFAULT_EXCHANGE: Final = "amq.default"  # RabbitMQ's word where permissions are asked for; its name is empty
SUBJECTS_MAX: Final = 1024  # remembered at a time
ANSWERS_MAX: Final = 1024  # likewise, of one subject


class Subject(NamedTuple):
    """A process as the kernel sees it. `gids`: its own group and the supplementary ones."""

    uid: int
    gids: frozenset[int]


class Principal(NamedTuple):
    """Whom a rule is for."""

    kind: Literal["uid", "gid", "any"]
    number: int = 0

    def includes(self, subject: Subject) -> bool:
        if self.kind == "uid":
            return subject.uid == self.number
        return self.kind == "any" or self.number in subject.gids


class Limits(NamedTuple):
    """Of one uid. None: no limit. `bytes`: what all queues that it declared may come to take of shared memory."""

    connections: int | None = None
    queues: int | None = None
    bytes: int | None = None


Patterns = Mapping[Verb, Sequence[str]]
NONE: Final[Patterns] = MappingProxyType({})


class Rule(NamedTuple):
    """Some permissions of one principal."""

    principal: Principal
    allow: Patterns = NONE
    deny: Patterns = NONE
    limits: Limits = Limits()


class Glob(NamedTuple):
    """A pattern that a whole name must match: `*` any run, `?` one character, `[...]` one of these."""

    text: str
    matches: Callable[[str], object]


class Access:
    """What one subject may do."""

    def __init__(self, subject: Subject, rules: Iterable[Rule] = (), *, full: bool = False) -> None:
        mine = [rule for rule in rules if rule.principal.includes(subject)]
        self.uid = subject.uid
        self.full = full
        self.limits = Limits() if full else _limits_of(mine)
        self._allow = {verb: _globs(rule.allow.get(verb, ()) for rule in mine) for verb in VERBS}
        self._deny = {verb: _globs(rule.deny.get(verb, ()) for rule in mine) for verb in VERBS}
        self._answers: dict[tuple[Verb, str], str] = {}

    # -- asking -----------------------------------------------------------------------------------------------

    def why_not(self, verb: Verb, name: str) -> str:
        """Say why this may not be done to what has this name; "" if it may."""
        if self.full:
            return ""
        known = self._answers.get((verb, name))
        if known is None:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            known = self._answers[verb, name] = self._decide(verb, name)
        return known

    def _decide(self, verb: Verb, name: str) -> str:
        denied = _first_match(self._deny[verb], name)
        if denied is not None:
            return f"uid {self.uid} is denied to {verb} what matches {denied!r}"
        if _first_match(self._allow[verb], name) is None:
            return f"uid {self.uid} has no {verb} pattern that matches it"
        return ""

    def may(self, verb: Verb, name: str) -> bool:
        return not self.why_not(verb, name)

    def sees(self, name: str) -> bool:
        """Whether it may know that there is something of this name."""
        return any(self.may(verb, name) for verb in SEEING)

    def why_not_direct(self, name: str) -> str:
        """Say why it may not work in the memory of a queue of this name; "" if it may."""
        return next(filter(None, (self.why_not(verb, name) for verb in ("direct", "write", "read"))), "")

    @property
    def may_ever(self) -> bool:
        """Whether there is anything that it might do."""
        return self.full or any(self._allow[verb] for verb in SEEING)

    @property
    def may_ever_direct(self) -> bool:
        return self.full or bool(self._allow["direct"])

    # -- insisting --------------------------------------------------------------------------------------------

    def check(self, verb: Verb, kind: Kind, name: str) -> None:
        """Raise AccessRefused."""
        asked = name or DEFAULT_EXCHANGE if kind == "exchange" else name
        reason = self.why_not(verb, asked)
        if reason:
            raise AccessRefused(what=f"{kind} {asked!r}", reason=reason)

    def check_sees(self, kind: Kind, name: str) -> None:
        """Raise AccessRefused."""
        if not self.sees(name):
            reason = f"uid {self.uid} has no configure, write or read pattern that matches it"
            raise AccessRefused(what=f"{kind} {name!r}", reason=reason)

    def check_publish(self, exchange: str, routing_keys: Iterable[str]) -> None:
        """Raise AccessRefused. The default exchange is its queues: each key names one."""
        if exchange:
            self.check("write", "exchange", exchange)
            return
        for key in routing_keys:
            if not key.startswith(REPLY_PREFIX):
                self.check("write", "queue", key)

    def check_forward(self, kind: Kind, name: str, exchange: str, routing_key: str | None = None) -> None:
        """Raise AccessRefused for an owner that would pass messages on to an exchange (dead letters, alternate).

        To the default exchange with the messages' own keys: that is to any queue, so `amq.default` must be writable.
        """
        self.check("read", kind, name)
        if exchange or routing_key is None:
            self.check("write", "exchange", exchange)
        else:
            self.check("write", "queue", routing_key)

    def check_admitted(self) -> None:
        """Raise AccessRefused for a subject that has no permission at all."""
        if not self.may_ever:
            reason = f"uid {self.uid} has no permissions, nor has any of its groups"
            raise AccessRefused(what="this broker", reason=reason)

    # -- limits -----------------------------------------------------------------------------------------------

    def check_connections(self, there: int) -> None:
        """Raise NotAllowed for a connection beyond those that are there."""
        limit = self.limits.connections
        if limit is not None and there >= limit:
            raise NotAllowed(f"uid {self.uid} has {there} connections, and may have {limit}. Close some of them")

    def check_queues(self, there: int) -> None:
        """Raise NotAllowed for a queue beyond those that it declared."""
        limit = self.limits.queues
        if limit is not None and there >= limit:
            raise NotAllowed(f"uid {self.uid} has declared {there} queues, and may have {limit}. Delete some of them")

    def check_bytes(self, there: int, more: int) -> None:
        """Raise NotAllowed for a queue of `more` bytes beside those that it declared."""
        limit = self.limits.bytes
        if limit is not None and there + more > limit:
            raise NotAllowed(
                f"this queue may come to take {more:,} bytes, those that uid {self.uid} has declared {there:,}, and the"
                f" limit is {limit:,}. Declare it with a smaller capacity_messages and capacity_bytes, or delete queues"
            )


class Policy:
    """All rules, and who is above them."""

    def __init__(self, rules: Iterable[Rule], own_uid: int) -> None:
        self.rules = tuple(rules)
        self._full = {ROOT, own_uid}
        self._known: dict[Subject, Access] = {}

    def access_of(self, subject: Subject) -> Access:
        """What a subject may do. Equal subjects share one answer."""
        known = self._known.get(subject)
        if known is None:
            if len(self._known) >= SUBJECTS_MAX:
                self._known.clear()
            known = self._known[subject] = Access(subject, self.rules, full=subject.uid in self._full)
        return known


def _globs(patterns: Iterable[Sequence[str]]) -> list[Glob]:
    texts = dict.fromkeys(text for some in patterns for text in some)
    return [Glob(text, re.compile(fnmatch.translate(text)).match) for text in texts]


def _first_match(globs: Iterable[Glob], name: str) -> str | None:
    return next((glob.text for glob in globs if glob.matches(name)), None)


def _limits_of(rules: Sequence[Rule]) -> Limits:
    """Each limit by itself: that of the uid, else the largest of its groups, else that of everybody."""
    return Limits(*(_nearest(rules, position) for position in range(len(Limits._fields))))


def _nearest(rules: Sequence[Rule], position: int) -> int | None:
    for kind in ("uid", "gid", "any"):
        given = [rule.limits[position] for rule in rules if rule.principal.kind == kind]
        set_here = [limit for limit in given if limit is not None]
        if set_here:
            return max(set_here)
    return None


NOBODY: Final = Access(Subject(-1, frozenset()))
"""The access of who has not said hello."""
