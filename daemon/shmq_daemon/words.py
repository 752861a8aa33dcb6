"""Generation words of exchanges: what tells a direct client that a compiled route is out of date.

Owns: one segment of 64-bit words, one per exchange. Does not own: which exchange has which word (topology.py).
Invariants: only the broker writes, a word only grows, a word outlives its exchange (the next one goes on counting),
so a (word, value) pair never comes back. Clients get a read-only descriptor. Everything is committed when it is made,
so that no store can be a SIGBUS.
"""

import mmap
import os
from typing import Final

from shmq_daemon import segments

WORDS_MAX: Final = 8192
BYTES: Final = WORDS_MAX * 8


class Words:
    """The mapped words."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, BYTES)
        self._view = memoryview(self._map).cast("Q")

    @classmethod
    def open(cls, name: str) -> "Words":
        """Adopt the segment, or make it."""
        try:
            fd = segments.open_existing(name)
        except FileNotFoundError:
            fd = segments.create(name, BYTES)
        try:
            os.posix_fallocate(fd, 0, BYTES)
            return cls(fd)
        finally:
            os.close(fd)

    def __getitem__(self, index: int) -> int:
        return self._view[index]

    def bump(self, index: int) -> None:
        self._view[index] += 1

    def close(self) -> None:
        self._view.release()
        self._map.close()
