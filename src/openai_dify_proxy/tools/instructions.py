"""Writes the instructions that let a model call tools, or answer in JSON.

``full_instructions`` has the definitions. Once a conversation has them, ``demand`` states what differs from turn to
turn, and ``reminder`` repeats the form.
"""

from __future__ import annotations

from typing import Any

from msgspec import json

from openai_dify_proxy.tools.schemas import compile_schema
from openai_dify_proxy.tools.signatures import example_value, required_names, tool_signature, type_text
from openai_dify_proxy.translate.tool_template import TEMPLATE, fill_template
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool

_HEAD = (
    "To call a tool, write the call in your answer, in exactly this form, with the name first and the arguments as "
    "one JSON object:"
)
_CUSTOM_HEAD = "A tool with free text gets the text after the name, as it is:"
_MANY_HEAD = "Several calls that do not depend on each other follow one another:"
_AFTER = (
    "After the last call, stop. Do not write anything behind it, and never write a tool's result yourself: the result "
    "comes with the next message, in <tool_result>."
)
_ONLY_TYPES = "Do not explain it, and do not put it into a code block."


def full_instructions(output: OutputRequest, template: str | None = None) -> str:
    """Return the definitions of all tools and of the answer's format, and what this turn demands.

    ``template`` is the text for tools, as ``check_template`` accepts it. A request with neither tools nor a format
    has no instructions.
    """
    parts = []
    if output.tools:
        values = {
            "tools": "\n\n".join(map(tool_signature, output.tools)),
            "format": _call_format(output),
            "demand": _choice_demand(output),
        }
        parts.append(fill_template(template or TEMPLATE, values))
    if output.answer_format is not None:
        parts.append(_format_demand(output, schema_instructions(output.answer_format)))
    return "\n\n".join(parts)


def schema_instructions(answer_format: AnswerFormat) -> str:
    """Return the demand for JSON of this format, with its type."""
    about = f"\n{answer_format.description.strip()}" if answer_format.description.strip() else ""
    if answer_format.schema is None:
        return f"Answer with one JSON object only. {_ONLY_TYPES}{about}"
    return f"Answer with JSON only, which fits this type. {_ONLY_TYPES}{about}\n{type_text(answer_format.schema)}"


def demand(output: OutputRequest) -> str:
    """Return what this turn demands of a model that has the definitions, or nothing if it may do as it likes."""
    parts = []
    choice = output.choice
    if output.tools and (choice.mode != "auto" or choice.names or not output.parallel):
        parts.append(_choice_demand(output))
    if output.answer_format is not None:
        parts.append(_format_demand(output, "Answer with JSON only, which fits the type that you were given."))
    return "\n\n".join(parts)


def reminder(output: OutputRequest) -> str:
    """Return the form of calls and answers, without the definitions."""
    parts = []
    if output.tools:
        names = ", ".join(tool.name for tool in output.tools)
        parts.append(f"You can call these tools: {names}.\n{_HEAD}\n{_example(output)}\n{_AFTER}")
        parts.append(_choice_demand(output))
    if output.answer_format is not None:
        parts.append(_format_demand(output, schema_instructions(output.answer_format)))
    return "\n\n".join(parts)


def _call_format(output: OutputRequest) -> str:
    parts = [_HEAD, _example(output)]
    custom = next((tool for tool in output.tools if tool.custom), None)
    usual = [tool for tool in output.tools if not tool.custom]
    if custom is not None and usual:
        parts += [_CUSTOM_HEAD, _call(custom)]
    if output.parallel and usual:
        parts += [_MANY_HEAD, f"{_call(usual[0])}\n{_call(usual[min(1, len(usual) - 1)])}"]
    return "\n".join([*parts, _AFTER])


def _example(output: OutputRequest) -> str:
    """Return a call of the tool that shows most: one with arguments, and none that this turn excludes."""
    names = output.choice.names
    allowed = [tool for tool in output.tools if not names or tool.name in names] or list(output.tools)
    usual = [tool for tool in allowed if not tool.custom] or allowed
    return _call(next((tool for tool in usual if _arguments(tool)), usual[0]))


def _call(tool: Tool) -> str:
    name = json.encode(tool.name).decode()
    if tool.custom:
        return f'<tool_call>{{"name": {name}}}\n...\n</tool_call>'
    arguments = ", ".join(f"{_json(key)}: {_json(value)}" for key, value in _arguments(tool).items())
    return f'<tool_call>{{"name": {name}, "arguments": {{{arguments}}}}}</tool_call>'


def _arguments(tool: Tool) -> dict[str, Any]:
    """Return arguments that show the form: those that are required, else the first one."""
    if tool.custom or tool.parameters is None:
        return {}
    try:
        schema = compile_schema(tool.parameters).root
    except ValueError:
        return {}
    properties = schema.get("properties", {})
    required = required_names(schema)
    names = [name for name in properties if name in required][:4] or list(properties)[:1]
    return {name: example_value(properties[name]) for name in names}


def _json(value: Any) -> str:
    return json.encode(value).decode()


def _choice_demand(output: OutputRequest) -> str:
    """Return whether the model may, must or must not call a tool now, and which, and how many."""
    choice = output.choice
    names = ", ".join(choice.names)
    only = f" Call only {'this tool' if len(choice.names) == 1 else 'one of these tools'}: {names}." if names else ""
    one = "" if output.parallel else " Write at most one call."
    match choice.mode:
        case "none":
            return "Do not call a tool in this answer."
        case "required" if len(choice.names) == 1:
            return f"Your answer to this message must be a call of the tool {names}.{one}"
        case "required":
            return f"Your answer to this message must be a tool call.{only}{one}"
        case _:
            return f"Call a tool if it helps with this message, else answer as usual.{only}{one}"


def _format_demand(output: OutputRequest, text: str) -> str:
    if output.tools and output.choice.mode != "none":
        return f"When you answer without a tool call: {text}"
    return text
