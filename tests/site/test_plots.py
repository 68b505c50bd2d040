"""The plots show the figures of the bench, to scale."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree.ElementTree import Element, fromstring

import pytest

from scripts.plots import LEFT, RESULTS, RIGHT, WIDTH, Panel, draw, plots, rows

SVG = "{http://www.w3.org/2000/svg}"
FULL = WIDTH - LEFT - RIGHT


def bars(svg: str) -> list[tuple[str, float, str]]:
    """Return name, length and shown value of each bar."""
    elements = list(fromstring(svg))
    found = []
    for index, element in enumerate(elements):
        if element.tag == f"{SVG}rect" and element.get("class") in ("own", "bar"):
            value = next(later for later in elements[index + 1 :] if later.tag == f"{SVG}text")
            found.append((text(elements[index - 1]), float(element.attrib["width"]), text(value)))
    return found


def text(element: Element) -> str:
    return element.text or ""


def test_bars_are_to_scale() -> None:
    drawn = bars(draw([Panel("a", (("proxy", "1.5"), ("other", "3"), ("nginx", "0.75")))]))
    assert drawn == [("proxy", FULL / 2, "1.5"), ("other", FULL, "3"), ("nginx", FULL / 4, "0.75")]


def test_a_bar_that_dwarfs_the_others_is_cut_and_marked() -> None:
    svg = draw([Panel("a", (("proxy", "10"), ("other", "1,000")))])
    assert bars(svg) == [("proxy", FULL * 0.8, "10"), ("other", FULL, "1,000")]
    assert svg.count("<polygon") == 1


def test_text_is_escaped() -> None:
    assert bars(draw([Panel("a < b", (("<proxy>", "1"), ("other", "1")))]))[0] == ("<proxy>", FULL, "1")


def test_a_missing_table_is_named() -> None:
    with pytest.raises(ValueError, match="figure"):
        rows("| figure | proxy |\n\nno table", "figure")


@pytest.mark.parametrize("svg", plots().values(), ids=[path.name for path in plots()])
def test_every_value_is_one_of_the_bench(svg: str) -> None:
    drawn = bars(svg)
    assert len(drawn) >= 18
    results = RESULTS.read_text(encoding="utf-8")
    for name, _, value in drawn:
        cell = re.escape(value) + r"(?: \([\d.,]+ ×\))?"
        assert re.search(rf"\| {cell} +\|", results), (name, value)


def test_longer_bars_have_larger_values() -> None:
    for svg in plots().values():
        for (_, first, shown), (_, second, other) in pairwise(bars(svg)[:3]):
            assert (first < second) == (float(shown.replace(",", "")) < float(other.replace(",", "")))


FIGURES = {
    "CPU per streamed event (µs)": "CPU per event, paced (µs)",
    "CPU per whole answer (µs)": "CPU per request, whole answer of one event (µs)",
    "memory per open stream (kB)": "memory per open stream (kB)",
    "added time to first text, median (ms)": "added time to first text, p50 (ms)",
}
"""Figures of the README by their names there, with their names in the bench."""


def test_figures_of_the_readme_are_those_of_the_bench() -> None:
    readme = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    results = RESULTS.read_text(encoding="utf-8")
    for name, figure in FIGURES.items():
        (line,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", readme, re.MULTILINE)
        (measured,) = re.findall(rf"^\| {re.escape(figure)} +\| (.*) \|$", results, re.MULTILINE)
        proxy, tensorzero, ferro, litellm, nginx = (cell.split()[0] for cell in measured.split("|")[:5])
        assert line.split(" | ") == [proxy, tensorzero, ferro, litellm, nginx]
