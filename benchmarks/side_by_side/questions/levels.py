"""What do priorities cost? Messages of all levels in turn, 1 to 255 levels."""

from collections.abc import Sequence
from typing import Final

from benchmarks.side_by_side.measure import Cell, Measuring
from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.question import Answer, Figure, rate_of, ratio
from benchmarks.side_by_side.tables import count, times
from benchmarks.side_by_side.work import Work

LEVELS: Final = (1, 2, 8, 32, 128, 255)
QUICK_LEVELS: Final = (1, 16, 255)
NOT_ASKED: Final = ("batches", "loan", "socket", "amqp")


def ask(measuring: Measuring, peers: Sequence[type[Peer]]) -> list[Answer]:
    """Ask every peer that has priorities; all numbers of levels of a peer in turn."""
    cells: list[Cell] = []
    for peer in peers:
        if peer.levels_max > 1 and not any(word in peer.name for word in NOT_ASKED):
            levels = QUICK_LEVELS if measuring.pace.quick else LEVELS
            cells += measuring.throughput([Cell(peer, Work(levels=n), x=n) for n in levels])
    columns = ("peer", "levels", "messages/s", "+-", "against 1 level")
    answer = Answer("1 producer, 1 consumer, 256 B, by levels", columns, cells=cells)
    for cell in cells:
        against = ratio(cell.rate, rate_of(cells, cell.peer.name, 1))
        answer.rows.append((cell.peer.name, f"{cell.x:g}", count(cell.rate), f"{cell.spread:.0%}", times(against)))
    kept = ratio(rate_of(cells, "shmq", 255), rate_of(cells, "shmq", 1))
    answer.figures = [Figure("255 levels against 1", kept, 0.8, unit="x")]
    return [answer]
