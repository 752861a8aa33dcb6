"""A worker's file: what it is doing this very moment, and the operations of all its lives, one record each.

Owns: the file's layout, writing it, reading it into a history. Does not own: what is done (worker.py), who dies
(nemesis.py). Invariants: the file is mapped, so what was written survives a SIGKILL at any instruction; a record is
there before its operation is invoked (a delivery's: as soon as it was handed out), its outcome is written in place
behind the operation, the outcome's byte last; so a record without one is an operation of which nobody knows how it
ended.

    page 0   words: -, records, doing, held, steps, stop, incarnation, ready, worst
    4096     records of 64 bytes: kind queue level settle outcome flags mask |
             producer incarnation seq messages | 4 times | extra
"""

import mmap
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from crash.bodies import MessageId
from crash.history import Barrier, Consumer, Delivery, End, History, Outcome, Publish, Settle

PAGE: Final = 4096
BYTES: Final = 32 << 20
RECORD: Final = struct.Struct("<6BH4I5Q")
RECORDS_MAX: Final = (BYTES - PAGE) // RECORD.size
RESERVE: Final = 2_000  # records kept for those who settle what there is
WORDS: Final = RECORD.size // 8  # in a record
WORD_LEVEL_BYTES: Final = 8

RECORDS, DOING, HELD, STEPS, STOP, INCARNATION, READY, WORST = range(1, 9)
PUBLISHES, DELIVERS, BEGINS, ENDS, BARRIERS, REFUSED = range(1, 7)
SENT, AT_ONCE, SOCKET, REDELIVERED, INTACT, PUSHED = 1, 2, 4, 8, 16, 32
SETTLE_BYTE, OUTCOME_BYTE = 3, 4
TIME_WORDS: Final = 3  # the first time's place in a record, in words
EXTRA_WORD: Final = 7
REASONS: Final = ("", "rejected", "expired", "delivery_limit", "maxlen")


class Record(NamedTuple):
    """As it is in the file. Times: publish: invoked ended delay ttl; delivery: since at settle_invoked settle_ended."""

    kind: int
    queue: int = 0
    level: int = 0
    settle: int = 0
    outcome: int = 0
    flags: int = 0
    mask: int = 0
    producer: int = 0
    incarnation: int = 0
    seq: int = 0
    messages: int = 0  # of a publish; of a delivery: its number
    time0: int = 0
    time1: int = 0
    time2: int = 0
    time3: int = 0
    extra: int = 0


