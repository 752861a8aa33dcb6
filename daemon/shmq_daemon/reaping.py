"""What is done for a client that died, left, or lost its session: its messages go back, its waiters' bells are rung.

Owns: who is a client and alive as far as the supervisor knows, and the order of a reap. Does not own: how a queue is
reaped (the core), who is told.
Invariants: only an index that is known dead is reaped whole: one without a row may have been given away a moment ago.
The registry's bitmap says which queues a client was ever given, so no other queue is walked.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from shmq.core import _core
from shmq_daemon.link import ClientJoined
from shmq_daemon.log import Logger
from shmq_daemon.loop import Loop
from shmq_daemon.peer import is_dead
from shmq_daemon.registry import SUPERVISORS, Registry, brokers_before
from shmq_daemon.watched import Quarantine, Watched

NOTHING: Final = (0, 0, 0)
LIVE_BYTES: Final = 8192  # one bit for each of the 65,536 indices that an owner field can hold


class Client:
    """One client index that is in use. `pidfd` is -1 where its process is known only by its socket, or dead."""

    __slots__ = ("alive", "incarnation", "owner", "pid", "pidfd")

    def __init__(self, frame: ClientJoined, pidfd: int) -> None:
        self.owner = frame.owner
        self.incarnation = frame.incarnation
        self.pid = frame.pid
        self.alive = frame.alive
        self.pidfd = pidfd


class Clients:
    """Every client index in use; calls back once for each that dies."""

    def __init__(self, loop: Loop, on_dead: Callable[[int], None]) -> None:
        self._loop = loop
        self._on_dead = on_dead
        self._by_owner: dict[int, Client] = {}

    def __contains__(self, owner: int) -> bool:
        return owner in self._by_owner

    def __getitem__(self, owner: int) -> Client:
        return self._by_owner[owner]

    def __len__(self) -> int:
        return len(self._by_owner)

    def add(self, frame: ClientJoined, pidfd: int) -> None:
        self._by_owner[frame.owner] = Client(frame, pidfd)
        if pidfd >= 0:
            self._loop.add(pidfd, functools.partial(self._on_pidfd, frame.owner))

    def _on_pidfd(self, owner: int, _events: int) -> None:
        """Asked once more: an event may be that of a descriptor which was closed, and whose number this one got."""
        if owner in self._by_owner and is_dead(self._by_owner[owner].pidfd):
            self._by_owner[owner].alive = False
            self._loop.remove(self._by_owner[owner].pidfd)
            self._on_dead(owner)

    def dead(self) -> list[int]:
        return [client.owner for client in self._by_owner.values() if not client.alive]

    def remove(self, client: Client) -> None:
        del self._by_owner[client.owner]
        if client.pidfd >= 0:
            self._loop.remove(client.pidfd)
            os.close(client.pidfd)

    def forget_all(self) -> None:
        for client in list(self._by_owner.values()):
            self.remove(client)


class Reaper:
    """Reaps in the queues of one world."""

    def __init__(self, registry: Registry, watched: dict[int, Watched], quarantine: Quarantine, log: Logger) -> None:
        self._registry = registry
        self._watched = watched
        self._quarantine = quarantine
        self._log = log
        self.counts: Counter[str] = Counter()

    def reap(self, client: Client, *, count_failure: bool) -> list[Watched]:
        """Everything of a dead client, in every queue it was ever given: those are returned."""
        why = "died" if count_failure else "closed"
        given = self._given(client.owner)
        for watched in given:
            found = self._quarantine.run(
                watched, lambda w: w.core.reap(client.owner, count_failure=count_failure), NOTHING
            )
            self._settled(watched, client, why, found)
        return given

    def requeue_unacked(self, client: Client, *, count_failure: bool) -> None:
        """Of a living process: only its unacked messages; what it has half written is its own."""
        why = "session lost" if count_failure else "closed"
        for watched in self._given(client.owner):
            found = self._quarantine.run(
                watched,
                lambda w: w.core.reap(client.owner, count_failure=count_failure, lost_session=True),
                NOTHING,
            )
            self._settled(watched, client, why, found)

    def recover(self, watched: Watched, broker: int, supervisor: int, dead: Iterable[int]) -> None:
        """What earlier daemon processes left goes back uncounted, what dead clients left counts.

        This broker may have died meanwhile, and the next one be at work before we hear of it.
        """
        ours = [*brokers_before(broker), *(index for index in SUPERVISORS if index != supervisor)]
        for owners, counted in ((ours, False), (dead, True)):
            live = _all_but(owners)
            requeued, died, freed = watched.core.reap_except(live, count_failure=counted)
            if requeued or died or freed:
                self.counts["requeued"] += requeued
                self._log.info(
                    "queue recovered", queue=watched.name, requeued=requeued, dead=died, freed=freed, counted=counted
                )
        _ring(watched)

    def _given(self, owner: int) -> list[Watched]:
        return [w for w in self._watched.values() if self._registry.had(w.queue.number, owner)]

    def _settled(self, watched: Watched, client: Client, why: str, found: tuple[int, int, int]) -> None:
        requeued, dead, freed = found
        self._quarantine.run(watched, _ring, None)
        self.counts["requeued"] += requeued
        if requeued or dead or freed:
            self._log.info(
                "client reaped",
                queue=watched.name,
                client=client.owner,
                pid=client.pid,
                why=why,
                requeued=requeued,
                dead=dead,
                freed=freed,
                mode="direct",
            )


def _ring(watched: Watched) -> None:
    """A waiter may have died with the token that was meant for all."""
    watched.core.bell_ring(_core.CONSUMERS)
    watched.core.bell_ring(_core.PRODUCERS)


def _all_but(owners: Iterable[int]) -> bytes:
    live = bytearray(b"\xff" * LIVE_BYTES)
    for owner in owners:
        live[owner >> 3] &= ~(1 << (owner & 7)) & 0xFF
    return bytes(live)
