"""Descriptions of settings, read from the fields of the models.

A field's docstring is Markdown with links relative to ``docs/``. Its first paragraph is the summary that ``--help`` and
``.env.example`` show; ``docs/settings.md`` shows all of it. The module imports no model, since the models use ``Kind``
and ``Shown``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo


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


def summary(field: FieldInfo) -> str:
    """Return the first paragraph of the description as plain text."""
    return plain(_paragraphs(field)[0])


def details(field: FieldInfo) -> str:
    """Return the whole description as one line of Markdown."""
    return " ".join(_paragraphs(field))


def _paragraphs(field: FieldInfo) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in (field.description or "").split("\n\n")]


def plain(markdown: str) -> str:
    """Return Markdown without code marks and link targets."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown).replace("`", "")


def type_name(field: FieldInfo) -> str:
    """Return the type of a setting as the docs name it; an integer with its bounds."""
    metadata = list(_metadata(field))
    kinds = [item.name for item in metadata if isinstance(item, Kind)]
    if kinds:
        return kinds[-1]
    low, high = (
        next((getattr(item, bound) for item in metadata if hasattr(item, bound)), None) for bound in ("ge", "le")
    )
    return f"integer of at least {low}" if high is None else f"integer from {low} to {high}"


def default(field: FieldInfo) -> str | None:
    """Return the default as it is written in ``.env``, or None where there is none to write."""
    if field.is_required() or field.default in (None, (), {}):
        return None
    match field.default:
        case SecretStr() as secret:
            return secret.get_secret_value()
        case bool() as flag:
            return str(flag).lower()
        case int() | float() as number:
            units = _UNITS.get(type_name(field), {})
            unit = next((unit for unit, factor in units.items() if number and number % factor == 0), "")
            return f"{number // units.get(unit, 1)}{unit}"
        case tuple() as values:
            return ",".join(map(str, values))
        case value:
            return str(value).replace("\n", "\\n")


_UNITS: Mapping[str, Mapping[str, int]] = {
    "duration": {"d": 86_400, "h": 3_600, "m": 60, "s": 1},
    "size": {"GB": 1024**3, "MB": 1024**2, "KB": 1024},
}
"""Units of defaults, the largest first: the first that leaves no remainder is shown."""


def shown(field: FieldInfo) -> Shown:
    """Return the field's ``Shown``, or an empty one."""
    return next((item for item in _metadata(field) if isinstance(item, Shown)), Shown())


def shown_default(field: FieldInfo) -> str:
    """Return the default as Markdown: a value, a word such as "none", or a dash for an unset value."""
    if text := shown(field).default:
        return text
    value = default(field)
    if value is not None:
        return f"`{value}`"
    return "–" if field.is_required() or field.default is None else "none"


def _metadata(field: FieldInfo) -> Iterator[Any]:
    """Yield the metadata of the field and, for ``X | None``, that of ``X``."""
    if type(None) in get_args(field.annotation):
        for option in get_args(field.annotation):
            yield from getattr(option, "__metadata__", ())
    yield from field.metadata
