"""More producers, more consumers: what becomes of the sum of messages a second, and of each producer's order."""

from collections.abc import Sequence
from typing import Final

from benchmarks.side_by_side.measure import Cell, Measuring
from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.peers.shmq_peer import ShmqOrdered
from benchmarks.side_by_side.processes import throughput
from benchmarks.side_by_side.question import Answer, Figure, rate_of, ratio
from benchmarks.side_by_side.tables import count, times
from benchmarks.side_by_side.work import Work

PAIRS: Final = (1, 2, 4, 8)
QUICK_PAIRS: Final = (1, 4)
NOT_ASKED: Final = ("loan", "socket mode, batches", "amqp")
ORDERED_MESSAGES: Final = 100_000


def ask(measuring: Measuring, peers: Sequence[type[Peer]]) -> list[Answer]:
    """Ask every peer that serves many. 1 to 1 and 4 to 4 are measured in turn, like all cells."""
    pairs = QUICK_PAIRS if measuring.pace.quick else PAIRS
    asked = [peer for peer in peers if peer.serves_many and not any(word in peer.name for word in NOT_ASKED)]
    cells = [Cell(peer, Work(producers=n, consumers=n), x=n) for peer in asked for n in pairs]
    cells = measuring.throughput(cells)
    answer = Answer(
        "n producers, n consumers, 256 B, the sum", ("peer", "n", "messages/s", "+-", "against 1 to 1"), cells=cells
    )
    for cell in cells:
        against = ratio(cell.rate, rate_of(cells, cell.peer.name, 1))
        answer.rows.append((cell.peer.name, f"{cell.x:g}", count(cell.rate), f"{cell.spread:.0%}", times(against)))
    if any(peer.name == "shmq" for peer in asked):
        kept = ratio(rate_of(cells, "shmq", 4), rate_of(cells, "shmq", 1))
        answer.figures = [
            Figure("4 to 4 against 1 to 1", kept, 0.7, unit="x"),
            Figure("messages out of their producer's order, 4 to 4", out_of_order(measuring), 0, at_most=True),
        ]
    return [answer]


def out_of_order(measuring: Measuring) -> int:
    """Return how often a consumer of four saw the numbers of a producer of four go back."""
    work = Work(messages=ORDERED_MESSAGES, producers=4, consumers=4)
    peer = ShmqOrdered(measuring.servers)
    peer.setup(work)
    try:
        return sum(throughput(peer, work).values)
    finally:
        peer.teardown()