class Logbook:
    """One worker's file, mapped. `words` are the first page's; workers write DOING and HELD there themselves."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        fd = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(fd, BYTES)
            self._map = mmap.mmap(fd, BYTES)
        finally:
            os.close(fd)
        self.words = memoryview(self._map).cast("Q")

    @property
    def is_full(self) -> bool:
        """Whether it is time to stop making new messages."""
        return self.words[RECORDS] > RECORDS_MAX - RESERVE

    @property
    def has_to_stop(self) -> bool:
        return bool(self.words[STOP])

    # -- writing ------------------------------------------------------------------------------------------------------

    def begin(self, incarnation: int, queues: Sequence[int], *, socket: bool) -> None:
        """A new life, which will consume from these queues."""
        words = self.words
        words[DOING] = words[HELD] = words[STEPS] = words[READY] = 0
        words[INCARNATION] = incarnation
        mask = sum(1 << queue for queue in queues)
        self._append(Record(BEGINS, flags=SOCKET if socket else 0, mask=mask, incarnation=incarnation))

    def publishing(
        self, message: MessageId, *, queues: int, level: int, count: int, flags: int, delay_ns: int = 0, ttl_ns: int = 0
    ) -> int:
        """`count` messages from this one on are about to be published into the queues of a bit mask. The record."""
        times = (time.monotonic_ns(), 0, delay_ns, ttl_ns)
        return self._append(Record(PUBLISHES, 0, level, 0, 0, flags, queues, *message, count, *times))

    def done_word(self, record: int) -> int:
        """Which of `words` says how many of a record's messages are published."""
        return PAGE // 8 + record * WORDS + EXTRA_WORD

    def published(self, record: int, outcome: Outcome) -> None:
        """The publish ended; FAILED: its first unpublished message surely was not."""
        self._end(record, 1, outcome)

    def delivered(self, delivery: Delivery) -> int:
        """A message was handed out. Returns the record."""
        flags = (
            (SOCKET if delivery.is_socket else 0)
            | (REDELIVERED if delivery.redelivered else 0)
            | (INTACT if delivery.is_intact else 0)
            | (PUSHED if delivery.is_pushed else 0)
        )
        extra = delivery.failures << 8 | REASONS.index(delivery.reason)
        times = (delivery.since, delivery.at, 0, 0)
        message, number = delivery.message, delivery.count
        return self._append(
            Record(DELIVERS, delivery.queue, delivery.level, 0, 0, flags, 0, *message, number, *times, extra)
        )

    def settling(self, record: int, settle: Settle) -> int:
        """The delivery is about to be settled. Returns the time."""
        now = time.monotonic_ns()
        self.words[PAGE // 8 + record * WORDS + TIME_WORDS + 2] = now
        self._map[PAGE + record * RECORD.size + SETTLE_BYTE] = settle
        return now

    def settled(self, record: int, outcome: Outcome) -> None:
        self._end(record, 3, outcome)

    def barrier(self) -> int:
        """A request to the broker is about to be sent whose answer says that all before it was done."""
        return self._append(Record(BARRIERS, time0=time.monotonic_ns()))

    def ending(self) -> int:
        """This life is about to close its connection."""
        return self._append(Record(ENDS, time0=time.monotonic_ns()))

    def refused(self) -> None:
        """A publish without an answer of its own was refused: which one, nobody knows."""
        self._append(Record(REFUSED, time0=time.monotonic_ns()))

    def ended(self, record: int, outcome: Outcome = Outcome.OK) -> None:
        """A barrier or a close came to its end."""
        self._end(record, 1, outcome)

    def _append(self, record: Record) -> int:
        number = self.words[RECORDS]
        RECORD.pack_into(self._map, PAGE + number * RECORD.size, *record)
        self.words[RECORDS] = number + 1
        return number

    def _end(self, record: int, time_word: int, outcome: Outcome) -> None:
        self.words[PAGE // 8 + record * WORDS + TIME_WORDS + time_word] = time.monotonic_ns()
        self._map[PAGE + record * RECORD.size + OUTCOME_BYTE] = outcome

    # -- reading ------------------------------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """All records, in the order in which they were begun."""
        end = PAGE + self.words[RECORDS] * RECORD.size
        return [Record(*fields) for fields in RECORD.iter_unpack(self._map[PAGE:end])]

    def close(self) -> None:
        self.words.release()
        self._map.close()


@dataclass
class Read:
    """What one life has written about itself. closing: when it began to close; ended: when it had."""

    who: Consumer
    queues: frozenset[int]
    is_socket: bool
    records: list[Record]
    closing: int = 0
    ended: int = 0

    def as_end(self, *, killed: tuple[int, int] | None = None) -> End:
        """Its end: by itself, or killed between two times."""
        if killed is None:
            return End(self.who, self.closing, self.ended, killed=False, is_socket=self.is_socket, queues=self.queues)
        before, closing = min(self.closing or killed[0], killed[0]), bool(self.closing)
        return End(self.who, before, killed[1], True, closing, self.is_socket, self.queues)


def read_into(history: History, worker: int, records: Sequence[Record]) -> dict[Consumer, Read]:
    """Add a worker's operations to the history; returns its lives, whose ends are the caller's to add."""
    lives: dict[Consumer, Read] = {}
    life = Read(Consumer(worker, 0), frozenset(), False, [])
    for record in records:
        if record.kind == BEGINS:
            queues = frozenset(bit for bit in range(16) if record.mask >> bit & 1)
            who = Consumer(worker, record.incarnation)
            life = lives[who] = Read(who, queues, bool(record.flags & SOCKET), [])
        life.records.append(record)
    for life in lives.values():
        _read_life(history, life)
    return lives


def _read_life(history: History, life: Read) -> None:
    refused = any(record.kind == REFUSED for record in life.records)
    for record in life.records:
        if record.kind == PUBLISHES:
            history.publishes.extend(_publishes(record, life.who, refused))
        elif record.kind == DELIVERS:
            history.deliveries.append(_delivery(record, life.who))
        elif record.kind == BARRIERS and record.outcome == Outcome.OK:
            history.barriers.append(Barrier(life.who, record.time0, record.time1))
        elif record.kind == ENDS:
            life.closing, life.ended = record.time0, record.time1


def _publishes(record: Record, by: Consumer, was_refused: bool) -> list[Publish]:  # noqa: FBT001 - one fact
    """One publish for each message and queue of a record, as far as they were begun."""
    sent = bool(record.flags & SENT)
    begun = record.messages if record.flags & AT_ONCE else min(record.messages, record.extra + 1)
    queues = [bit for bit in range(16) if record.mask >> bit & 1]
    found = []
    for index in range(begun):
        outcome = _outcome(record, index, len(queues))
        if sent and was_refused:
            outcome = Outcome.UNKNOWN
        message = MessageId(record.producer, record.incarnation, record.seq + index)
        found += [
            Publish(
                queue, message, record.level, record.time0, record.time1, outcome, by, record.time2, record.time3, sent
            )
            for queue in queues
        ]
    return found


def _outcome(record: Record, index: int, queues: int) -> Outcome:
    if index < record.extra or record.outcome == Outcome.OK:
        return Outcome.OK
    if record.flags & AT_ONCE or queues > 1:
        return Outcome.UNKNOWN
    return Outcome(record.outcome)


def _delivery(record: Record, to: Consumer) -> Delivery:
    return Delivery(
        queue=record.queue,
        message=MessageId(record.producer, record.incarnation, record.seq),
        level=record.level,
        since=record.time0,
        at=record.time1,
        count=record.messages,
        failures=record.extra >> 8,
        to=to,
        redelivered=bool(record.flags & REDELIVERED),
        is_intact=bool(record.flags & INTACT),
        is_socket=bool(record.flags & SOCKET),
        is_pushed=bool(record.flags & PUSHED),
        reason=REASONS[record.extra & 0xFF],
        settle=Settle(record.settle),
        settle_invoked=record.time2,
        settle_ended=record.time3,
        outcome=Outcome(record.outcome),
    )
