"""Delayed messages: a wheel of when they are due, in wheels of coarser time for what is due later.

Owns: the wheel. Does not own: whether a message is still delayed (its control word says so when it fires), the clock.
Invariants: an entry is a hint: firing compares the very word that was seen, so an entry too many does nothing. What
waits costs 32 bytes and no work: an entry is touched when it is taken up, when the wheel it is in comes to its bucket
(at most six times), and when it fires. A step is bounded: the buckets of a coarse wheel are turned into finer ones in
parts, which begins an eighth of a bucket ahead. Nothing fires early, and what is due together fires in the order of its
times.
"""

from array import array
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from shmq_daemon.watched import SlotWord, Watched

FIRED: Final = 1
NOT_DUE: Final = 0
BATCH: Final = 1024  # of one queue, or of what is due, in one step
SHIFTS: Final = (20, 28, 36, 44, 52, 60)  # of a bucket in each wheel, as powers of two of ns: 1 ms to 36 years
SPAN: Final = 320  # buckets ahead of now that a wheel holds: one of the next wheel, and how far that is turned ahead
AHEAD: Final = 3  # by a bucket's time divided by this power of two
WORDS: Final = 3  # of an entry: queue number and slot, control word, due time
TURNED_MAX: Final = 2048  # entries in one step


class Entry(NamedTuple):
    """One delayed message: times in ns."""

    due_ns: int
    number: int
    at: SlotWord


class Wheel:
    """Entries by time. Keeps the order of those that are added with the same time."""

    def __init__(self) -> None:
        self._buckets: tuple[dict[int, array[int]], ...] = tuple({} for _ in SHIFTS)
        self._turning: tuple[deque[memoryview[int]], ...] = tuple(deque() for _ in SHIFTS)  # what is left of buckets
        self._turned_ns = 0
        self._ripe: deque[Entry] = deque()

    def __len__(self) -> int:
        waiting = sum(len(bucket) for buckets in self._buckets for bucket in buckets.values())
        waiting += sum(len(bucket) for turning in self._turning for bucket in turning)
        return waiting // WORDS + len(self._ripe)

    def add(self, entry: Entry, now_ns: int) -> None:
        if entry.due_ns <= now_ns:
            self._ripe.append(entry)
        else:
            self._place(entry, now_ns)

    def _place(self, entry: Entry, now_ns: int) -> None:
        slot, ctl = entry.at
        for shift, buckets in zip(SHIFTS, self._buckets, strict=True):
            key = entry.due_ns >> shift
            if key - (now_ns >> shift) < SPAN or shift == SHIFTS[-1]:
                buckets.setdefault(key, array("Q")).extend((entry.number << 32 | slot, ctl, entry.due_ns))
                return

    def next_due(self) -> int | None:
        """When there is something to do: the end of a bucket of the finest wheel, a while before one of the others."""
        if self._ripe:
            return self._ripe[0].due_ns
        if any(self._turning):
            return self._turned_ns
        firsts = [(min(buckets), shift) for shift, buckets in zip(SHIFTS, self._buckets, strict=True) if buckets]
        dues = [_turns_ns(key, shift) if shift != SHIFTS[0] else key + 1 << shift for key, shift in firsts]
        return min(dues, default=None)

    def due(self, now_ns: int) -> list[Entry]:
        """Take out what is due now, a batch at most."""
        self._turn(now_ns)
        finest = self._buckets[0]
        for key in sorted(key for key in finest if key < now_ns >> SHIFTS[0]):
            if len(self._ripe) >= BATCH:
                break
            self._ripe.extend(sorted(_entries(finest.pop(key)), key=lambda entry: entry.due_ns >> 12))
        return [self._ripe.popleft() for _ in range(min(BATCH, len(self._ripe)))]

    def _turn(self, now_ns: int) -> None:
        """Bring what comes near into finer wheels, what is nearest first."""
        self._turned_ns = now_ns
        left = TURNED_MAX
        for shift, buckets, turning in list(zip(SHIFTS, self._buckets, self._turning, strict=True))[1:]:
            near = sorted(key for key in buckets if _turns_ns(key, shift) <= now_ns)
            turning.extend(memoryview(buckets.pop(key)) for key in near)
            while turning and left:
                bucket = turning.popleft()
                part, rest = bucket[: left * WORDS], bucket[left * WORDS :]
                if rest:
                    turning.appendleft(rest)
                for entry in _entries(part):
                    self._place(entry, now_ns)
                left -= len(part) // WORDS


