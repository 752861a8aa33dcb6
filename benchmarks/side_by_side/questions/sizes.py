"""What does the size of a body cost? 64 B to 64 MiB, and a copy of memory that no cache holds beside them."""

import time
from collections.abc import Sequence
from typing import Final

from benchmarks.side_by_side.measure import Cell, Measuring
from benchmarks.side_by_side.peer import Peer
from benchmarks.side_by_side.question import Answer, Figure, rate_of, ratio
from benchmarks.side_by_side.tables import count, size
from benchmarks.side_by_side.work import KIB, MIB, Work

SIZES: Final = (64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
QUICK_SIZES: Final = (256, 16 * KIB, MIB, 64 * MIB)
QUICK_SERVER_BYTES_MAX: Final = MIB  # of peers with a server of their own
NOT_ASKED: Final = ("socket mode, batches", "amqp")
COPIED_BYTES: Final = 256 * MIB  # more than the caches hold
LOAN: Final = "shmq, loan and view"


def ask(measuring: Measuring, peers: Sequence[type[Peer]]) -> list[Answer]:
    """Ask every peer, one size after the other."""
    cells: list[Cell] = []
    copies: list[float] = []
    for body_bytes in QUICK_SIZES if measuring.pace.quick else SIZES:
        asked = [peer for peer in peers if not any(word in peer.name for word in NOT_ASKED)]
        if measuring.pace.quick and body_bytes > QUICK_SERVER_BYTES_MAX:
            asked = [peer for peer in asked if peer.program is None]
        cells += measuring.throughput([Cell(peer, Work(body_bytes=body_bytes), x=body_bytes) for peer in asked])
        if body_bytes == MIB:
            copies = [cold_copies_per_second(body_bytes) for _ in range(measuring.pace.rounds)]
    columns = ("size", "peer", "messages/s", "MiB/s", "+-")
    answer = Answer("1 producer, 1 consumer, by size of the body", columns, cells=cells)
    for cell in cells:
        mib_per_s = cell.rate * cell.work.body_bytes / MIB
        answer.rows.append((size(cell.x), cell.peer.name, count(cell.rate), count(mib_per_s), f"{cell.spread:.0%}"))
    if copies:
        _against_memory(answer, sorted(copies)[len(copies) // 2])
    return [answer]


def _against_memory(answer: Answer, copies: float) -> None:
    cells = answer.cells
    answer.notes.append(f"a cold copy of 1 MiB, cycling through {COPIED_BYTES // MIB} MiB: {count(copies)} a second")
    ours, loaned = rate_of(cells, "shmq", MIB), rate_of(cells, LOAN, MIB)
    answer.figures = [
        Figure("1 MiB copied in and out against a cold copy", ratio(ours, copies), 0.5, unit="x"),
        Figure("1 MiB copied in and out against ZeroMQ", ratio(ours, rate_of(cells, "ZeroMQ", MIB)), 2, unit="x"),
        Figure("1 MiB, loan and view", loaned, 25_000, unit="/s"),
        Figure("64 MiB, loan and view, against 1 MiB", ratio(rate_of(cells, LOAN, 64 * MIB), loaned), 0.5, unit="x"),
    ]


def cold_copies_per_second(body_bytes: int) -> float:
    """Return how often a second so many bytes can be copied from and to memory that was last used long ago."""
    source, target = memoryview(bytearray(COPIED_BYTES)), memoryview(bytearray(COPIED_BYTES))
    source[:] = b"x" * COPIED_BYTES
    target[:] = source
    start = time.perf_counter()
    for offset in range(0, COPIED_BYTES, body_bytes):
        target[offset : offset + body_bytes] = source[offset : offset + body_bytes]
    return COPIED_BYTES // body_bytes / (time.perf_counter() - start)
