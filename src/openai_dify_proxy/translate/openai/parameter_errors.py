"""Errors about request parameters, with OpenAI's words and codes.

A ``param`` is a path as OpenAI writes it: ``messages[0].content``. Quoted values are at most ``MAX_QUOTED`` characters
long and contain nothing that looks like a key.

Source: errors of api.openai.com as its users report them. ``invalid_type`` is shorter than OpenAI's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import UNSET, Struct, ValidationError, convert

from openai_dify_proxy.errors import InvalidRequest, mask_keys
from openai_dify_proxy.wire.complexity import TooComplex
from openai_dify_proxy.wire.reading import (
    ANY_KEY,
    ANY_VALUE,
    UNREADABLE,
    Limit,
    Mismatch,
    MissingField,
    NumberTooLarge,
    Path,
    Step,
    SyntaxFault,
    UnknownValue,
    WrongType,
    read_mismatch,
)

MAX_QUOTED = 64
_MAX_MASKED = 1000
_MAX_DIGITS = 40
_MAX_REREAD = 1 << 20
"""Larger bodies are not decoded a second time, only to quote a value."""

_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a decimal",
    "bool": "a boolean",
    "null": "null",
    "array": "an array",
    "object": "an object",
}
_NUMBERS = {"int": "integer", "float": "decimal"}

_JSON_TYPES = {
    type(None): "null",
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    list: "array",
    dict: "object",
}

_INVALID_BYTE = re.compile("[\udc80-\udcff]")
_UNPAIRED_SURROGATE = re.compile(rb"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])", re.IGNORECASE)
"""Half of an escaped character beyond U+FFFF, as JavaScript sends for text that was cut inside one."""


def missing_parameter(param: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def invalid_type(param: str, expected: Sequence[str], got: str | None = None) -> InvalidRequest:
    """Return the error for a value of the wrong type.

    ``expected`` and ``got`` are msgspec's names of JSON types; an empty ``param`` is the body as a whole.
    """
    names = [_type_name(name) for name in expected if name != "null"] or ["null"]
    found = "" if got is None else f", got {_type_name(got)}"
    return InvalidRequest(
        f"Invalid type for {_place(param)}: expected {join_words(names, 'or')}{found}.",
        param=param or None,
        code="invalid_type",
    )


def invalid_value(param: str, value: str, supported: Iterable[str] = ()) -> InvalidRequest:
    names = [f"'{name}'" for name in supported]
    hint = f" Supported values are: {join_words(names, 'and')}." if names else ""
    return InvalidRequest(f"Invalid value: '{quotable(value)}'.{hint}", param=param, code="invalid_value")


def invalid_number(param: str, limit: Limit, got: float | None = None) -> InvalidRequest:
    """Return the error for a number beyond ``limit``. ``got`` is the number, if known."""
    kind = _NUMBERS[limit.type]
    fault, code = ("below minimum", "below_min") if limit.operator.startswith(">") else ("above maximum", "above_max")
    found = "" if got is None or len(str(got)) > _MAX_DIGITS else f", but got {got} instead"
    return InvalidRequest(
        f"Invalid '{param}': {kind} {fault} value. "
        f"Expected a value {limit.operator} {limit.limit.removesuffix('.0')}{found}.",
        param=param,
        code=f"{kind}_{code}_value",
    )


def check_range(param: str, value: int, least: int, most: int) -> None:
    """Raise InvalidRequest for an integer out of range."""
    if value < least:
        raise invalid_number(param, Limit("int", of_length=False, operator=">=", limit=str(least)), value)
    if value > most:
        raise invalid_number(param, Limit("int", of_length=False, operator="<=", limit=str(most)), value)


def invalid_length(param: str, limit: Limit, got: int | None = None) -> InvalidRequest:
    """Return the error for a length beyond ``limit``. ``got`` is the length, if known."""
    name = _type_name(limit.type)
    kind = name.split()[-1]
    short = limit.operator.startswith(">")
    if limit.type == "object":
        fault, code = ("too few properties", "below_min") if short else ("too many properties", "above_max")
        found = "" if got is None else f", but got an object with {got} properties instead"
        bound = f"at {'least' if short else 'most'} {limit.limit} properties"
        code = f"object_{code}_properties"
    else:
        empty = short and got == 0
        fault = f"empty {kind}" if empty else f"{kind} too {'short' if short else 'long'}"
        found = f", but got an empty {kind} instead" if empty else f", but got {name} with length {got} instead"
        found = "" if got is None else found
        bound = f"{'minimum' if short else 'maximum'} length {limit.limit}"
        code = f"empty_{kind}" if empty else f"{kind}_{'below_min' if short else 'above_max'}_length"
    return InvalidRequest(f"Invalid '{param}': {fault}. Expected {name} with {bound}{found}.", param=param, code=code)


def too_long(param: str, value: str | dict[str, Any], most: int) -> InvalidRequest:
    limit = Limit("str" if isinstance(value, str) else "object", of_length=True, operator="<=", limit=str(most))
    return invalid_length(param, limit, len(value))


def empty_value(param: str, value: str | list[Any]) -> InvalidRequest:
    limit = Limit("str" if isinstance(value, str) else "array", of_length=True, operator=">=", limit="1")
    return invalid_length(param, limit, 0)


def type_of(value: Any) -> str | None:
    """Return msgspec's name for the JSON type of a decoded value; None for UNSET."""
    return _JSON_TYPES.get(type(value))


