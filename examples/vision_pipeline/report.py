"""What people see: progress while it runs (bars in a terminal, plain lines elsewhere), tables at the end."""

import time
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .photos import TileFile
from .pipeline import Outcome
from .topology import RESULTS, STAGES

PLAIN_INTERVAL_S = 1.0
SECOND_NS = 1_000_000_000


class LiveProgress:
    """One bar per stage, or a line a second where there is no terminal. A context manager."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        columns = (TextColumn("{task.description:>9}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks = {stage: self._bars.add_task(stage, total=total) for stage in (*STAGES, RESULTS)}
        self._next_line = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, settled: Mapping[str, int]) -> None:
        """Bring the bars up to date, or write a line if the last one is old enough."""
        for stage, count in settled.items():
            self._bars.update(self._tasks[stage], completed=count)
        if not self._console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_INTERVAL_S
            self._console.print("  ".join(f"{stage} {count}/{self._total}" for stage, count in settled.items()))

    def tell(self, line: str) -> None:
        """Write a line above the bars."""
        self._console.print(f"[yellow]>[/] {line}", highlight=False)


def stage_table(totals: Mapping[str, Mapping[str, int]], outcome: Outcome) -> Table:
    """Per queue: the broker's own counters, and how long the tiles waited in it and were worked on."""
    columns = ("processed", "redelivered", "dead", "waiting, ms", "work, ms")
    table = heading("Stages (times: p50 / p99)", "stage", *columns)
    trails = [result.headers["trail"] for result in outcome.results.values()]
    for stage, counts in totals.items():
        waiting, work = np.transpose([trail[stage] for trail in trails])
        figures = (str(counts[name]) for name in ("acked", "requeued", "dead"))
        table.add_row(stage, *figures, percentiles(waiting), percentiles(work))
    return table


def percentiles(durations_ns: npt.NDArray[np.int64]) -> str:
    """Return p50 and p99 in milliseconds."""
    return " / ".join(f"{ns / 1e6:.{0 if ns > SECOND_NS else 1}f}" for ns in np.percentile(durations_ns, (50, 99)))


def heading(title: str, first: str, *others: str) -> Table:
    """Return an empty table: its first column is text, the others are figures."""
    table = Table(first, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for other in others:
        table.add_column(other, justify="right")
    return table


def photo_table(files: Iterable[TileFile], outcome: Outcome) -> Table:
    """Per photograph, in the order in which they were finished: the urgent one overtook the others."""
    photos: dict[str, list[TileFile]] = {}
    for file in files:
        if file.tile_id in outcome.results:
            photos.setdefault(file.photo, []).append(file)
    columns = ("priority", "tiles", "published", "first result", "last result")
    table = heading("Photographs, in the order they were finished", "photograph", *columns)
    for tiles in sorted(photos.values(), key=lambda tiles: last_result_s(tiles, outcome)):
        published = min(outcome.published_s[tile.tile_id] for tile in tiles)
        first = min(outcome.results[tile.tile_id].finished_s for tile in tiles)
        times = (f"{seconds:.2f} s" for seconds in (published, first, last_result_s(tiles, outcome)))
        urgency, style = ("urgent", "bold yellow") if tiles[0].urgent else ("", None)
        table.add_row(tiles[0].photo, urgency, str(len(tiles)), *times, style=style)
    return table


def last_result_s(tiles: Iterable[TileFile], outcome: Outcome) -> float:
    """Return when the last of the tiles was finished."""
    return max(outcome.results[tile.tile_id].finished_s for tile in tiles)


def dead_letter_table(outcome: Outcome) -> Table:
    """Per dead letter, what its x-death header says: where it died, why, how often."""
    columns = ("queue", "reason", "count", "routing keys", "time")
    table = heading("Dead letters, by their x-death", "tile", *columns)
    for tile_id, headers in outcome.dead_letters.items():
        for death in headers["x-death"]:
            died = (death["queue"], death["reason"], str(death["count"]), ", ".join(death["routing-keys"]))
            table.add_row(tile_id, *died, f"{death['time'].astimezone():%H:%M:%S}")
    return table
