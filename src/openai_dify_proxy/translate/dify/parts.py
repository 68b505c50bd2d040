"""Parts of Dify's events as parts of ours: token counts, citations, a paused form."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from openai_dify_proxy.events import Citation, Usage
from openai_dify_proxy.wire.dify import PauseReason, RetrievedPassage, UsageData

_URL_KEYS = ("url", "source_url", "source", "link")
_FORM_FIELD = re.compile(r"\{\{#\$output\.(\w+)#\}\}")


def read_usage(data: UsageData) -> Usage:
    """Dify's counts; prices are decimal strings there, now and then numbers."""
    prompt, completion = data.prompt_tokens or 0, data.completion_tokens or 0
    price = None if data.total_price is None else str(data.total_price)
    return Usage(prompt, completion, data.total_tokens or prompt + completion, price, data.currency, data.latency)


def add_usage(known: Usage | None, more: Usage) -> Usage:
    """Tokens add up; prices are left out, since decimal strings of different currencies do not."""
    if known is None:
        return more
    return Usage(
        known.prompt_tokens + more.prompt_tokens,
        known.completion_tokens + more.completion_tokens,
        known.total_tokens + more.total_tokens,
    )


def path_of(link: str) -> str:
    """What of a signed link stays the same each time it is signed."""
    try:
        return urlsplit(link).path
    except ValueError:  # no URL at all; it is given on as Dify wrote it
        return link


def read_passage(item: RetrievedPassage) -> dict[str, Any]:
    """A knowledge node's result in the shape of ``retriever_resources``, for streams that lack ``message_end``."""
    return {**(item.metadata or {}), "content": item.content, "title": item.title}


def read_citation(passage: dict[str, Any]) -> Citation:
    """A record of ``retriever_resources``; its URL is found only among the document's metadata, if at all."""
    title = passage.get("title") or passage.get("document_name") or passage.get("dataset_name") or ""
    metadata = passage.get("doc_metadata")
    candidates = [metadata.get(key) for key in _URL_KEYS] if isinstance(metadata, dict) else []
    candidates.append(passage.get("url"))
    url = next(
        (link for link in candidates if isinstance(link, str) and link.startswith(("http://", "https://"))), None
    )
    return Citation(str(title), url, passage)


def form_text(reason: PauseReason) -> str:
    """A paused workflow's form, as text: a client of this API cannot fill it in, but a person can read it."""
    parts = [_FORM_FIELD.sub(r"[\1]", reason.form_content.strip())] if reason.form_content else []
    titles = [action.title or action.id for action in reason.actions or []]
    if titles:
        parts.append(" · ".join(f"[{title}]" for title in titles))
    return "\n\n".join(parts)
