"""A connection's presence: the descriptor by which a daemon that comes back sees whether the connection is still open.

Owns: that descriptor, from the beginning of a session to the end of the connection. Does not own: what it means
(shmq/presence.py), when a connection ends (link.py).
Invariants: each is let go of once, whichever thread comes first; a forked child closes it and lets go of nothing.
"""

import contextlib
import os
import threading

from shmq import presence


class Present:
    """There from `enter` to `leave`, which come in any order where threads race: nothing is kept behind `leave`."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._fd = -1
        self._position = 0
        self._left = False

    @property
    def position(self) -> int:
        """Where we are seen to be, 0: nowhere yet."""
        return self._position if self._fd >= 0 else 0

    def enter(self, fd: int, position: int) -> None:
        """Keep what a new session came with, and no more what the one before had: the daemon has given that up."""
        with self._changing:
            self._let_go(clean=True)
            self._fd, self._position = fd, position
            if self._left:
                self._let_go(clean=True)

    def leave(self, *, clean: bool) -> None:
        """Be gone, for a daemon that did not hear our goodbye. Not clean: something half done in a segment can be
        finished by this process alone, so the daemon is to wait for its end, until which the descriptor stays open.
        """
        with self._changing:
            self._left = True
            self._let_go(clean=clean)

    def _let_go(self, *, clean: bool) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with contextlib.suppress(OSError, OverflowError):  # of a position that no shmqd gives
            presence.leave(fd, self._position, clean=clean)
        if clean:
            os.close(fd)

    def forked(self) -> None:
        """In a forked child: close what is the parent's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