def quotable(value: str) -> str:
    """Return ``value`` in the form in which messages quote it: short, and without keys."""
    masked = mask_keys(value[:_MAX_MASKED])
    return masked if len(masked) <= MAX_QUOTED else f"{masked[:MAX_QUOTED]}…"


def join_words(words: Sequence[str], conjunction: str) -> str:
    """Return ``a``, ``a or b`` or ``a, b or c``."""
    return f" {conjunction} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def unreadable_request(error: Exception, document: Any, kind: Any, *, at: str = "") -> InvalidRequest:
    """Return the error for a ``document`` that msgspec cannot read as ``kind``; ``error`` is one of ``UNREADABLE``.

    ``document`` is JSON, or a dict with the fields of a form. ``at`` is its path, if it is a part of the request.
    """
    if isinstance(error, ValidationError):
        return _mismatched(read_mismatch(error), document, kind, at)
    subject = f"The value of '{at}'" if at else "The request body"
    return InvalidRequest(_not_json(error, bytes(document), subject), param=at or None)


def _not_json(error: Exception, document: bytes, subject: str) -> str:
    """Return the message for a document that is not JSON. It quotes nothing of the document."""
    if not document.strip():
        return f"{subject} is empty. Send a JSON object."
    if isinstance(error, TooComplex):
        return f"{subject} has {error}. Send fewer."
    if isinstance(error, RecursionError):
        return f"{subject} is nested too deeply."
    if isinstance(error, UnicodeDecodeError):
        place = _line_and_column(document, _first_invalid_byte(document))
        return f"{subject} is not valid UTF-8: invalid bytes at {place}."
    return f"{subject} is not valid JSON: {_syntax_fault(error, document)}."


def _syntax_fault(error: Exception, document: bytes) -> str:
    reason = read_mismatch(error).reason
    if isinstance(reason, SyntaxFault):
        return f"{reason.reason} near {_line_and_column(document, reason.at)}"
    if (half := _UNPAIRED_SURROGATE.search(document)) is not None:  # msgspec reports it as a truncated body
        return f"unpaired surrogate at {_line_and_column(document, half.start())}"
    return f"it ends in the middle of a value, after {len(document)} bytes"


def _first_invalid_byte(document: bytes) -> int:
    """Return the offset in the document; msgspec's is the offset in the string."""
    valid, *_ = _INVALID_BYTE.split(document.decode(errors="surrogateescape"), maxsplit=1)
    return len(valid.encode())


