"""Read the tools of a request: functions and custom tools of the client, also within a namespace.

Tools that OpenAI hosts (``web_search``, …), or whose calls have items of their own (``local_shell``, …), are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

from msgspec import Raw, json

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import invalid_type, unreadable_request
from openai_dify_proxy.translate.turn_request import Tool
from openai_dify_proxy.wire.openai.tools import MAX_TOOLS, TOOL_FIELDS, TOOL_KIND, TOOL_NAMESPACE
from openai_dify_proxy.wire.reading import UNREADABLE

_JSON_TYPES = {b'"': "str", b"[": "array", b"t": "bool", b"f": "bool"}
"""The types of JSON values, by their first byte."""

_PLAIN_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)

_T = TypeVar("_T")


class SentTools:
    """The tools of a request as they are read: those of the client by name, and the others as names for a notice."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.others: list[str] = []

    def add_all(self, documents: Iterable[Raw | bytes], param: str, namespace: str | None = None) -> None:
        """Read the tools in ``documents``. The first tool with a name wins. Raises InvalidRequest."""
        for index, document in enumerate(documents):
            self._add(document, f"{param}[{index}]", namespace)
        if len(self.tools) > MAX_TOOLS:
            raise InvalidRequest(f"'{param}' has more than {MAX_TOOLS} tools. Send fewer.", param=param)

    def _add(self, document: Raw | bytes, param: str, namespace: str | None) -> None:
        kind = decode_part(TOOL_KIND, document, param)
        type_ = kind.type
        if type_ in (None, "function", "custom"):
            nested, name = (kind.custom, "custom") if type_ == "custom" else (kind.function, "function")
            is_nested = not _is_null(nested)
            tool = _tool(nested if is_nested else document, f"{param}.{name}" if is_nested else param, namespace)
            if type_ == "custom":
                tool = _as_custom(tool)
            self.tools.setdefault(tool.name, tool)
        elif type_ == "namespace" and namespace is None:
            group = decode_part(TOOL_NAMESPACE, document, param)
            self.add_all(group.tools, f"{param}.tools", group.name)
        else:
            self.others.append(f"{param} ({type_ if _PLAIN_NAME.fullmatch(type_) else 'unknown'})")


def qualified_name(namespace: str | None, name: str) -> str:
    """Return the name of a tool within a namespace."""
    return f"{namespace}.{name}" if namespace else name


def split_name(name: str) -> tuple[str | None, str]:
    """Return the namespace of a tool's ``qualified_name``, if there is one, and its name there."""
    namespace, _, inner = name.rpartition(".")
    return namespace or None, inner


def _tool(document: Raw | bytes, param: str, namespace: str | None) -> Tool:
    fields = decode_part(TOOL_FIELDS, document, param)
    key = "input_schema" if _is_null(fields.parameters) else "parameters"
    grammar = None
    if fields.format is not None:
        nested = fields.format.grammar
        grammar = fields.format.definition if nested is None else nested.definition
    return Tool(
        qualified_name(namespace, fields.name),
        fields.description or "",
        read_schema(getattr(fields, key), f"{param}.{key}"),
        strict=bool(fields.strict),
        grammar=grammar,
        param=param,
    )


def _as_custom(tool: Tool) -> Tool:
    return Tool(tool.name, tool.description, custom=True, grammar=tool.grammar, param=tool.param)


def read_schema(schema: Raw, param: str) -> bytes | None:
    """Return a JSON schema as bytes; None if it is null. Raises InvalidRequest if it is no object."""
    if _is_null(schema):
        return None
    document = bytes(schema)
    try:
        document.decode()
    except UnicodeDecodeError as exc:
        raise unreadable_request(exc, document, Any, at=param) from None
    if not document.startswith(b"{"):
        raise invalid_type(param, ("object",), _JSON_TYPES.get(document[:1]))
    return document


def _is_null(value: Raw) -> bool:
    return bytes(value) == b"null"


def decode_part(decoder: json.Decoder[_T], document: Raw | bytes, param: str) -> _T:
    """Return the part of a request at ``param`` as a struct. Raises InvalidRequest."""
    try:
        return decoder.decode(document)
    except UNREADABLE as exc:
        raise unreadable_request(exc, document, decoder.type, at=param) from None
