"""JSON bodies and bounded stores, for both scripted services."""

from __future__ import annotations

from typing import TypeVar

import msgspec

_T = TypeVar("_T")


def read_json(raw: bytes, content_type: str) -> tuple[object, bool]:
    """Return the JSON body (None without one) and whether it is malformed. Lone surrogates are malformed."""
    if not raw or not content_type.startswith("application/json"):
        return None, False
    try:
        return msgspec.json.decode(raw), False
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, True


def remember(store: dict[str, _T], key: str, value: _T, limit: int) -> None:
    """Put a value into the store and drop the oldest entries beyond `limit`."""
    store[key] = value
    while len(store) > limit:
        store.pop(next(iter(store)))
