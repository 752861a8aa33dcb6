"""Measures cells: one peer on one kind of work each, all cells of a group in turn, round after round.

Owns: how much work a run gets, the rounds, the median. Does not own: processes (processes.py), what is asked.
Invariants: all cells of a group see the same weather: round 1 of each comes before round 2 of any. A cell that fails is
reported with its reason and left out of later rounds.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import shmq

from .peer import Peer
from .processes import RoleFailed, fill, round_trips, throughput
from .servers.server import ServerFailed
from .servers.servers import Servers
from .work import MIB, RUN_MESSAGES_MAX, RUN_MESSAGES_MIN, Work

FIRST_MESSAGES: Final = 64
FIRST_BYTES: Final = 16 * MIB  # the first run must not take minutes where bodies are large
GROWTH_MAX: Final = 16.0
PERCENTILES: Final = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Pace:
    """How thorough a run is."""

    rounds: int = 5
    seconds: float = 1.0  # of a round, about
    trips: int = 10_000
    quick: bool = False


@dataclass
class Cell:
    """A peer on a kind of work. `x`: where it stands on the axis of the plot."""

    peer: type[Peer]
    work: Work
    x: float = 0
    rates: list[float] = field(default_factory=list)  # messages a second, one a round
    trips: list[list[int]] = field(default_factory=list)  # ns of each round trip, sorted, one list a round
    failed: str = ""

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates) if self.rates else 0.0

    @property
    def spread(self) -> float:
        """Half the distance between the fastest and the slowest round, as a part of the median."""
        return (max(self.rates) - min(self.rates)) / 2 / self.rate if self.rates else 0.0

    def percentile_us(self, fraction: float) -> float:
        """Return the median over the rounds of a percentile of round trips."""
        return statistics.median(at(trips, fraction) for trips in self.trips) / 1e3 if self.trips else 0.0

    def facts(self) -> dict[str, Any]:
        """Return it as plain data."""
        shape = {name: value for name, value in vars(self.work).items() if name != "messages"}
        facts: dict[str, Any] = {"peer": self.peer.name, "acks": self.peer.acks, "x": self.x, **shape}
        if self.rates:
            facts |= {"rate": round(self.rate, 1), "rates": [round(rate, 1) for rate in self.rates]}
        if self.trips:
            facts["percentiles_us"] = {str(part): round(self.percentile_us(part), 2) for part in PERCENTILES}
        return facts | ({"failed": self.failed} if self.failed else {})


def at(ordered: Sequence[int], fraction: float) -> int:
    """Return the value at a fraction of sorted values."""
    return ordered[min(int(len(ordered) * fraction), len(ordered) - 1)]


class Measuring:
    """Measures groups of cells with one set of servers."""

    def __init__(self, servers: Servers, pace: Pace) -> None:
        self.servers = servers
        self.pace = pace

    def throughput(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return those cells that could be measured, with their rates."""

        def prepare(cell: Cell, peer: Peer) -> Callable[[], None]:
            if cell.work.backlog:
                fill(peer, cell.work.of(cell.work.backlog))
            work = self._enough(peer, cell.work)
            return lambda: cell.rates.append(work.messages / throughput(peer, work).seconds)

        return self._in_turn(cells, prepare)

    def round_trips(self, cells: Iterable[Cell], cpus: tuple[int, int]) -> list[Cell]:
        """Return those cells that could be measured, with their round trips."""

        def prepare(cell: Cell, peer: Peer) -> Callable[[], None]:
            work = cell.work.of(self.pace.trips)
            return lambda: cell.trips.append(sorted(round_trips(peer, work, cpus)))

        return self._in_turn(cells, prepare)

    def _in_turn(self, cells: Iterable[Cell], prepare: Callable[[Cell, Peer], Callable[[], None]]) -> list[Cell]:
        able = [cell for cell in cells if cell.peer(self.servers).can(cell.work)]
        with ExitStack() as stack:
            runs = [(cell, run) for cell in able if (run := self._prepared(cell, prepare, stack)) is not None]
            for _ in range(self.pace.rounds):
                for cell, run in runs:
                    if not cell.failed:
                        _attempt(cell, run)
        return able

    def _prepared(
        self, cell: Cell, prepare: Callable[[Cell, Peer], Callable[[], None]], stack: ExitStack
    ) -> Callable[[], None] | None:
        peer = cell.peer(self.servers)
        runs: list[Callable[[], None]] = []

        def make() -> None:
            peer.setup(cell.work)
            stack.callback(_teardown, peer)
            runs.append(prepare(cell, peer))

        _attempt(cell, make)
        return runs[0] if runs else None

    def _enough(self, peer: Peer, work: Work) -> Work:
        """Return the work with as many messages as take about the pace's seconds.

        The first run warms up: it makes the memory that is used again later.
        """
        wanted = self.pace.seconds
        most = work.messages_max if peer.copies else RUN_MESSAGES_MAX
        messages = max(min(FIRST_MESSAGES, FIRST_BYTES // max(work.body_bytes, 1)), RUN_MESSAGES_MIN)
        throughput(peer, work.of(messages))
        while True:
            messages = min(messages, most)
            seconds = throughput(peer, work.of(messages)).seconds
            growth = min(wanted / seconds, GROWTH_MAX)
            if growth < 1.5 or messages == most:  # noqa: PLR2004 - near enough
                return work.of(messages)
            messages = int(messages * growth)


def _attempt(cell: Cell, run: Callable[[], None]) -> None:
    try:
        run()
    except (RoleFailed, ServerFailed, shmq.ShmqError, OSError) as error:
        cell.failed = " ".join(str(error).split())[-200:]
        print(f"  {cell.peer.name} failed: {cell.failed}", file=sys.stderr, flush=True)


def _teardown(peer: Peer) -> None:
    with suppress(shmq.ShmqError, OSError):
        peer.teardown()
