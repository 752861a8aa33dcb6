"""Runs the roles of a peer in processes of their own and takes the time.

Owns: processes, the start they have in common, pinning, the limit in time. Does not own: what the roles do.
Invariants: the clock starts when everybody is connected and waiting, and stops when the last consumer has its last
message (CLOCK_MONOTONIC is one clock for all processes). Consumers close when they have theirs, so that what was sent
to them ahead goes to others; all else stays until everybody is through. No process is left.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NamedTuple

from .peer import Peer, Role
from .work import Work

START_SECONDS: Final = 30.0
RUN_SECONDS: Final = 60.0
FILL_SECONDS: Final = 300.0
END_SECONDS: Final = 10.0
WARM_UP: Final = 200  # round trips before those that count
_processes: Final = multiprocessing.get_context("fork")


class RoleFailed(Exception):  # noqa: N818 - says what is the case
    """A process failed or did not come to its end in time."""


class Outcome(NamedTuple):
    """What a role's function returned, and when."""

    ended_ns: int
    value: Any


class Player:
    """One process that plays one role."""

    def __init__(self, name: str, make: Callable[[], Role], *, cpu: int | None = None, stays: bool = True) -> None:
        self.name = name
        self.pipe, theirs = _processes.Pipe()
        self.process = _processes.Process(target=_play, args=(make, cpu, stays, theirs), name=name, daemon=True)
        self.process.start()
        theirs.close()

    def hear(self) -> Any:  # noqa: ANN401 - what a role returns
        """Return what it says next. Raises RoleFailed."""
        try:
            said = self.pipe.recv()
        except EOFError:
            raise RoleFailed(f"{self.name}: died") from None
        if isinstance(said, str) and said:
            raise RoleFailed(f"{self.name}: {said}")
        return said

    def tell(self) -> None:
        """Let it go on."""
        self.pipe.send(None)

    def bid_farewell(self) -> None:
        """Let it close, if it has not."""
        with suppress(OSError):
            self.tell()

    def end(self) -> None:
        """Wait for its end, or make it."""
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()
        self.pipe.close()


def _play(make: Callable[[], Role], cpu: int | None, stays: bool, pipe: Connection) -> None:  # noqa: FBT001 - one call
    try:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        with make() as run:
            pipe.send("")
            pipe.recv()
            value = run()
            outcome = Outcome(time.monotonic_ns(), value)
            if stays:
                pipe.send(outcome)
                pipe.recv()
        if not stays:
            pipe.send(outcome)
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the parent is told
        where = traceback.format_tb(error.__traceback__)[-1:]
        pipe.send("".join([*traceback.format_exception_only(error), *where]))


@contextmanager
def _players() -> Iterator[list[Player]]:
    players: list[Player] = []
    try:
        yield players
        for player in players:
            player.bid_farewell()
    except BaseException:
        for player in players:
            player.process.kill()
        raise
    finally:
        for player in players:
            player.end()


def _hear_all(players: Sequence[Player], seconds: float) -> list[Any]:
    """Return what each says next, the first failure of any at once. Raises RoleFailed."""
    said: dict[Player, Any] = {}
    deadline = time.monotonic() + seconds
    while waiting := [player for player in players if player not in said]:
        ready = wait([player.pipe for player in waiting], max(deadline - time.monotonic(), 0))
        if not ready:
            raise RoleFailed(f"{waiting[0].name}: nothing within {seconds:g} s")
        said |= {player: player.hear() for player in waiting if player.pipe in ready}
    return [said[player] for player in players]


class Throughput(NamedTuple):
    """What a run took, and what the consumers returned."""

    seconds: float
    values: Sequence[Any]


def throughput(peer: Peer, work: Work) -> Throughput:
    """Let producers and consumers do the work once. Raises RoleFailed."""
    with _players() as players:
        for i in range(work.consumers):
            players.append(Player(f"{peer.name} consumer {i}", lambda i=i: peer.consumer(work, i), stays=False))  # type: ignore[misc] # i is bound
        for i in range(work.producers):
            players.append(Player(f"{peer.name} producer {i}", lambda i=i: peer.producer(work, i)))  # type: ignore[misc] # i is bound
        _hear_all(players, START_SECONDS)
        start_ns = time.monotonic_ns()
        for player in players:
            player.tell()
        outcomes = _hear_all(players, RUN_SECONDS)[: work.consumers]
        return Throughput(
            (max(outcome.ended_ns for outcome in outcomes) - start_ns) / 1e9, [outcome.value for outcome in outcomes]
        )


def fill(peer: Peer, work: Work) -> None:
    """Publish the work's messages and leave them there. Raises RoleFailed."""
    with _players() as players:
        players.append(Player(f"{peer.name} producer", lambda: peer.producer(work, 0)))
        _hear_all(players, START_SECONDS)
        players[0].tell()
        _hear_all(players, FILL_SECONDS)


def round_trips(peer: Peer, work: Work, cpus: tuple[int, int]) -> list[int]:
    """Return the ns of each round trip between two processes pinned to these cores. Raises RoleFailed."""
    warm = work.of(work.messages + WARM_UP)
    with _players() as players:
        players.append(Player(f"{peer.name} echo", lambda: peer.echo(warm), cpu=cpus[1]))
        _hear_all(players, START_SECONDS)
        players.append(Player(f"{peer.name} ping", lambda: peer.ping(warm), cpu=cpus[0]))
        _hear_all(players[1:], START_SECONDS)
        for player in players:
            player.tell()
        taken: list[int] = _hear_all(players, RUN_SECONDS)[1].value
        return taken[WARM_UP:]