def _turns_ns(key: int, shift: int) -> int:
    """When a bucket of a coarse wheel is turned: before its time, as that takes some."""
    return (key << shift) - (1 << shift - AHEAD)


def _entries(bucket: "array[int] | memoryview[int]") -> Iterable[Entry]:
    for place, ctl, due_ns in zip(bucket[::WORDS], bucket[1::WORDS], bucket[2::WORDS], strict=True):
        yield Entry(due_ns, place >> 32, (place & 0xFFFF_FFFF, ctl))


class Delays:
    """What is due when, over all queues."""

    def __init__(self, watched: dict[int, Watched]) -> None:
        self._watched = watched
        self._wheel = Wheel()
        self._by_number: dict[int, int] = {}  # of a queue -> its id
        self._known: dict[int, array[int]] = {}  # queue id -> by slot, of which delivery we have an entry

    def __len__(self) -> int:
        return len(self._wheel)

    def step(self, watched: Watched, now_ns: int) -> bool:
        """Take up what one queue's ring of delayed messages holds. True: there may be more."""
        for _ in range(BATCH):
            found = watched.core.delayed_pop()
            if found is None:
                return False
            slot, ctl, due_ns = found
            self._add(watched, (slot, ctl), due_ns, now_ns)
        return True

    def adopt(self, watched: Watched, found: Iterable[SlotWord], now_ns: int) -> None:
        """Delayed messages that a full look found, beside those that are known already."""
        known = self._known.get(watched.queue.queue_id, array("Q"))
        for at in found:
            slot, ctl = at
            if slot >= len(known) or known[slot] != _delivery_of(ctl):
                self._add(watched, at, watched.core.due_ns(*at), now_ns)

    def _add(self, watched: Watched, at: SlotWord, due_ns: int, now_ns: int) -> None:
        slot, ctl = at
        queue = watched.queue
        self._by_number[queue.number] = queue.queue_id
        known = self._known.setdefault(queue.queue_id, array("Q"))
        if slot >= len(known):
            known.frombytes(bytes(known.itemsize * (max(64, slot + slot // 2) - len(known) + 1)))
        known[slot] = _delivery_of(ctl)
        self._wheel.add(Entry(due_ns, queue.number, at), now_ns)

    def forget(self, watched: Watched) -> None:
        """A queue is gone; its entries go when they are due."""
        self._known.pop(watched.queue.queue_id, None)

    def next_due(self) -> int | None:
        return self._wheel.next_due()

    def due(self, now_ns: int) -> list[tuple[Watched, SlotWord]]:
        """Take out what is due now, of queues that are still there."""
        found: list[tuple[Watched, SlotWord]] = []
        for entry in self._wheel.due(now_ns):
            watched = self._watched.get(self._by_number[entry.number])
            if watched is not None:
                found.append((watched, entry.at))
        return found

    def fire(self, watched: Watched, at: SlotWord, now_ns: int) -> int:
        """Make one ready; one whose time was moved goes back into the wheel. Returns how many became ready."""
        result = watched.core.fire_delayed(*at, now_ns)
        if result == NOT_DUE:
            self._add(watched, at, max(watched.core.due_ns(*at), now_ns + 1), now_ns)
        return int(result == FIRED)


def _delivery_of(ctl: int) -> int:
    """Generation and deliveries of a control word; never 0."""
    return 1 + (ctl >> 36 << 8 | ctl >> 12 & 0xFF)
