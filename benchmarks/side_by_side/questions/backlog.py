"""What does a backlog cost? 0 to 1,000,000 messages of 256 bytes, which stay: as many come as go."""

from collections.abc import Sequence
from typing import Final

from benchmarks.side_by_side.measure import Cell, Measuring
from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.question import Answer, Figure, rate_of, ratio
from benchmarks.side_by_side.tables import count, times
from benchmarks.side_by_side.work import Work

BACKLOGS: Final = (0, 1_000, 10_000, 100_000, 1_000_000)
QUICK_BACKLOGS: Final = (0, 1_000_000)
QUICK_PEER_BACKLOG: Final = 20_000
NOT_ASKED: Final = ("batches", "loan", "socket", "amqp")


def ask(measuring: Measuring, peers: Sequence[type[Peer]]) -> list[Answer]:
    """Ask every peer that keeps messages; all backlogs of a peer in turn."""
    cells: list[Cell] = []
    for peer in peers:
        if peer.backlog_max and not any(word in peer.name for word in NOT_ASKED):
            backlogs: Sequence[int] = [n for n in BACKLOGS if n <= peer.backlog_max]
            if measuring.pace.quick:
                backlogs = QUICK_BACKLOGS if peer.name == "shmq" else (0, QUICK_PEER_BACKLOG)
            cells += measuring.throughput([Cell(peer, Work(backlog=n), x=n) for n in backlogs])
    columns = ("peer", "backlog", "messages/s", "+-", "against none")
    answer = Answer("1 producer, 1 consumer, 256 B, by backlog", columns, cells=cells)
    for cell in cells:
        against = ratio(cell.rate, rate_of(cells, cell.peer.name, 0))
        answer.rows.append((cell.peer.name, f"{cell.x:,.0f}", count(cell.rate), f"{cell.spread:.0%}", times(against)))
    kept = ratio(rate_of(cells, "shmq", 1_000_000), rate_of(cells, "shmq", 0))
    answer.figures = [Figure("a backlog of 1,000,000 against none", kept, 0.8, unit="x")]
    return [answer]
