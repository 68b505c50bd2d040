"""The tools and schemas of chat completion and Responses requests.

Chats nest the fields of a tool or schema in ``function``, ``custom`` or ``json_schema``; Responses have them beside
``type``. Clients send either form to either API, so both are read. Schemas stay JSON, as the client sent them.
Source: the OpenAI API reference, and the types of the official SDKs.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder

MAX_TOOLS = 1000
"""Tools of a request, and tool calls of a message. OpenAI accepts 128 tools; agents with many servers send more."""

MAX_TOOL_NAME = 128
TOOL_NAME = r"^[a-zA-Z0-9_:/-]+$"
"""OpenAI permits letters, digits, underscores and hyphens; names of MCP tools have the other two as well."""

NULL = Raw(b"null")

ToolDefinitions = Annotated[list[Raw], Meta(max_length=MAX_TOOLS)]
"""Tools as JSON. They are decoded one by one, as ToolKind."""

ToolName = Annotated[str, Meta(min_length=1, max_length=MAX_TOOL_NAME, pattern=TOOL_NAME)]


class ToolGrammar(Struct):
    definition: str


class ToolFormat(Struct):
    """The format of a custom tool's input."""

    definition: str | None = None
    grammar: ToolGrammar | None = None


class ToolFields(Struct):
    """A function or a custom tool. ``input_schema`` is Anthropic's name of ``parameters``, which Cursor sends."""

    name: ToolName
    description: str | None = None
    parameters: Raw = NULL
    input_schema: Raw = NULL
    strict: bool | None = None
    format: ToolFormat | None = None


class ToolKind(Struct):
    """The type of a tool, and its fields if they are nested."""

    type: str | None = None
    function: Raw = NULL
    custom: Raw = NULL


class ToolNamespace(Struct):
    """A group of tools. Calls of them have the namespace's name beside the tool's."""

    name: ToolName
    tools: ToolDefinitions = []


class SchemaFields(Struct):
    """A JSON schema for the answer."""

    schema: Raw = NULL
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class FormatKind(SchemaFields):
    """``response_format`` of a chat, or ``text.format`` of a response."""

    type: str | None = None
    json_schema: SchemaFields | None = None


TOOL_KIND = Decoder(ToolKind)
TOOL_FIELDS = Decoder(ToolFields)
TOOL_NAMESPACE = Decoder(ToolNamespace)
FORMAT_KIND = Decoder(FormatKind)
