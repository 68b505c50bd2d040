"""JSON decoding and bounded dictionaries, shared by both scripted services."""

from __future__ import annotations

from typing import TypeVar

import msgspec

_T = TypeVar("_T")


def read_json(raw: bytes, content_type: str) -> tuple[object, bool]:
    """Return the decoded JSON body, or None without one, and whether it is malformed. Lone surrogates are malformed."""
    if not raw or not content_type.startswith("application/json"):
        return None, False
    try:
        return msgspec.json.decode(raw), False
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, True


def store_bounded(store: dict[str, _T], key: str, value: _T, limit: int) -> None:
    """Store a value, and drop the oldest entries beyond `limit`."""
    store[key] = value
    while len(store) > limit:
        store.pop(next(iter(store)))
