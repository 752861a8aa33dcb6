"""One plot for each question.

Owns: axes and curves. Does not own: figures.
"""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from .measure import Cell
from .question import Answer

INCHES: Final = (9, 5.5)
DPI: Final = 120
TAIL_POINTS: Final = 200
AXES: Final = {"sizes": "bytes of a body", "many": "producers and consumers", "levels": "levels", "backlog": "backlog"}


def draw(name: str, answer: Answer, folder: Path) -> Path:
    """Draw an answer and return the file."""
    figure, axes = plt.subplots(figsize=INCHES, layout="constrained")
    if any(cell.trips for cell in answer.cells):
        _percentiles(axes, answer.cells)
    elif name in AXES:
        _curves(axes, answer.cells, AXES[name])
    else:
        _bars(axes, answer.cells)
    axes.set_title(answer.title)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return path


def _curves(axes: Any, cells: list[Cell], label: str) -> None:  # noqa: ANN401 - matplotlib is untyped here
    for peer in dict.fromkeys(cell.peer.name for cell in cells):
        points = [cell for cell in cells if cell.peer.name == peer and cell.rates]
        xs, rates = [cell.x for cell in points], [cell.rate for cell in points]
        low = [cell.rate - min(cell.rates) for cell in points]
        high = [max(cell.rates) - cell.rate for cell in points]
        weight = 2.5 if peer.startswith("shmq") else 1.2
        axes.errorbar(xs, rates, yerr=[low, high], label=peer, marker="o", markersize=4, linewidth=weight, capsize=2)
    if any(cell.x == 0 for cell in cells):
        axes.set_xscale("symlog", linthresh=1000)
    else:
        axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("messages per second (median; bars: slowest and fastest round)")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)


def _percentiles(axes: Any, cells: list[Cell]) -> None:  # noqa: ANN401 - as above
    """x: how rare, from every second round trip to one in many."""
    for cell in cells:
        if not cell.trips:
            continue
        trips = len(cell.trips[0])
        rarities = [trips ** (i / TAIL_POINTS) for i in range(TAIL_POINTS)]
        values = [cell.percentile_us(1 - 1 / rarity) for rarity in rarities]
        weight = 2.5 if cell.peer.name.startswith("shmq") else 1.2
        axes.plot(rarities, values, label=cell.peer.name, linewidth=weight)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 10, 100, 1000, 10_000], ["p0", "p50", "p90", "p99", "p99.9", "p99.99"])
    axes.set_ylabel("round trip, us (median of the rounds)")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)


def _bars(axes: Any, cells: list[Cell]) -> None:  # noqa: ANN401 - as above
    ordered = sorted(cells, key=lambda cell: cell.rate)
    bars = axes.barh(
        [f"{cell.peer.name} (acks: {cell.peer.acks})" for cell in ordered],
        [cell.rate for cell in ordered],
        color=["C0" if cell.peer.name.startswith("shmq") else "0.7" for cell in ordered],
    )
    axes.bar_label(bars, [f" {cell.rate:,.0f}" for cell in ordered], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("messages per second, median")
