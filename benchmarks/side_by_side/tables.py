"""Numbers and tables for people, in plain text.

Owns: their form. Does not own: what is in them.
"""

import re
from collections.abc import Sequence
from typing import Final

from .question import Answer, Figure

BINARY: Final = ("B", "KiB", "MiB", "GiB")
NUMBER: Final = re.compile(r"-|[\d.,e+-]+ ?([KMG]?i?B|us|/s|[%x])?")


def count(value: float) -> str:
    """Return a number with three digits at least, in groups."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def times(value: float) -> str:
    """Return a ratio; a dash where there is none."""
    return f"{value:,.2f}x" if value else "-"


def size(value: float) -> str:
    """Return a number of bytes with a binary unit."""
    unit = 0
    while value >= 1024 and unit < len(BINARY) - 1:  # noqa: PLR2004 - binary
        value, unit = value / 1024, unit + 1
    return f"{value:g} {BINARY[unit]}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns aligned, numbers to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    right = [bool(rows) and all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([line(columns), rule, *map(line, rows)])


def answer_text(answer: Answer) -> str:
    """Return an answer with its notes and the cells that failed."""
    failed = [f"{cell.peer.name} (x = {cell.x:g}) failed: {cell.failed}" for cell in answer.cells if cell.failed]
    return "\n".join([f"\n## {answer.title}\n", table(answer.columns, answer.rows), *answer.notes, *failed])


def goals_text(figures: Sequence[Figure]) -> str:
    """Return what was aimed at and what was measured."""
    rows = [
        (
            figure.what,
            count(figure.value) + figure.unit,
            f"{'<=' if figure.at_most else '>='} {count(figure.goal)}{figure.unit}",
            ("met" if figure.is_met else "not met") if figure.is_measured else "not measured",
        )
        for figure in figures
    ]
    return "\n".join(["\n## Goals\n", table(("figure", "measured", "goal", ""), rows)])