def _line_and_column(document: bytes, offset: int) -> str:
    line = document.count(b"\n", 0, offset) + 1
    column = offset - document.rfind(b"\n", 0, offset)
    return f"line {line}, column {column}"


def _mismatched(mismatch: Mismatch, document: Any, kind: Any, at: str) -> InvalidRequest:
    param, kind, value = _locate(mismatch.path, document, kind, at)
    match mismatch.reason:
        case MissingField(name):
            return missing_parameter(f"{param}.{name}" if param else name)
        case WrongType(expected, got):
            return invalid_type(param, expected, got)
        case UnknownValue(shown):
            return invalid_value(param, shown[1:-1] if shown[0] in "'\"" else shown, _supported_values(kind))
        case Limit(type_, of_length=True) as limit:
            return invalid_length(param, limit, len(value) if type_of(value) == type_ else None)
        case Limit() as limit:
            return invalid_number(param, limit, value if type_of(value) in _NUMBERS else None)
        case NumberTooLarge():
            message = f"Invalid {_place(param)}: number out of range. Send a number that fits into 64 bits."
        case _:
            message = f"Invalid value for {_place(param)}. Send one that the API reference allows there."
    return InvalidRequest(message, param=param or None, code="invalid_value")


def _locate(path: Path, document: Any, kind: Any, at: str) -> tuple[str, Any, Any]:
    """Return the param, the type and the value at ``path``; the value is UNSET where it cannot be read."""
    param, value = at, _decoded(document)
    for step in path:
        kind = _inner_type(kind, step)
        if step is ANY_KEY:
            step = _offending_key(value, kind)
            if step is None:
                return param, kind, UNSET
        param = f"{param}[{step}]" if isinstance(step, int) else f"{param}.{quotable(step)}".removeprefix(".")
        try:
            value = value[step]
        except (LookupError, TypeError):
            value = UNSET
    return param, kind, value


def _decoded(document: Any) -> Any:
    if isinstance(document, dict):
        return document
    try:
        return ANY_VALUE.decode(document) if len(bytes(document)) <= _MAX_REREAD else UNSET
    except UNREADABLE:
        return UNSET


def _offending_key(values: Any, kind: Any) -> str | None:
    """Return the first key whose value is not a ``kind``: msgspec does not name it."""
    for key, value in values.items() if isinstance(values, dict) else ():
        try:
            convert(value, kind)
        except ValidationError:
            return str(key)
    return None


def _inner_type(kind: Any, step: Step) -> Any:
    """Return the type of a field, item or value of a ``kind``; for the tag of a union, its literals."""
    members = _union_members(kind)
    if not isinstance(step, str):
        container = dict if step is ANY_KEY else list
        return next((get_args(member)[-1] for member in members if get_origin(member) is container), Any)
    structs = [member for member in members if isinstance(member, type) and issubclass(member, Struct)]
    tags = tuple(struct.__struct_config__.tag for struct in structs if struct.__struct_config__.tag_field == step)
    if tags:
        return Literal[tags]
    hints = [get_type_hints(struct, include_extras=True) for struct in structs]
    return next((fields[step] for fields in hints if step in fields), Any)


def _union_members(kind: Any) -> list[Any]:
    origin = get_origin(kind)
    if origin is Annotated:
        return _union_members(get_args(kind)[0])
    if origin in (Union, UnionType):
        return [member for argument in get_args(kind) for member in _union_members(argument)]
    return [kind]


def _supported_values(kind: Any) -> list[str]:
    literals = (member for member in _union_members(kind) if get_origin(member) is Literal)
    return [str(value) for literal in literals for value in get_args(literal)]


def _type_name(name: str) -> str:
    return _TYPES.get(name, "a value of another type")


def _place(param: str) -> str:
    return f"'{param}'" if param else "the request body"
