"""The log's events are documented, and named alike."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from openai_dify_proxy.telemetry.access_log import EVENTS, PROBES
from openai_dify_proxy.telemetry.quick_lines import REQUEST_LINES
from openai_dify_proxy.telemetry.records import OUTCOMES

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception"}


def logged(source: Path) -> Iterator[str]:
    """Yield the literal names of the events that a module logs."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            logger = node.func.value
            name = (
                logger.id if isinstance(logger, ast.Name) else logger.attr if isinstance(logger, ast.Attribute) else ""
            )
            if name in ("log", "_log") and node.args:
                yield from (
                    part.value
                    for part in ast.walk(node.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )


def events() -> set[str]:
    found = {event for source in ROOT.glob("src/openai_dify_proxy/**/*.py") for event in logged(source)}
    return found | set(EVENTS.values())


def documented(heading: str) -> set[str]:
    page = (ROOT / "docs/logs.md").read_text(encoding="utf-8")
    section = re.split(rf"^#+ {heading}$", page, flags=re.MULTILINE)[1]
    section = re.split(r"^#{1,3} ", section, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([a-z_]+)(?:: <code>)?`", cell)}


def test_every_event_is_documented() -> None:
    assert len(events()) >= 40
    assert events() == documented("Events")


def test_events_are_named_as_a_noun_and_a_past_participle() -> None:
    assert {event for event in events() if not re.fullmatch(r"[a-z]+(_[a-z]+)+", event)} == set()


def test_every_outcome_is_documented() -> None:
    assert set(OUTCOMES) == documented("Outcomes")


def test_lines_of_requests_are_rendered_quickly() -> None:
    assert set(EVENTS.values()) == REQUEST_LINES


def test_probes_are_routes() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert {probe for probe in PROBES if f"`GET {probe}`" not in page} <= {"/metrics"}
