"""What exists in an instance, and the events that make it: one struct each.

Owns: the structs that are remembered (state.py) and told to the supervisor (link.py). Does not own: what somebody
asked for (`shmq.definitions`), rules (policy.py, topology.py). All are frozen: a change is a new event.
"""

import msgspec

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.routing.bindings import Binding

Geometry = tuple[int, int, int, int, int]
"""As in the core: levels, slots, inline_bytes, ring_entries, arena_bytes."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue. `number` is its bitmap in the registry, `segment` the name of its memory, `uid` who declared it."""

    queue_id: int
    definition: QueueDefinition
    exclusive_to: int = 0  # a connection id; 0: shared
    geometry: Geometry
    segment: str
    number: int
    uid: int = 0

    @property
    def name(self) -> str:
        return self.definition.name


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange. `word` is the index of its generation word."""

    definition: ExchangeDefinition
    word: int

    @property
    def name(self) -> str:
        return self.definition.name


class QueueDeclared(msgspec.Struct, frozen=True, tag="queue+", array_like=True):
    """There is a queue."""

    queue: Queue


class QueueDeleted(msgspec.Struct, frozen=True, tag="queue-", array_like=True):
    """A queue is gone; its bindings went before it."""

    queue_id: int


class ExchangeDeclared(msgspec.Struct, frozen=True, tag="exchange+", array_like=True):
    """There is an exchange."""

    exchange: Exchange


class ExchangeDeleted(msgspec.Struct, frozen=True, tag="exchange-", array_like=True):
    """An exchange is gone; its bindings went before it."""

    name: str


class Bound(msgspec.Struct, frozen=True, tag="binding+", array_like=True):
    """There is a binding."""

    binding: Binding


class Unbound(msgspec.Struct, frozen=True, tag="binding-", array_like=True):
    """A binding is gone."""

    binding: Binding


Event = QueueDeclared | QueueDeleted | ExchangeDeclared | ExchangeDeleted | Bound | Unbound
"""What changes a topology."""
