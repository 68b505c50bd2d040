"""The results of a run: medians over its rounds, as a Markdown table and as JSON."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

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

    @property
    def targets(self) -> list[str]:
        """The names of all targets, in the order in which they were measured."""
        return list(dict.fromkeys(target for of_figure in self.rounds.values() for target in of_figure))

    def add(self, target: str, values: dict[Figure, float]) -> None:
        for figure, value in values.items():
            self.rounds[figure][target].append(value)

    def median(self, figure: Figure, target: str) -> float | None:
        values = self.rounds[figure].get(target)
        return statistics.median(values) if values else None

    def ratio(self, figure: Figure, target: str) -> float | None:
        """Return a target's figure as a multiple of nginx's; None if that is not compared or not measured."""
        value, limit = self.median(figure, target), self.median(figure, LIMIT)
        return value / limit if value is not None and limit and figure.times_nginx else None


def reached(goal: Goal, value: float | None, ratio: float | None) -> bool | None:
    """Return whether a target reached a goal; None if the goal's figure was not measured."""
    measured = ratio if goal.times_nginx else value
    return None if measured is None else measured <= goal.limit


def verdict(reached: bool | None) -> str:
    return {True: "yes", False: "NO", None: ""}[reached]


def table(measured: Measured) -> str:
    """Return the medians as a Markdown table."""
    targets = measured.targets
    others = [target for target in targets if target not in {OWN, LIMIT}]
    shown = [target for target in (OWN, *others, LIMIT) if target in targets]
    headings = ["figure", *shown, "goal", "reached"]
    return markdown(headings, [_row(measured, figure, shown) for figure in measured.rounds])


def _row(measured: Measured, figure: Figure, targets: Sequence[str]) -> list[str]:
    own, ratio = measured.median(figure, OWN), measured.ratio(figure, OWN)
    met = verdict(reached(figure.goal, own, ratio)) if figure.goal else ""
    cells = [_cell(measured, figure, target) for target in targets]
    return [f"{figure.name} ({figure.unit})", *cells, str(figure.goal or ""), met]


def _cell(measured: Measured, figure: Figure, target: str) -> str:
    """Return a value, and its multiple of nginx's in brackets."""
    value, ratio = measured.median(figure, target), measured.ratio(figure, target)
    if value is None:
        return ""
    shown = number(value)
    return shown if ratio is None or target == LIMIT else f"{shown} ({number(ratio)} ×)"


def number(value: float) -> str:
    """Return a value with about three significant digits."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def save(measured: Measured, file: Path) -> None:
    targets = measured.targets
    rows = [
        {
            "figure": figure.name,
            "unit": figure.unit,
            "goal": str(figure.goal) if figure.goal else None,
            "targets": {
                target: {
                    "median": measured.median(figure, target),
                    "times_nginx": measured.ratio(figure, target),
                    "rounds": measured.rounds[figure].get(target, []),
                }
                for target in targets
            },
        }
        for figure in measured.rounds
    ]
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
