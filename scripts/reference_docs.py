"""Writes ``docs/reference.md`` from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from openai_dify_proxy.api.openapi.document import DOCS, build_document

Json = dict[str, Any]

HEADER = """\
# API reference

Every route and message of the API, generated from the [OpenAPI document](api.md#openapi) that a server has at
`/openapi.json`. Every path also works without the prefix `/v1`. [API](api.md) explains how the fields map to Dify.
"""

_KEYS = {3: "a client key or a Dify key", 2: "a client key", 4: "optional", 0: "none"}
"""What the ``security`` of an operation means, by the number of its alternatives."""


def reference_page() -> str:
    """Return the content of ``docs/reference.md``."""
    return "\n".join(_page(build_document()))


def _page(document: Json) -> Iterator[str]:
    yield HEADER
    for tag in document["tags"]:
        yield f"## {tag['name']}\n"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if operation["tags"] == [tag["name"]]:
                    yield from _operation(f"{method.upper()} {path}", operation)
    yield "## Schemas\n"
    for name, schema in document["components"]["schemas"].items():
        yield from _component(name, schema)


def _operation(route: str, operation: Json) -> Iterator[str]:
    yield f"### `{route}`\n"
    page = operation["externalDocs"]["url"].removeprefix(DOCS)
    yield f"{operation['summary']}. Key: {_KEYS[len(operation['security'])]}. [More]({page})\n"
    if operation["parameters"]:
        yield "| Parameter | In | Type | Description |\n|---|---|---|---|"
        for parameter in operation["parameters"]:
            cells = (parameter["in"], _type(parameter["schema"]), parameter.get("description", ""))
            yield f"| `{parameter['name']}` | {' | '.join(cells)} |"
        yield ""
    body = operation.get("requestBody", {"content": {}})["content"]
    for media, content in body.items():
        yield f"Body, as `{media}`: {_type(content['schema'])}.\n"
    yield "| Status | Answer |\n|---|---|"
    errors = []
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            errors.append(status)
        else:
            yield f"| {status} | {answer['description']} {_contents(answer.get('content', {}))} |"
    yield f"| {', '.join(errors)} | [ErrorEnvelope](#errorenvelope), see [errors](errors.md) |\n"


def _contents(contents: Json) -> str:
    return "; ".join(f"`{media}`: {_type(content['schema'])}" for media, content in contents.items())


def _component(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}\n"
    if "description" in schema:
        yield f"{schema['description']}\n"
    if schema["properties"]:
        yield "| Field | Type | Required |\n|---|---|---|"
        required = schema.get("required", [])
        for field, kind in schema["properties"].items():
            yield f"| `{field}` | {_type(kind)} | {'yes' if field in required else ''} |"
        yield ""


def _type(schema: Json) -> str:
    """Return a schema as text, with its limits."""
    for keyword, text in _TEXTS.items():
        if keyword in schema:
            return text(schema[keyword])
    kinds = schema.get("type", "any JSON")
    if kinds == "object":
        return _object(schema)
    name = f"array of {_type(schema['items'])}" if kinds == "array" else kinds
    return f"{' or '.join(name) if isinstance(name, list) else name}{_limits(schema)}"


def _link(reference: str) -> str:
    name = reference.rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


_TEXTS: dict[str, Callable[[Any], str]] = {
    "$ref": _link,
    "anyOf": lambda parts: " or ".join(map(_type, parts)),
    "allOf": lambda parts: " with ".join(map(_type, parts)),
    "const": lambda value: f"`{value}`",
    "enum": lambda values: ", ".join(f"`{value}`" for value in values),
    "format": lambda name: "file" if name == "binary" else str(name),
}
"""The text of a schema that has one of these keywords."""


def _object(schema: Json) -> str:
    if "properties" in schema:
        return "fields " + ", ".join(f"`{name}` ({_type(kind)})" for name, kind in schema["properties"].items())
    values = schema.get("additionalProperties")
    return "object" if values is None else f"object of {_type(values)}"


def _limits(schema: Json) -> str:
    words = [
        f"{word} {schema[keyword]}"
        for keyword, word in (
            *(("minimum", "from"), ("maximum", "to")),
            *(("minLength", "at least"), ("maxLength", "at most")),
            *(("minItems", "at least"), ("maxItems", "at most")),
        )
        if keyword in schema
    ]
    return f" ({', '.join(words)})" if words else ""
