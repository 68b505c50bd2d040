"""Run a text through the parser of calls, in pieces, and fold its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, groupby

from msgspec import Struct

from openai_dify_proxy.events import Event, TextDelta, ToolCallDelta, ToolCallFinished, ToolCallStarted
from openai_dify_proxy.tools.parsing import CallParser
from openai_dify_proxy.translate.turn_request import Tool

WEATHER = Tool(
    "get_weather",
    parameters=b'{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}}}',
)
PATCH = Tool("apply_patch", custom=True)
TOOLS = (WEATHER, PATCH)


class Parsed(Struct, frozen=True):
    """The folded result: ``calls`` are (name, arguments, whether they are complete)."""

    text: str
    calls: tuple[tuple[str, str, bool], ...] = ()
    cut: bool = False
    truncated: bool = False


def parse(pieces: Iterable[str], *, tools: Sequence[Tool] = TOOLS, forced: bool = False, reasoning: str = "") -> Parsed:
    numbers = count(1)
    parser = CallParser(tools, new_id=lambda: f"call_{next(numbers)}", forced=forced)
    parser.feed_reasoning(reasoning)
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    return fold([*events, *parser.finish()], cut=parser.cut, truncated=parser.truncated)


def fold(events: Sequence[Event], *, cut: bool = False, truncated: bool = False) -> Parsed:
    """Fold the events, whose order and numbers must be correct."""
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    calls = []
    ids = set()
    rest = list(events)
    while rest and isinstance(rest[0], TextDelta):
        rest.pop(0)
    groups = [list(group) for _, group in groupby(rest, lambda event: getattr(event, "index", None))]
    for number, group in enumerate(groups):
        started, *deltas = group
        assert isinstance(started, ToolCallStarted)
        assert started.index == number
        ids.add(started.id)
        finished = bool(deltas) and isinstance(deltas[-1], ToolCallFinished)
        arguments = ""
        for delta in deltas[: len(deltas) - finished]:
            assert isinstance(delta, ToolCallDelta)
            assert delta.text
            arguments += delta.text
        assert finished or (number == len(groups) - 1 and truncated)
        calls.append((started.name, arguments, finished))
    assert len(ids) == len(calls)
    return Parsed(text, tuple(calls), cut, truncated)
