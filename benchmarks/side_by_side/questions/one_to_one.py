"""How many messages a second go from one producer to one consumer? 256 bytes each."""

from collections.abc import Sequence

from benchmarks.side_by_side.measure import Cell, Measuring
from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.question import Answer, Figure, best, rate_of, ratio
from benchmarks.side_by_side.tables import count, times
from benchmarks.side_by_side.work import Work

RABBITS = ("RabbitMQ, pika", "RabbitMQ, amqp")
REDIS = "Redis Streams, by 100"


def ask(measuring: Measuring, peers: Sequence[type[Peer]]) -> list[Answer]:
    """Ask every peer."""
    cells = measuring.throughput([Cell(peer, Work()) for peer in peers if not peer.name.endswith("in place")])
    ours = rate_of(cells, "shmq")
    answer = Answer("1 producer, 1 consumer, 256 B", ("peer", "acks", "messages/s", "+-", "shmq is"), cells=cells)
    for cell in sorted(cells, key=lambda cell: -cell.rate):
        answer.rows.append(
            (cell.peer.name, cell.peer.acks, count(cell.rate), f"{cell.spread:.0%}", times(ratio(ours, cell.rate)))
        )
    rabbit, socket = best(cells, RABBITS), rate_of(cells, "shmq, socket mode")
    answer.figures = [
        Figure("1 to 1, 256 B, acked one by one", ours, 1_000_000, unit="/s"),
        Figure("1 to 1 against Redis Streams by 100", ratio(ours, rate_of(cells, REDIS)), 6, unit="x"),
        Figure("1 to 1 against RabbitMQ", ratio(ours, rabbit), 40, unit="x"),
        Figure("1 to 1, batches of 100", rate_of(cells, "shmq, batches of 100"), 2_000_000, unit="/s"),
        Figure("socket mode against RabbitMQ", ratio(socket, rabbit), 2, unit="x"),
        Figure("socket mode, batches", rate_of(cells, "shmq, socket mode, batches of 100"), 60_000, unit="/s"),
    ]
    return [answer]
