"""Read which of its tools a request wants called: a mode, one named tool, or some allowed tools."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import (
    invalid_type,
    invalid_value,
    missing_parameter,
    quotable,
    type_of,
)
from openai_dify_proxy.translate.openai.sent_tools import SentTools, qualified_name
from openai_dify_proxy.translate.turn_request import ToolChoice

MODES = ("none", "auto", "required")

HOSTED = (
    "web_search",
    "file_search",
    "code_interpreter",
    "image_generation",
    "mcp",
    "computer",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
    "programmatic_tool_calling",
)
"""How the types of tools begin that run at OpenAI, or whose calls have items of their own."""

NAMED = ("function", "custom", "tool")
"""The types of a tool choice that names a tool; ``tool`` is Anthropic's."""


def read_tool_choice(sent: SentTools, choice: Any, param: str, tools_param: str) -> ToolChoice:
    """Return the choice at ``param`` among the tools ``sent`` in ``tools_param``. Raises InvalidRequest."""
    if choice is None:
        return ToolChoice(param=param)
    if isinstance(choice, str):
        return _mode(sent, choice, param, tools_param)
    if not isinstance(choice, dict):
        raise invalid_type(param, ("str", "object"), type_of(choice))
    kind = _text(choice, "type", f"{param}.type")
    if kind in MODES:
        return _mode(sent, kind, param, tools_param)
    if kind == "allowed_tools":
        return _allowed(sent, choice, param, tools_param)
    if kind in NAMED:
        return ToolChoice("required", (_named(sent, choice, kind, param, tools_param),), param)
    if kind.startswith(HOSTED):
        raise _forced_hosted(param, kind)
    raise invalid_value(f"{param}.type", kind, (*NAMED[:2], "allowed_tools"))


def _mode(sent: SentTools, mode: str, param: str, tools_param: str) -> ToolChoice:
    if mode not in MODES:
        raise invalid_value(param, mode, MODES)
    if mode == "required" and not sent.tools:
        raise _forced_hosted(param, "required") if sent.others else _without_tools(param, tools_param)
    return ToolChoice(mode, (), param)  # type: ignore[arg-type] # it is one of MODES


def _named(sent: SentTools, choice: dict[str, Any], kind: str, param: str, tools_param: str) -> str:
    """Return the name in a choice, which is nested in chats and flat in the Responses API."""
    nested = choice.get(kind)
    if isinstance(nested, dict):
        name = _text(nested, "name", f"{param}.{kind}.name")
    else:
        name = _text(choice, "name", f"{param}.name")
    namespace = choice.get("namespace")
    name = qualified_name(namespace if isinstance(namespace, str) else None, name)
    if not sent.tools and not sent.others:
        raise _without_tools(param, tools_param)
    if name not in sent.tools:
        raise InvalidRequest(
            f"Invalid value for '{param}': no {'custom tool' if kind == 'custom' else 'function'} named "
            f"'{quotable(name)}' was specified in the '{tools_param}' parameter.",
            param=param,
        )
    return name


def _allowed(sent: SentTools, choice: dict[str, Any], param: str, tools_param: str) -> ToolChoice:
    nested = choice.get("allowed_tools")
    fields, place = (nested, f"{param}.allowed_tools") if isinstance(nested, dict) else (choice, param)
    mode = _text(fields, "mode", f"{place}.mode")
    if mode not in MODES[1:]:
        raise invalid_value(f"{place}.mode", mode, MODES[1:])
    allowed = fields.get("tools")
    if not isinstance(allowed, list):
        raise invalid_type(f"{place}.tools", ("array",), type_of(allowed))
    names = []
    for index, tool in enumerate(allowed):
        at = f"{place}.tools[{index}]"
        if not isinstance(tool, dict):
            raise invalid_type(at, ("object",), type_of(tool))
        kind = _text(tool, "type", f"{at}.type")
        if kind in NAMED:
            names.append(_named(sent, tool, kind, at, tools_param))
    if names:
        return ToolChoice(mode, tuple(dict.fromkeys(names)), param)  # type: ignore[arg-type] # see above
    if mode == "required":
        raise _forced_hosted(param, "allowed_tools") if sent.others else _without_tools(param, tools_param)
    return ToolChoice("none", (), param)


def forced_tool(param: str) -> InvalidRequest:
    """Return the error for a forced tool, where the app's tools are turned off."""
    return InvalidRequest(
        f"Unsupported value: '{param}' forces a tool call, and a Dify app calls only its own tools. "
        f"Omit '{param}', or set it to 'auto' or 'none'.",
        param=param,
        code="unsupported_parameter",
    )


def _text(fields: dict[str, Any], name: str, param: str) -> str:
    value = fields.get(name)
    if value is None:
        raise missing_parameter(param)
    if not isinstance(value, str):
        raise invalid_type(param, ("str",), type_of(value))
    return value


def _without_tools(param: str, tools_param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for '{param}': '{param}' is only allowed when '{tools_param}' are specified.", param=param
    )


def _forced_hosted(param: str, kind: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value: '{param}' forces a tool that OpenAI hosts ('{quotable(kind)}'). Dify apps cannot call it. "
        f"Omit '{param}', or send a function.",
        param=param,
        code="unsupported_parameter",
    )
