"""What reading somebody else's bytes may raise."""

from __future__ import annotations

from msgspec import MsgspecError

UNREADABLE = (MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the expected message: bad JSON, types or UTF-8, or endless nesting."""
