"""What a question is, and what it leaves behind: a table, a plot, ratios.

Owns: the form of an answer. Does not own: how it is drawn (plots.py) and printed (tables.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .measure import Cell, Measuring
from .peer import Peer


@dataclass(frozen=True)
class Figure:
    """One number that the project has set itself as a goal. `value` is at least the goal, or at most."""

    what: str
    value: float
    goal: float
    at_most: bool = False
    unit: str = ""

    @property
    def is_measured(self) -> bool:
        """A peer that it needs may have been left out."""
        return self.value > 0 or (self.at_most and self.goal == 0)

    @property
    def is_met(self) -> bool:
        return self.is_measured and (self.value <= self.goal if self.at_most else self.value >= self.goal)


@dataclass
class Answer:
    """Rows are printed as a table; `curves` are drawn: name, xs, ys."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "title": self.title,
            "cells": [cell.facts() for cell in self.cells],
            "figures": [vars(figure) | {"is_met": figure.is_met} for figure in self.figures],
            "notes": self.notes,
        }


Question = Callable[[Measuring, Sequence[type[Peer]]], list[Answer]]
"""Asks all peers; returns one answer or several."""


def rate_of(cells: Sequence[Cell], name: str, x: float | None = None) -> float:
    """Return the rate of the peer of that name, 0 if it was not measured."""
    return next((cell.rate for cell in cells if cell.peer.name == name and x in (None, cell.x)), 0.0)


def ratio(above: float, below: float) -> float:
    """Return above / below, 0 where nothing was measured."""
    return above / below if below else 0.0


def best(cells: Sequence[Cell], names: Sequence[str]) -> float:
    """Return the highest rate of several peers."""
    return max((rate_of(cells, name) for name in names), default=0.0)
