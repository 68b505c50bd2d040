"""Texts of upstreams within the proxy's own messages."""

from __future__ import annotations

from openai_dify_proxy.errors import Quoting

_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSERS = "\"'”’)]»"


def as_sentence(text: str) -> str:
    """Return ``text``, which an upstream wrote, with a full stop unless it ends a sentence; empty if it is empty."""
    text = text.strip().rstrip(",;:")
    if not text or text.rstrip(_CLOSERS).endswith(_ENDS):
        return text
    return f"{text}."


def with_detail(statement: str, detail: str) -> str:
    """Return ``statement: detail.``, or ``statement.`` if an upstream gave no detail."""
    detail = as_sentence(detail)
    return Quoting(statement, detail) if detail else f"{statement}."
