"""The registry: who is a client of this instance, and which queues each was ever given. Survives every daemon process.

    page 0            header: magic, layout, incarnations, broker starts, supervisor starts, epochs
    rows              32,768 rows of 64 bytes, one a client index
    bitmaps           one page a queue (its registry number): bit i says that client index i may have the queue

    row   state 4 | index 4 | incarnation 8 | pid 4 | uid 4 | start time 8 | connection id 8 | secret 16 | presence 8

Owns: this layout, client indices. Does not own: what a row means for a session (sessions.py) or a repair
(supervisor.py).
Invariants: only the broker writes; a row counts when its state says so, which is written last and cleared first; a
bit is set before the descriptor is passed and cleared after the reap; an index is given again only after `free`.
Pages are committed before they are touched.
"""

import itertools
import mmap
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from shmq.errors import ConfigError, ShmFull
from shmq_daemon import segments
from shmq_daemon.peer import Peer

MAGIC: Final = 0x31676572716D6873  # "shmqreg1"
LAYOUT: Final = 1
PAGE: Final = 4096
CLIENTS_FIRST: Final = 32
CLIENTS_END: Final = 32768
BROKERS: Final = range(1, 16)
SUPERVISORS: Final = range(16, 32)
QUEUES_MAX: Final = 65_536

HEADER: Final = struct.Struct("<6Q")  # magic, layout, incarnations, broker starts, supervisor starts, epochs
ROW: Final = struct.Struct("<IIQIIQQ16sQ")
PRESENCE: Final = struct.Struct("<Q")
PRESENCE_AT: Final = ROW.size - PRESENCE.size
STATE: Final = struct.Struct("<I")
ROWS_AT: Final = PAGE
BITMAPS_AT: Final = ROWS_AT + CLIENTS_END * ROW.size
BITMAP_BYTES: Final = CLIENTS_END // 8
BYTES: Final = BITMAPS_AT + QUEUES_MAX * BITMAP_BYTES

UNUSED: Final = 0
LIVE: Final = 1
LEFT: Final = 2  # said goodbye, with nothing half done: waits for its reap alone


class Row(NamedTuple):
    """One client: a connection of a process. `owner` is its index, as in the owner field of control words. `presence`:
    the number of the file in which it is seen to be there, 0 for none.
    """

    owner: int
    incarnation: int
    pid: int
    uid: int
    start_time: int
    connection_id: int
    secret: bytes
    presence: int = 0
    left: bool = False


