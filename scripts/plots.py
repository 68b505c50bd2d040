"""Draws the plots of ``docs/benchmark.md`` from the tables of results in ``bench/README.md``.

A plot is an SVG of horizontal bars in panels. Bars are to scale within a panel; one that would make the others
unreadable is cut off and marked, with its value beside it. Colours follow the theme of the reader's system.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "README.md"
ASSETS = ROOT / "docs" / "assets"

WIDTH = 720
LEFT, RIGHT = 270, 90
"""Room for the names left of the bars, and for the values right of them."""
ROW, BAR = 24, 14
TITLE = 44
CUT = 4
"""A bar is cut off if it is more than this many times as long as the longest of the others."""

STYLE = """\
<style>
  .sheet { fill: #ffffff } text { fill: #22262b; font: 13px system-ui, sans-serif }
  .title { font-weight: 600 } .bar { fill: #9aa5b1 } .own { fill: #1f6feb } .cut { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    .sheet { fill: #1b1f24 } text { fill: #dde3ea } .bar { fill: #6b7682 } .own { fill: #58a6ff } .cut { fill: #1b1f24 }
  }
</style>"""


@dataclass(frozen=True)
class Panel:
    """The bars of one figure: names with values as the table shows them. ``own`` names those of the proxy."""

    title: str
    bars: tuple[tuple[str, str], ...]
    own: frozenset[str] = frozenset({"proxy"})


ALL: frozenset[str] = frozenset()
"""No names: all bars are the proxy's."""

COMPARED = (
    "CPU per event, paced (µs)",
    "CPU per event, in a burst (µs)",
    "CPU per request, whole answer of one event (µs)",
    "memory per open stream (kB)",
    "memory, idle (MB)",
    "added time to first text, p50 (ms)",
)
"""Figures of the table "Comparison" that are drawn."""


def plots() -> dict[Path, str]:
    """Return the plots by their files."""
    results = RESULTS.read_text(encoding="utf-8")
    history = rows(results, "earlier messages")
    stored = rows(results, "stored conversations")
    streams = rows(results, "streams opened at once")
    growth = [
        Panel(
            "CPU per request in a new conversation, by earlier messages (ms)", column(history, "new conversation"), ALL
        ),
        Panel("CPU per request that continues one, by earlier messages (ms)", column(history, "continued"), ALL),
        Panel("CPU per request, by stored conversations (µs)", column(stored, "CPU (µs)"), ALL),
        Panel("Median time to first text, by streams opened at once (ms)", column(streams, "first text p50 (ms)"), ALL),
    ]
    compared = {row["figure"]: row for row in rows(results, "figure")}
    return {
        ASSETS / "bench-comparison.svg": draw([comparison(compared[figure]) for figure in COMPARED]),
        ASSETS / "bench-growth.svg": draw(growth),
    }


def rows(text: str, first: str) -> list[dict[str, str]]:
    """Return the rows, by column, of the table whose first column has the name ``first``."""
    lines = iter(text.splitlines())
    for line, ruler in itertools.pairwise(lines):
        if line.startswith(f"| {first} ") and ruler.startswith("| --"):
            names = cells(line)
            return [dict(zip(names, cells(row), strict=True)) for row in itertools.takewhile(bool, lines)]
    raise ValueError(f"no table whose first column is {first}")


def cells(row: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [cell.strip() for cell in row.strip("|").split("|")]


def comparison(row: dict[str, str]) -> Panel:
    """Return the panel of one figure, a bar for each server that has a value."""
    servers = ("proxy", "TensorZero", "Ferro", "LiteLLM", "nginx")
    return Panel(row["figure"], tuple((name, row[name].partition(" ")[0]) for name in servers if row[name]))


def column(table: list[dict[str, str]], name: str) -> tuple[tuple[str, str], ...]:
    """Return a column with the first cell of each row."""
    return tuple((next(iter(row.values())), row[name]) for row in table)


def draw(panels: list[Panel]) -> str:
    """Return the SVG of panels, one below the other."""
    parts, top = [], 12
    for panel in panels:
        parts.append(draw_panel(panel, top))
        top += TITLE + ROW * len(panel.bars)
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    sheet = f'<rect class="sheet" width="{WIDTH}" height="{top}" rx="8"/>'
    return (
        "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', STYLE, sheet, *parts, "</svg>"])
        + "\n"
    )


def draw_panel(panel: Panel, top: int) -> str:
    """Return a title and its bars."""
    longest = scale(panel)
    lines = [f'<text class="title" x="16" y="{top + 20}">{escape(panel.title)}</text>']
    for index, (name, shown) in enumerate(panel.bars):
        y = top + 32 + index * ROW
        width = round(bar_width(number(shown), longest), 1)
        kind = "own" if name in panel.own or not panel.own else "bar"
        lines.append(f'<text x="{LEFT - 12}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        lines.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width}" height="{BAR}" rx="2"/>')
        if number(shown) > longest:
            x = LEFT + width - 26
            points = f"{x},{y + BAR} {x + 7},{y} {x + 13},{y} {x + 6},{y + BAR}"
            lines.append(f'<polygon class="cut" points="{points}"/>')
        lines.append(f'<text x="{LEFT + width + 8:g}" y="{y + 12}">{escape(shown)}</text>')
    return "\n".join(lines)


def scale(panel: Panel) -> float:
    """Return the value of the longest bar to scale: the largest, unless it dwarfs the others."""
    values = sorted(number(shown) for _, shown in panel.bars)
    return values[-2] * 1.25 if panel.own and values[-1] > CUT * values[-2] else values[-1]


def bar_width(value: float, longest: float) -> float:
    """Return the length of a bar in pixels, at most the whole width."""
    return (WIDTH - LEFT - RIGHT) * min(value / longest, 1)


def number(shown: str) -> float:
    """Parse a value as tables show it: ``1,743``."""
    return float(shown.replace(",", ""))
