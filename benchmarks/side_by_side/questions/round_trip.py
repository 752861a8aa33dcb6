"""How long is a message there and another one back? 256 bytes; both processes on one core, and on a core each."""

import os
from collections.abc import Sequence
from typing import Final

from benchmarks.side_by_side.measure import PERCENTILES, Cell, Measuring
from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.question import Answer, Figure
from benchmarks.side_by_side.tables import times
from benchmarks.side_by_side.work import Work

NOT_ASKED: Final = ("batches", "loan", "in place")
BROKERLESS: Final = ("ZeroMQ", "faster-fifo", "multiprocessing.Queue")
BODY_BYTES: Final = 256


def ask(measuring: Measuring, peers: Sequence[type[Peer]]) -> list[Answer]:
    """Ask every peer, in both places."""
    asked = [peer for peer in peers if not any(word in peer.name for word in NOT_ASKED)]
    cpus = sorted(os.sched_getaffinity(0))
    one = _answer(measuring, asked, (cpus[0], cpus[0]), "Round trip, 256 B, both processes on one core")
    best_one = _best(one.cells)
    ours = _p50(one.cells, "shmq")
    one.figures = [Figure("round trip on one core, p50", ours, 12, at_most=True, unit=" us")]
    if best_one:
        one.figures.append(
            Figure("the same against the best without a broker", ours / best_one, 0.4, at_most=True, unit="x")
        )
    if len(cpus) == 1:
        return [one]
    two = _answer(measuring, asked, (cpus[0], cpus[1]), "Round trip, 256 B, a core each")
    if best_two := _best(two.cells):
        part = _p50(two.cells, "shmq") / best_two
        two.figures = [Figure("round trip on two cores against the best", part, 1.0, at_most=True, unit="x")]
    return [one, two]


def _answer(measuring: Measuring, peers: Sequence[type[Peer]], cpus: tuple[int, int], title: str) -> Answer:
    cells = measuring.round_trips([Cell(peer, Work(body_bytes=BODY_BYTES)) for peer in peers], cpus)
    names = [f"p{fraction * 100:g} us" for fraction in PERCENTILES]
    answer = Answer(title, ("peer", *names, "against shmq"), cells=cells)
    ours = _p50(cells, "shmq")
    for cell in sorted(cells, key=lambda cell: cell.percentile_us(0.5)):
        values = [f"{cell.percentile_us(fraction):,.1f}" for fraction in PERCENTILES]
        answer.rows.append((cell.peer.name, *values, times(cell.percentile_us(0.5) / ours if ours else 0)))
    answer.notes.append("servers of peers with a broker are not pinned; threads of a peer run where its process does")
    return answer


def _p50(cells: Sequence[Cell], name: str) -> float:
    return next((cell.percentile_us(0.5) for cell in cells if cell.peer.name == name), 0.0)


def _best(cells: Sequence[Cell]) -> float:
    """Return the shortest p50 of the peers without a broker, 0 without any."""
    return min((cell.percentile_us(0.5) for cell in cells if cell.peer.name in BROKERLESS and cell.trips), default=0.0)