def brokers_before(index: int) -> list[int]:
    """Indices of those that came before this one. The ring is short: what is ahead of it in it may be of those to come,
    and was put right seven times since it was used.
    """
    place = BROKERS.index(index)
    return [BROKERS[(place - before) % len(BROKERS)] for before in range(1, len(BROKERS) // 2 + 1)]


class Registry:
    """The mapped registry. `read_only`: the supervisor's view of it."""

    def __init__(self, fd: int, *, read_only: bool = False) -> None:
        self._fd = fd
        access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
        self._map = mmap.mmap(fd, BYTES, access=access)
        self._next = CLIENTS_FIRST
        self._taken = set() if read_only else {row.owner for row in self.rows()}

    @classmethod
    def open(cls, name: str) -> "Registry":
        """Adopt the segment, or make it. Raises ConfigError for one of another layout, which is left untouched."""
        try:
            fd = segments.open_existing(name)
        except FileNotFoundError:
            fd = segments.create(name, BYTES)
        if os.fstat(fd).st_size == 0:  # made, and its maker died before it had a size
            os.ftruncate(fd, BYTES)
        header = os.pread(fd, HEADER.size, 0)
        if any(header) or os.fstat(fd).st_size != BYTES:
            _check_layout(fd, name, header)
        _commit(fd, 0, BITMAPS_AT)
        if not any(header):
            os.pwrite(fd, HEADER.pack(MAGIC, LAYOUT, 0, 0, 0, 0), 0)
        return cls(fd)

    @property
    def fd(self) -> int:
        return self._fd

    # -- indices ----------------------------------------------------------------------------------------------

    def next_broker_index(self) -> int:
        return self._next_of(BROKERS, 3)

    def next_supervisor_index(self) -> int:
        return self._next_of(SUPERVISORS, 4)

    def next_epoch(self) -> int:
        """A number for new bells, greater than all before."""
        return self._count(5) + 1

    def _next_of(self, indices: range, field: int) -> int:
        return indices[self._count(field) % len(indices)]

    def _count(self, field: int) -> int:
        """Raise a counter of the header and return its old value."""
        at = 8 * field
        (value,) = struct.unpack_from("<Q", self._map, at)
        struct.pack_into("<Q", self._map, at, value + 1)
        return int(value)

    def free_index(self) -> int | None:
        """The next index that nobody has; None when all are taken."""
        for index in itertools.chain(range(self._next, CLIENTS_END), range(CLIENTS_FIRST, self._next)):
            if index not in self._taken:
                self._next = index + 1
                return index
        return None

    # -- rows -------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        for index in range(CLIENTS_FIRST, CLIENTS_END):
            at = ROWS_AT + index * ROW.size
            state = STATE.unpack_from(self._map, at)[0]
            if state in (LIVE, LEFT):
                fields = ROW.unpack_from(self._map, at)
                yield Row._make((index, *fields[2:], state == LEFT))

    def add(self, index: int, peer: Peer, connection_id: int, secret: bytes) -> Row:
        row = Row(index, self._count(2) + 1, peer.pid, peer.uid, peer.start_time, connection_id, secret)
        at = ROWS_AT + index * ROW.size
        ROW.pack_into(self._map, at, UNUSED, *row[:-1])
        STATE.pack_into(self._map, at, LIVE)
        self._taken.add(index)
        return row

    def enter(self, row: Row, presence: int) -> Row:
        """This client holds its locks in that presence file: from now on their end is its goodbye."""
        PRESENCE.pack_into(self._map, ROWS_AT + row.owner * ROW.size + PRESENCE_AT, presence)
        return row._replace(presence=presence)

    def leave(self, index: int) -> None:
        """A clean goodbye, which the next broker must know of too."""
        STATE.pack_into(self._map, ROWS_AT + index * ROW.size, LEFT)

    def free(self, index: int) -> None:
        """After the reap: nobody has this index, and its bits are clear."""
        STATE.pack_into(self._map, ROWS_AT + index * ROW.size, UNUSED)
        self._taken.discard(index)

    # -- which client was given which queue -------------------------------------------------------------------

    def open_bitmap(self, number: int) -> None:
        """Make room for a queue's bits, all clear. Raises ShmFull."""
        at = BITMAPS_AT + number * BITMAP_BYTES
        _commit(self._fd, at, BITMAP_BYTES)
        self._map[at : at + BITMAP_BYTES] = bytes(BITMAP_BYTES)

    def mark(self, number: int, index: int) -> None:
        self._map[self._byte(number, index)] |= 1 << (index & 7)

    def unmark(self, number: int, index: int) -> None:
        at = self._byte(number, index)
        if self._map[at] >> (index & 7) & 1:
            self._map[at] &= ~(1 << (index & 7)) & 0xFF

    def had(self, number: int, index: int) -> bool:
        return bool(self._map[self._byte(number, index)] >> (index & 7) & 1)

    @staticmethod
    def _byte(number: int, index: int) -> int:
        return BITMAPS_AT + number * BITMAP_BYTES + (index >> 3)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)


def _check_layout(fd: int, name: str, header: bytes) -> None:
    magic, layout, *_ = HEADER.unpack(header.ljust(HEADER.size, b"\0"))
    if (magic, layout, os.fstat(fd).st_size) == (MAGIC, LAYOUT, BYTES):
        return
    os.close(fd)
    what = f"layout {layout}, ours is {LAYOUT}" if magic == MAGIC else "no registry"
    hint = (
        f"the registry of this instance is {what}; it is left untouched. Start the version of shmqd that wrote it, or"
        " give up the queues and their messages: shmqd --discard"
    )
    raise ConfigError(file=f"{segments.SHM}{name}", hint=hint)


def _commit(fd: int, at: int, length: int) -> None:
    try:
        os.posix_fallocate(fd, at, length)
    except OSError as error:
        raise ShmFull("no shared memory left for the registry") from error
