"""Clients without a session: they may be at a long job and come back, or have closed where nobody heard their goodbye.

Owns: who they are, and when each is looked at. Does not own: how one is seen to be there (presence.py), what becomes of
one that has left (clients.py).
Invariants: time proves nothing: a client has left when its presence is gone and its process is not ending, whose files
are closed before its pidfd says so (that is a death, which counts). One that was given no presence is never taken to
have left.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from shmq_daemon.loop import Timers
from shmq_daemon.peer import is_ending
from shmq_daemon.presence import Presence

if TYPE_CHECKING:
    from shmq_daemon.clients import Client

LOOK_NS: Final = 250_000_000
LOOKS_FIRST_MAX: Final = 1024
LOOKS_MAX: Final = 64  # at a time: each asks the kernel, who walks through a list of all that are there


class Absent:
    """Calls `on_left` for each that has left."""

    def __init__(self, presence: Presence, timers: Timers, on_left: Callable[["Client"], None]) -> None:
        self._presence = presence
        self._timers = timers
        self._on_left = on_left
        self._clients: dict[int, Client] = {}  # by index; who is to be looked at next comes first
        self._looking = False

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: "Client") -> None:
        """It has no session from now on."""
        if client.pidfd < 0 or not self._presence.is_known(client.row):
            return
        self._clients[client.owner] = client
        if not self._looking:
            self._looking = True
            self._timers.after(LOOK_NS, self._look_around)

    def discard(self, client: "Client") -> None:
        """It has a session again, or has ended."""
        self._clients.pop(client.owner, None)

    def look_at_process(self, pid: int) -> None:
        """Look at those of one process, which is about to get a session: what it has closed must not be in its way."""
        self._look_at([client for client in self._clients.values() if client.row.pid == pid])

    def look_first(self) -> None:
        """Look at those that were adopted, before anybody says hello."""
        self._look_at(self._next(LOOKS_FIRST_MAX))

    def _look_around(self, _now_ns: int) -> None:
        self._look_at(self._next(LOOKS_MAX))
        self._looking = bool(self._clients)
        if self._looking:
            self._timers.after(LOOK_NS, self._look_around)

    def _next(self, count: int) -> list["Client"]:
        """Those that wait longest; they are the last from now on."""
        found = list(islice(self._clients.values(), count))
        for client in found:
            self._clients[client.owner] = self._clients.pop(client.owner)
        return found

    def _look_at(self, clients: Iterable["Client"]) -> None:
        for client in clients:
            if not self._presence.is_there(client.row) and not is_ending(client.row.pid, client.pidfd):
                self._on_left(client)
