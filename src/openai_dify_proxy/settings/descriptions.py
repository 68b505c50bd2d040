"""Descriptions of settings, read from the fields of the models.

A field's docstring is Markdown with links relative to ``docs/``. Its first paragraph is the summary that ``--help`` and
``.env.example`` show; ``docs/settings.md`` shows all of it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from dataclasses import Field as DataclassField
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from openai_dify_proxy.settings.markers import Kind, Shown
from openai_dify_proxy.settings.secret import SecretStr

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Model: TypeAlias = "type[DataclassInstance]"
"""A model of settings."""


@cache
def described_fields(model: Model) -> Mapping[str, FieldInfo]:
    """Return the fields of a model by name, each with its docstring as description."""
    types = get_type_hints(model, include_extras=True)
    texts: dict[str, str] = {}
    for each in reversed(model.__mro__[:-1]):
        texts |= _docstrings(each.__module__)[each.__name__]
    return {
        field.name: FieldInfo.from_annotated_attribute(
            types[field.name], Field(default=_default_of(field), description=texts[field.name])
        )
        for field in fields(model)
    }


@cache
def _docstrings(module: str) -> Mapping[str, Mapping[str, str]]:
    """Return the docstrings of fields by class and field. Only the source has them."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_docstrings_of(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docstrings_of(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for pair in pairwise(definition.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
            case _:
                pass


def _default_of(field: DataclassField[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return PydanticUndefined if field.default is MISSING else field.default


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
