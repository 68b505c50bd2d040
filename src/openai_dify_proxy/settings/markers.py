"""What the types of settings are annotated with.

Pydantic reads the settings, and reads these markers then. Workers, which receive them already validated, do without it:
it would take an eighth of their memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """Metadata of a type: its name in the docs."""

    name: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Metadata of a field whose default depends on something else: the Markdown that stands for it.

    ``example`` is the value in ``.env.example``.
    """

    default: str | None = None
    example: str | None = None


@dataclass(frozen=True, slots=True)
class Before:
    """Validate what ``function`` returns for the value. The function raises ValueError for an invalid one."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import BeforeValidator  # noqa: PLC0415 - see above

        return BeforeValidator(self.function).__get_pydantic_core_schema__(source, handler)


@dataclass(frozen=True, slots=True)
class After:
    """Replace the validated value by what ``function`` returns for it. The function raises ValueError for an invalid
    one.
    """

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import AfterValidator  # noqa: PLC0415 - see above

        return AfterValidator(self.function).__get_pydantic_core_schema__(source, handler)
