"""Join the deltas that the proxy may merge, so that streams compare equal however their bytes arrived."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from openai_dify_proxy.events import Event, ReasoningDelta, TextDelta

Json = dict[str, Any]


def join_events(events: Iterable[Event]) -> list[Event]:
    """Join adjacent text deltas, and adjacent reasoning deltas."""
    joined: list[Event] = []
    for kind, group in groupby(events, type):
        if issubclass(kind, TextDelta | ReasoningDelta):
            joined.append(kind("".join(event.text for event in group if isinstance(event, kind))))
        else:
            joined += group
    return joined


def join_chunks(chunks: Iterable[Json]) -> list[Json]:
    """Join adjacent deltas of the same kind in a stream's compact form (``recordings/sdk_answers.py``).

    The first chunk has Dify's ids as far as they have arrived: the run's id may come behind the first text.
    """
    joined: list[Json] = []
    for names, group in groupby(chunks, tuple):
        if names in (("content",), ("reasoning_content",)):
            (name,) = names
            joined.append({name: "".join(chunk[name] for chunk in group)})
        else:
            joined += [_without_run(chunk) if "role" in chunk else chunk for chunk in group]
    return joined


def _without_run(chunk: Json) -> Json:
    return {**chunk, "dify": {key: chunk["dify"][key] for key in chunk["dify"] if key != "workflow_run_id"}}
