"""The C core as Python sees it: one mapped queue segment, its messages, bells and repairs.

Owns: converting arguments and outcomes. Does not own: names, sockets, permissions, envelopes' content, waiting policy.
Nothing here blocks except `wait`, which is bounded. All times are CLOCK_MONOTONIC nanoseconds.

Every entry point that touches the segment raises `shmq.errors.ForkedHandle` in a forked child and
`shmq.errors.DetachedQueue` after `close()`; what is private (a copied body, a geometry, `close`) works on. Arguments
out of range are ValueError, refusals of the system OSError, a word in the segment that fails its check is
`shmq.errors.SegmentDamaged`, a writer's call on a read-only handle PermissionError. `/`: C takes no keywords there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Self, TypeAlias, final

from typing_extensions import Buffer, disjoint_base  # Buffer: of collections.abc from 3.12 on

LAYOUT: Final[int]  # number of the segment layout
LEVELS_MAX: Final[int]  # 256
SLOTS_MAX: Final[int]  # 2**23 - 2
BODY_BYTES_MAX: Final[int]  # 2**30
ENVELOPE_BYTES_MAX: Final[int]  # 64 KiB - 1
OWNERS_MAX: Final[int]  # 65535

# Outcomes of publish, loan (ints, so that the hot path allocates nothing).
OK: Final[int]  # 0
FULL: Final[int]  # no free slot, or no free granules: capacity reached
NO_MEMORY: Final[int]  # /dev/shm is full (ENOSPC while committing an extent)
TOO_LARGE: Final[int]  # can never fit in this queue
DELETED: Final[int]  # the queue is gone (flag in the header)
REFUSED: Final[int]  # a length limit is reached, and the queue refuses more
STOPPED: Final[int]  # it would have to grow, and holds more than its fair share of memory

CONSUMERS: Final[int]  # sides of a queue, for bells
PRODUCERS: Final[int]

# Message flags (metadata).
PERSISTENT: Final[int]

# Reasons of DEAD.
REJECTED: Final[int]
EXPIRED: Final[int]
MAXLEN: Final[int]
DELIVERY_LIMIT: Final[int]

# What happens beyond a length limit (`Queue.set_limits`); 0: there is none.
DROPS: Final[int]  # the head of the lowest level is dropped
DROPS_DEAD: Final[int]  # it is dead
REFUSES: Final[int]
REFUSES_DEAD: Final[int]  # what is refused is dead
DROPS_HIGHEST: Final[int]  # a bit beside DROPS and DROPS_DEAD: heads of the highest level

# Which requeues are delayed: bits.
RETRY_FAILED: Final[int]
RETRY_RETURNED: Final[int]

# States, as in `Queue.scan`.
FREE: Final[int]
WRITING: Final[int]
READY: Final[int]
DELAYED: Final[int]
UNACKED: Final[int]
ACKED: Final[int]
DEAD: Final[int]

# Results of wait.
TIMEOUT: Final[int]  # 0
LOOK: Final[int]  # 1: something may be there
OTHER: Final[int]  # 2: other_fd is readable or hung up

GeometryTuple: TypeAlias = tuple[int, int, int, int, int]
"""(levels, slots, inline_bytes, ring_entries, arena_bytes): all that offsets are derived from in this layout."""

def segment_bytes(geometry: GeometryTuple, /) -> int:
    """Size of the (sparse) segment. ValueError names what is out of range."""

def monotonic_ns() -> int: ...
def epoll_open() -> int:
    """A new descriptor that is readable while one of those watched is."""

def epoll_watch(epoll: int, fd: int, watched: bool, /) -> None: ...
def epoll_ready(epoll: int, /) -> list[int]:
    """Which of them are readable now, or hung up, 256 at most. Never waits."""

def wait(queues: Sequence[Queue], side: int, timeout_ns: int, other_fd: int = -1) -> int:
    """Registers at each bell, looks, then polls bells and other_fd with the GIL released; honours signals (PEP 475).

    timeout_ns >= 0. Returns LOOK, TIMEOUT or OTHER. Takes back its registrations by the rules of the bells. Raises
    DetachedQueue, at once, when another thread closes one of the queues meanwhile.
    """

@disjoint_base
class Queue:
    """A mapped segment as one owner works in it. Takes over the descriptors it is given; `close()` closes them.

    When the constructor raises, the descriptors are still the caller's.
    """

    def __init__(
        self,
        fd: int,
        geometry: GeometryTuple,
        owner: int,
        *,
        create: bool = False,  # lay out a new, zeroed segment (the broker, once)
        queue_id: int = 0,  # stamped at creation, compared at attach
        bells: tuple[int, int, int] = (-1, -1, -1),  # consumers, producers, supervisor; -1: none
        epoch: int = 0,  # of these bells
        message_type: type[Message] = ...,
        context: object = None,  # any Python object, returned by Queue.context and Message.queue.context
        read_only: bool = False,  # statistics and peeks only (PROT_READ)
    ) -> None:
        """OSError if it can't be mapped; LayoutMismatch(text) if magic, layout, geometry or queue id differ."""
    context: Any
    @property
    def closed(self) -> bool: ...
    @property
    def owner(self) -> int: ...
    @property
    def geometry(self) -> GeometryTuple: ...
    @property
    def deleted(self) -> bool: ...
    @property
    def bells_stale(self) -> bool:
        """The header's epoch is not that of our bells: ask the broker for new ones and call `set_bells`."""
    @property
    def brokered(self) -> bool:
        """Only the broker hands out messages here, for now: ask it."""
    def set_bells(self, bells: tuple[int, int, int], epoch: int, /) -> None:
        """Closes the old ones; whoever sleeps at them in `wait` goes on with the new ones."""
    def set_owner(self, owner: int, /) -> None:
        """Only while nothing is held or under way.

        ValueError while a loan or a large copy is; messages are the caller's care.
        """
    def bell_fd(self, side: int, /) -> int: ...
    def close(self) -> None:
        """Idempotent, also in a forked child.

        Descriptors are closed at once; the mapping goes with the last message, loan or view.
        """

    # -- producers ----------------------------------------------------------------------------------------------------
    def sign(self, sender: tuple[int, int, int] | None, /) -> None:
        """Who publishes through this handle, as (uid, gid, pid). At most 255 users and groups are known in a queue."""
    def publish(
        self,
        body: Buffer,
        level: int = 0,
        envelope: bytes = b"",
        ttl_ns: int = -1,
        delay_ns: int = 0,
        flags: int = 0,
        sender: tuple[int, int, int] | None = None,  # None: who signed the handle
    ) -> int:
        """One message; level, 0 to 255: one above the highest is the highest. Returns an outcome; never blocks."""
    def publish_many(
        self,
        bodies: Sequence[Buffer],
        start: int = 0,
        level: int = 0,
        envelope: bytes = b"",
        ttl_ns: int = -1,
        delay_ns: int = 0,
        flags: int = 0,
        sender: tuple[int, int, int] | None = None,
    ) -> tuple[int, int]:
        """Publishes bodies[start:] in order until one does not go. Returns (number published, last outcome)."""
    def loan(
        self,
        body_bytes: int,
        level: int = 0,
        envelope: bytes = b"",
        ttl_ns: int = -1,
        delay_ns: int = 0,
        flags: int = 0,
    ) -> Loan | int:
        """A writable body in the segment, or an outcome."""

    # -- consumers ----------------------------------------------------------------------------------------------------
    def take(self, no_ack: bool = False) -> Message | None:
        """The next message by priority and order, now UNACKED by this owner; None when nothing is there."""
    def take_many(self, max_messages: int, no_ack: bool = False) -> list[Message]: ...
    def requeue_owned(self) -> int:
        """UNACKED of this owner -> READY in place, no failure counted (a clean close). Returns how many."""

    # -- bells for event loops (select, epoll, asyncio) ---------------------------------------------------------------
    def bell_register(self, side: int, /) -> None:
        """Register, then look once more before polling `bell_fd`."""
    def bell_token(self, side: int, /) -> bool:
        """Try to read a token.

        True: the registration is used up: look, then register anew. False: poll again.
        """
    def bell_leave(self, side: int, /) -> None:
        """Stop waiting with a registration that stands (found something, time up, cancelled)."""
    def bell_ring(self, side: int, tokens: int = 1) -> None:
        """Unconditional tokens, at most as many as are registered (supervisor after a death)."""
    def may_have(self, side: int, /) -> bool:
        """Consumers: may a take find something? Producers: may a publish find room?"""

    # -- the owner of the queue: daemon -------------------------------------------------------------------------------
    def mark_deleted(self) -> None:
        """Publishes are refused (DELETED) from now on, and everybody who sleeps at a bell is woken."""
    def set_epoch(self, epoch: int, /) -> None: ...
    def set_limits(
        self,
        *,
        delivery_limit: int = -1,
        max_length: int = -1,
        max_length_bytes: int = -1,
        overflow: int = 0,
        retry: int = 0,
        retry_min_ns: int = 0,
        retry_max_ns: int = 0,
        ageing_ns: int = 0,
        warn: bool = False,
    ) -> None:
        """In the header, read by all clients at each operation. -1: none.

        retry_max_ns 0: no most; ageing_ns: what raises a waiting message by one level, 0: nothing; warn: count in
        `often_failed` what failed 20 times.
        """
    def set_brokered(self, brokered: bool, /) -> None:
        """Whether only the broker hands out; wakes those who wait for messages."""
    def mark_used(self) -> None:
        """Somebody asks for a message now."""
    def used_ns(self) -> int:
        """When somebody last did so; 0: never."""
    def purge(self, before_ns: int | None = None) -> int:
        """Ready messages with a sequence up to now -> FREE. Returns how many."""
    def stats(self) -> dict[str, int]:
        """Totals and gauges.

        Totals: published, delivered, acked, requeued, dead (from unacked), expired (dead from ready: past its time, or
        over a length), purged (from ready, dropped heads too), settled (dead ones that went), aborted, fired, bytes_in,
        bytes_out, often_failed, stopped (outcomes STOPPED).
        Gauges: ready, unacked, delayed, dead_pending, slots_committed, slots_used_high, arena_used_bytes,
        arena_committed_bytes, memory_bytes (as the method), share_bytes and mark_bytes (of `set_share`), capacity,
        capacity_bytes.
        """
    def count_states(self) -> dict[int, int]:
        """Exact census by state below the high-water mark (slow: a walk). Keys: states."""
    def histogram(self, which: str, /) -> list[int]:
        """'queue' (ns from publish to delivery) or 'ack' (ns from delivery to ack): counts by bucket."""
    @staticmethod
    def histogram_bounds() -> list[int]:
        """Upper bound in ns of each bucket."""

    # -- the supervisor -----------------------------------------------------------------------------------------------
    def reap(self, owner: int, *, count_failure: bool, lost_session: bool = False) -> tuple[int, int, int]:
        """All slots of a dead owner (lost_session: only its UNACKED). Returns (requeued, dead, freed). Idempotent."""
    def reap_except(self, live: bytes, *, count_failure: bool) -> tuple[int, int, int]:
        """Same for every owner whose bit in `live` (8192 bytes, bit i of byte i // 8) is clear."""
    def heal(self, full: bool = False) -> dict[str, int]:
        """One bounded step of the healer (full: a whole pass).

        Counts of what was put right ('bits', 'references'); 'rescan' asks for `scan`. A reference is put back by a
        second pass, 100 ms or more after the first that missed it.
        """
    def shrink(self) -> int:
        """Gives an unused extent of the arena back to the system, if there is one. Returns its bytes; call it again."""
    def memory_bytes(self) -> int:
        """What the segment really has of /dev/shm."""
    def set_share(self, share_bytes: int, mark_bytes: int) -> None:
        """Not 0: a publish that would have to commit memory is STOPPED. 0: it may again, and who waits is rung. Both
        are for who was stopped: the queue's fair share, and what all queues together may have.
        """
    def expire_due(self, now_ns: int, /) -> int:
        """READY past its time anywhere -> DEAD(expired). One bounded step. Returns how many."""
    def expire_from(self, now_ns: int, first: int) -> tuple[int, int]:
        """The same in steps from slot 0 on. Returns how many, and the slot to go on with; 0: that was the last step,
        and `next_expiry_ns` is right.
        """
    def next_expiry_ns(self) -> int:
        """Nothing expires before this time; 0: nothing that we know of expires at all."""
    def overdue(self, timeout_ns: int, now_ns: int) -> int:
        """UNACKED longer than timeout (or past its touch) -> READY in place, from the second look on."""
    def dead_pop(self) -> tuple[int, int] | None:
        """Next (slot, ctl) from the dead ring."""
    def delayed_pop(self) -> tuple[int, int, int] | None:
        """Next (slot, ctl, due_ns) from the delayed ring."""
    def scan(self, state: int, first: int = 0, slots: int = ...) -> list[tuple[int, int]]:
        """(slot, ctl) of every slot in that state, among `slots` of them from `first` on."""
    def peek(self, slot: int, ctl: int, /) -> Snapshot | None:
        """A good copy of a message whose control word is still `ctl`, else None."""
    def settle_dead(self, slot: int, ctl: int, /) -> bool:
        """DEAD -> FREE when its dead-letter targets have it, or it is dropped."""
    def fire_delayed(self, slot: int, ctl: int, now_ns: int, /) -> int:
        """1 fired (READY), 0 not yet due (due moved), -1 no longer there."""
    def due_ns(self, slot: int, ctl: int, /) -> int:
        """When a delayed message is due; 0: at once."""
    def ring_unheard(self) -> None:
        """Ring for those who had the bells of an earlier broker when they rang. Nothing while ours are not of now."""
    def check(self) -> list[str]:
        """Invariants of the layout at rest, as sentences about what is wrong. Empty = sound."""

