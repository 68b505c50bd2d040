"""JSON schemas of the structs of ``wire``.

msgspec's own generator accepts neither fields with a default of type ``Raw`` nor unions of untagged structs, and does
not know that encoded structs always have the fields with a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from types import UnionType
from typing import Any, get_args

from msgspec import NODEFAULT, Struct, inspect, to_builtins

Json = dict[str, Any]

COMPONENT = "#/components/schemas/"

_PLAIN: dict[type[inspect.Type], Json] = {
    inspect.BoolType: {"type": "boolean"},
    inspect.NoneType: {"type": "null"},
    inspect.AnyType: {},
    inspect.RawType: {},
}


def components_of(requests: Iterable[Any], answers: Iterable[Any]) -> dict[str, Json]:
    """Return the schema of every struct that the types of requests and answers contain, by its name.

    A field of an answer is required if it is always sent. Structs that requests contain as well require only the
    fields without a default.
    """
    asked, answered = _structs_of(requests), _structs_of(answers)
    structs = {**answered, **asked}
    components: dict[str, Json] = {}
    for struct in sorted(structs, key=lambda struct: struct.__name__):
        if struct.__name__ in components:
            raise ValueError(f"two structs have the name {struct.__name__}")
        components[struct.__name__] = _component(structs[struct], is_answer=struct not in asked)
    return components


def reference(kind: Any) -> Json:
    """Return the schema of a struct, or of a union of structs, that refers to its component."""
    parts = [{"$ref": COMPONENT + part.__name__} for part in _members(kind)]
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union. msgspec describes no unions of structs without a tag."""
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _structs_of(kinds: Iterable[Any]) -> dict[type[Struct], inspect.StructType]:
    """Return the structs that these types contain."""
    found: dict[type[Struct], inspect.StructType] = {}
    waiting = list(inspect.multi_type_info(part for kind in kinds for part in _members(kind)))
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, inspect.StructType):
            if kind.cls in found:
                continue
            found[kind.cls] = kind
        waiting += _parts(kind)
    return found


def _parts(kind: inspect.Type) -> Sequence[inspect.Type]:
    match kind:
        case inspect.StructType():
            return [field.type for field in kind.fields]
        case inspect.UnionType():
            return kind.types
        case inspect.ListType():
            return [kind.item_type]
        case inspect.DictType():
            return [kind.key_type, kind.value_type]
        case inspect.Metadata():
            return [kind.type]
        case _:
            return ()


def _component(kind: inspect.StructType, *, is_answer: bool) -> Json:
    properties: Json = {}
    required = []
    if kind.tag_field is not None:
        properties[kind.tag_field] = {"type": "string", "const": kind.tag}
        required.append(kind.tag_field)
    always = is_answer and not kind.cls.__struct_config__.omit_defaults
    for field in kind.fields:
        properties[field.encode_name] = _schema(field.type) | _default(field, is_answer=is_answer)
        if field.required or (always and _has_default(field)):
            required.append(field.encode_name)
    schema: Json = {"type": "object", "properties": properties}
    if description := _description(kind.cls):
        schema["description"] = description
    return schema | ({"required": required} if required else {})


def _description(struct: type[Struct]) -> str:
    """Return the docstring's first paragraph without markup. A struct without a docstring has msgspec's own."""
    text = "" if struct.__doc__ is None else struct.__doc__.partition("\n\n")[0]
    return " ".join(text.replace("``", "`").split())


def _default(field: inspect.Field, *, is_answer: bool) -> Json:
    """Return the default of a request's field, unless it is null, which is the same as its absence."""
    if is_answer or field.default is NODEFAULT or field.default is None:
        return {}
    if not isinstance(field.default, str | int | float | bool):
        return {}
    return {"default": to_builtins(field.default)}


def _has_default(field: inspect.Field) -> bool:
    """Return whether the field has a value if none is given; False for one that is unset."""
    return field.default is not NODEFAULT or field.default_factory is not NODEFAULT


@singledispatch
def _schema(kind: inspect.Type) -> Json:
    return dict(_PLAIN[type(kind)])


@_schema.register
def _(kind: inspect.StructType) -> Json:
    return {"$ref": COMPONENT + kind.cls.__name__}


@_schema.register
def _(kind: inspect.UnionType) -> Json:
    parts = [_schema(part) for part in kind.types]
    if all(list(part) == ["type"] for part in parts):
        return {"type": [part["type"] for part in parts]}
    return {"anyOf": parts}


@_schema.register
def _(kind: inspect.LiteralType) -> Json:
    assert all(isinstance(value, str | bool) for value in kind.values)
    name = "string" if isinstance(kind.values[0], str) else "boolean"
    only = {"const": kind.values[0]} if len(kind.values) == 1 else {"enum": list(kind.values)}
    return {"type": name, **only}


@_schema.register
def _(kind: inspect.ListType) -> Json:
    limits = {"minItems": kind.min_length, "maxItems": kind.max_length}
    return {"type": "array", "items": _schema(kind.item_type), **_given(limits)}


@_schema.register
def _(kind: inspect.DictType) -> Json:
    values = _schema(kind.value_type)
    return {"type": "object", **({"additionalProperties": values} if values else {})}


@_schema.register
def _(kind: inspect.Metadata) -> Json:
    return _schema(kind.type) | (kind.extra_json_schema or {})


@_schema.register
def _(kind: inspect.StrType) -> Json:
    limits = {"minLength": kind.min_length, "maxLength": kind.max_length, "pattern": kind.pattern}
    return {"type": "string", **_given(limits)}


@_schema.register(inspect.IntType)
@_schema.register(inspect.FloatType)
def _(kind: inspect.IntType | inspect.FloatType) -> Json:
    name = "integer" if isinstance(kind, inspect.IntType) else "number"
    return {"type": name, **_given({"minimum": kind.ge, "maximum": kind.le})}


def _given(limits: Json) -> Json:
    return {name: limit for name, limit in limits.items() if limit is not None}
