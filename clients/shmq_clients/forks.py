"""What happens to our handles in a forked child: their descriptors are closed, they are marked, nobody is told.

Owns: the one hook at fork and the list of those to call. Does not own: what each of them closes.
Invariants: nothing here shuts a socket down or says goodbye, because the parent goes on with the same connection; no
lock is taken, because another thread of the parent may have held it at the fork.
"""

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that must be dead in a forked child."""

    def forked(self) -> None:
        """Close descriptors with close(2) alone and refuse all use from now on. Must not raise, must not lock."""


_alive: "weakref.WeakSet[Forkable]" = weakref.WeakSet()


def register(handle: Forkable) -> None:
    """Call `handle.forked` in each child forked while it is alive."""
    _alive.add(handle)


def _after_in_child() -> None:
    handles = list(_alive)
    _alive.clear()
    for handle in handles:
        handle.forked()


os.register_at_fork(after_in_child=_after_in_child)
