"""The presence file of an instance: an empty shared memory object whose bytes clients keep locked (shmq/presence.py).

Owns: the object, what is passed to a client, the question whether one is there. Does not own: who is asked about, and
when (absent.py).
Invariants: it outlives the daemon, as the registry does, whose rows name the file that a client was given: after
somebody has removed it, nobody is taken to have left. Clients get read-only descriptors, each an open file description
of its own.
"""

import os
from typing import Final

from shmq import presence
from shmq_daemon import segments
from shmq_daemon.registry import Row

NOTHING: Final = 0  # in a row: this client was given no presence


class Presence:
    """The open file. `number` tells it from any other that was, or will be, there instead."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.number = os.fstat(fd).st_ino

    @classmethod
    def open(cls, name: str) -> "Presence":
        """Adopt the object, or make it."""
        try:
            return cls(segments.open_existing(name, read_only=True))
        except FileNotFoundError:
            return cls(segments.create(name, 0))

    def enter(self, row: Row) -> int:
        """Return a descriptor with this client's locks: it is there until nobody has it. Raises OSError."""
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            presence.enter(fd, presence.position_of(row.incarnation))
        except BaseException:  # whatever it was: nobody else closes it
            os.close(fd)
            raise
        return fd

    def is_known(self, row: Row) -> bool:
        """Whether this file tells if that client is there."""
        return row.presence == self.number

    def is_there(self, row: Row) -> bool:
        return presence.is_there(self._fd, presence.position_of(row.incarnation))

    def is_clean(self, row: Row) -> bool:
        """Whether one that has left has left nothing half done."""
        return presence.is_clean(self._fd, presence.position_of(row.incarnation))

    def close(self) -> None:
        os.close(self._fd)