@final
class Snapshot:
    """A private copy of one message."""

    @property
    def slot(self) -> int: ...
    @property
    def ctl(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def reason(self) -> int:
        """Of DEAD, else 0."""
    @property
    def level(self) -> int: ...
    @property
    def priority(self) -> int:
        """As published: another queue may have more levels."""
    @property
    def sender(self) -> tuple[int, int, int] | None:
        """(uid, gid, pid) of who published; None: unknown."""
    @property
    def flags(self) -> int: ...
    @property
    def delivery_count(self) -> int: ...
    @property
    def failure_count(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def expires_ns(self) -> int:
        """0: never."""
    @property
    def envelope(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...

@disjoint_base
class Message:
    """One delivery. Subclass with empty __slots__ to add properties; instances are made by `Queue.take`.

    Also a read-only buffer: `memoryview(message)` is `message.view()`. Takes no part in garbage collection: don't keep
    messages in what their queue's `context` or their consumer's `on_empty` refers to.
    """

    @property
    def queue(self) -> Queue: ...
    @property
    def body(self) -> bytes:
        """Copied from the segment at delivery (inline) or at first use (large: the message keeps its memory till then).

        BodyReleased when it was never read and is settled, unless its ack kept it (never viewed, or views alive).
        StaleDelivery when the message was given to somebody else before it was read.
        """
    @property
    def body_bytes(self) -> int: ...
    @property
    def envelope(self) -> bytes: ...
    @property
    def priority(self) -> int:
        """As published; the queue may have fewer levels."""
    @property
    def sender(self) -> tuple[int, int, int] | None:
        """(uid, gid, pid) of who published; None: unknown."""
    @property
    def flags(self) -> int: ...
    @property
    def redelivered(self) -> bool: ...
    @property
    def delivery_count(self) -> int: ...
    @property
    def failure_count(self) -> int: ...
    @property
    def delivery_tag(self) -> int:
        """In its ledger; 0: it was never in one."""
    @property
    def sequence(self) -> int:
        """Publish time, CLOCK_MONOTONIC ns, strictly increasing per producer."""
    @property
    def expires_ns(self) -> int: ...
    @property
    def state(self) -> str:
        """'unacked', 'acked', 'nacked', 'rejected', 'stale', 'auto' (no_ack)."""
    @property
    def is_current(self) -> bool:
        """The segment still says that this delivery is ours."""
    def view(self) -> memoryview:
        """Read-only, no copy for large bodies; its memory is kept until the last view is released, also after ack.

        What is read after the message was taken back (ack timeout, lost session) may be anything: see `is_current`.
        """
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def ack(self) -> None:
        """Has taken effect on return. Nothing to do for a no_ack delivery.

        StaleDelivery when the message was given to somebody else; AlreadySettled twice.
        """
    def ack_at_delivery(self) -> None:
        """Ack it for one who asked for no_ack: a no_ack delivery from now on. Errors are those of `ack`."""
    def nack(self, requeue: bool = True, delay: float | None = None) -> None:
        """Back in its place (no failure counted), or after `delay` seconds; requeue=False: dead (rejected).

        ViewsInUse while views live.
        """
    def reject(self, requeue: bool = False) -> None:
        """requeue=True counts a failure; over the limit it is dead (delivery_limit). ViewsInUse while views live."""
    def touch(self, extend: float, /) -> None:
        """Ack timeout starts anew, `extend` seconds from now."""

@final
class Loan:
    """A body being written in place. A context manager: enter gives a writable memoryview, exit commits or aborts.

    Exit takes that memoryview back, and commits even while another buffer (a numpy array over the view) lives: don't
    write through one afterwards. Abort (an exception) gives the memory back when the last buffer is gone. A loan that
    is dropped is aborted.
    """

    @property
    def body_bytes(self) -> int: ...
    def view(self) -> memoryview: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def commit(self) -> int:
        """Publishes. Returns an outcome. AlreadySettled the second time."""
    def abort(self) -> None:
        """Idempotent. AlreadySettled after a commit."""
    def __enter__(self) -> memoryview: ...
    def __exit__(self, *exc: object) -> None:
        """DetachedQueue when the commit was refused."""

@final
class Consumer(Iterator[Message]):
    """An iterator whose fast path is in C: takes from the queues in turn.

    Calls `on_empty()` when there is nothing, prefetch is full, bells are stale (before each take), or only the broker
    hands out; on_empty blocks as it likes and returns True to look again, False to stop the iteration, or a message
    of another origin to hand out.
    """

    def __new__(
        cls,
        queues: Sequence[Queue],
        prefetch: int,
        no_ack: bool,
        on_empty: Callable[[], object],
        ledger: Ledger | None = None,
    ) -> Self:
        """What is taken is entered in the ledger, and taken only while that has room; no_ack: a tag is all it gets."""
    @property
    def queues(self) -> tuple[Queue, ...]:
        """Replaceable (reconnect)."""
    @queues.setter
    def queues(self, queues: Sequence[Queue]) -> None: ...
    prefetch: int  # 0: unlimited; may change at any time
    on_room: Callable[[], object] | None  # called when the prefetch, full before, has room
    @property
    def unacked(self) -> int: ...
    @property
    def has_room(self) -> bool:
        """Of the prefetch and of the ledger."""
    def take(self) -> Message | None:
        """What `next` would hand out at once; None where it would ask."""
    def __next__(self) -> Message: ...

@final
class Ledger:
    """The deliveries of one channel that are not settled, by tags from 1, and a window: how many of them there may be.

    With a parent, what is entered counts in both, and there is room where both have it; tags and deliveries are the
    root's. A Message leaves when it is settled; for other objects say `leave`. Refers to what it keeps and is referred
    to by it, unseen by the garbage collector: say `forget` at the end. keeps=False: only counts.
    """

    def __new__(cls, parent: Ledger | None = None, keeps: bool = True) -> Self: ...
    prefetch: int  # 0: unlimited; may change at any time
    on_room: Callable[[], object] | None  # called when the window, full before, has room
    @property
    def parent(self) -> Ledger | None: ...
    @property
    def counted(self) -> int:
        """How many count against the prefetch."""
    @property
    def has_room(self) -> bool: ...
    @property
    def last_tag(self) -> int: ...
    def enter(self, delivery: object, counted: bool = True) -> int:
        """The next tag, 0 where none are kept. None, and a Message that needs no ack, are given one and not kept.

        ValueError for a Message that is in a ledger, or was.
        """
    def leave(self, tag: int, counted: bool = True) -> bool:
        """Settled; False: it is not there."""
    def find(self, tag: int, /) -> Any: ...
    def up_to(self, tag: int, /) -> list[Any]:
        """Those with this tag and before, oldest first."""
    def forget(self) -> list[Any]:
        """Let go of all and return them, oldest first."""
    def __len__(self) -> int: ...

@final
class Publisher:
    """A callable with the signature of Connection.publish.

    Its fast path, in C: the arguments are `routing_key`, `priority`, `persistent` and `exchange=""`, the key is in
    `routes`, and the outcome is OK; all else goes to `fallback` with the very same arguments, and so does its result.
    """

    def __new__(cls, fallback: Callable[..., object]) -> Self: ...
    routes: dict[str, Queue]
    def __call__(self, body: Buffer, **kwargs: Any) -> Any: ...
