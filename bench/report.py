"""The results of a run: medians over its rounds, as a table and as JSON."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Goal

LIMIT = "nginx"
OWN = "proxy"
"""The target to which the goals apply."""


@dataclass(slots=True)
class Measured:
    """Every figure of every target, with one value per round."""

    rounds: defaultdict[Figure, defaultdict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, target: str, values: dict[Figure, float]) -> None:
        for figure, value in values.items():
            self.rounds[figure][target].append(value)

    def median(self, figure: Figure, target: str) -> float | None:
        values = self.rounds[figure][target]
        return statistics.median(values) if values else None

    def ratio(self, figure: Figure, target: str) -> float | None:
        """Return a target's figure as a multiple of nginx's; None unless its goal is such a multiple."""
        value, limit = self.median(figure, target), self.median(figure, LIMIT)
        return value / limit if value is not None and limit and figure.goal and figure.goal.times_nginx else None


def reached(goal: Goal, value: float | None, ratio: float | None) -> bool | None:
    """Return whether a target reached a goal; None if the goal's figure was not measured."""
    measured = ratio if goal.times_nginx else value
    return None if measured is None else measured <= goal.limit


def show(measured: Measured, targets: list[str]) -> None:
    table = Table(title="median of all rounds")
    table.add_column("figure", no_wrap=True)
    for target in targets:
        table.add_column(target, justify="right", no_wrap=True)
        if target != LIMIT:
            table.add_column("× nginx", justify="right", no_wrap=True)
        if target == OWN:
            table.add_column("reached", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    for figure in measured.rounds:
        cells = [cell for target in targets for cell in _cells(measured, figure, target)]
        table.add_row(f"{figure.name} ({figure.unit})", *cells, str(figure.goal or ""))
    Console(width=None if Console().is_terminal else 160).print(table)


def _cells(measured: Measured, figure: Figure, target: str) -> list[str]:
    value, ratio = measured.median(figure, target), measured.ratio(figure, target)
    shown = "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"
    if target == LIMIT:
        return [shown]
    cells = [shown, "" if ratio is None else f"{ratio:.1f}"]
    if target == OWN:
        met = reached(figure.goal, value, ratio) if figure.goal else None
        cells.append({True: "yes", False: "NO", None: ""}[met])
    return cells


def save(measured: Measured, targets: list[str], file: Path) -> None:
    rows = [
        {
            "figure": figure.name,
            "unit": figure.unit,
            "goal": str(figure.goal) if figure.goal else None,
            "targets": {
                target: {
                    "median": measured.median(figure, target),
                    "times_nginx": measured.ratio(figure, target),
                    "rounds": measured.rounds[figure][target],
                }
                for target in targets
            },
        }
        for figure in measured.rounds
    ]
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
