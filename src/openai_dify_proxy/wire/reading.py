"""Errors of reading the bytes of others: which exceptions there are, and what their texts say."""

from __future__ import annotations

from msgspec import MsgspecError, Struct

UNREADABLE = (MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the expected message: bad JSON, types or UTF-8, or endless nesting."""

_MISSING = "Object missing required field `"


class Misfit(Struct, frozen=True):
    """Where a message does not fit its struct, and why.

    ``path`` leads from the message to the place (``.messages[0].role``), or is empty. ``missing`` is the name of the
    field that an object there lacks.
    """

    reason: str
    path: str = ""
    missing: str | None = None

    @property
    def param(self) -> str | None:
        """The field at fault, as OpenAI's errors name it; None for the message as a whole."""
        place = self.path.removeprefix(".").removesuffix("[...]")
        return ".".join(name for name in (place, self.missing) if name) or None


def read_misfit(error: Exception) -> Misfit:
    """Read one of ``UNREADABLE``. msgspec tells the path and the missing field only in an error's text."""
    reason, _, path = str(error).partition(" - at `$")
    missing = reason.removeprefix(_MISSING).rstrip("`") if reason.startswith(_MISSING) else None
    return Misfit(reason, path.removesuffix("`"), missing)
