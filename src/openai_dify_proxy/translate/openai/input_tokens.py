"""Estimate the tokens of a request, which Dify does not count in advance."""

from __future__ import annotations

from collections.abc import Iterable

from openai_dify_proxy.translate.turn_request import HistoryMessage, OutputRequest, TurnRequest
from openai_dify_proxy.translate.usage_estimates import characters_of, estimate_tokens, prompt_characters


def estimate_input_tokens(request: TurnRequest, earlier: Iterable[HistoryMessage] = ()) -> int:
    """Return the estimated tokens of a request, its tools and schema, and ``earlier`` stored messages."""
    characters = prompt_characters(request) + sum(map(characters_of, earlier)) + _output_size(request.output)
    return estimate_tokens(characters)


def _output_size(output: OutputRequest | None) -> int:
    if output is None:
        return 0
    tools = sum(len(tool.name) + len(tool.description) + len(tool.parameters or b"") for tool in output.tools)
    schema = None if output.answer_format is None else output.answer_format.schema
    return tools + len(schema or b"")
