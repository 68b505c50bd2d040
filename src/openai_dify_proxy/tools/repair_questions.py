"""Writes the question of a repair turn: what was wrong with the answer, and the demand for a correct one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from openai_dify_proxy.tools.instructions import schema_instructions
from openai_dify_proxy.tools.signatures import tool_signature
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool

_FORM = '<tool_call>{"name": "...", "arguments": {...}}</tool_call>'
_CUSTOM_FORM = '<tool_call>{"name": "..."}\n...\n</tool_call>'


class CallFault(Struct, frozen=True):
    """The errors of one call, as ``Validator.errors`` returns them."""

    tool: Tool
    errors: Sequence[str]


def calls_question(faults: Sequence[CallFault]) -> str:
    """Return the question that asks for corrected calls."""
    parts = [f"Your call of {fault.tool.name} is invalid:\n{_listed(fault.errors)}" for fault in faults]
    tools = {fault.tool.name: fault.tool for fault in faults}
    parts += [f"The tool is:\n{tool_signature(tool)}" for tool in tools.values()]
    calls = "the corrected call" if len(faults) == 1 else "the corrected calls"
    parts.append(f"Write {calls} only, {_form(tools.values())}. Do not explain or apologize.")
    return "\n\n".join(parts)


def missing_call_question(output: OutputRequest) -> str:
    """Return the question that asks for the call that ``output`` demands, and that the answer lacked."""
    tools = [tool for tool in output.tools if not output.choice.names or tool.name in output.choice.names]
    names = [tool.name for tool in tools]
    which = f"of {names[0]}" if len(names) == 1 else f"of one of these tools: {', '.join(names)}"
    return f"Your answer must be a tool call {which}. Write the call only, {_form(tools)}. Do not explain or apologize."


def format_question(answer_format: AnswerFormat, errors: Iterable[str]) -> str:
    """Return the question that asks for a corrected answer in JSON."""
    return f"Your answer is not the JSON that was asked for:\n{_listed(errors)}\n\n{schema_instructions(answer_format)}"


def _form(tools: Iterable[Tool]) -> str:
    """Return how calls of these tools are written."""
    kinds = {tool.custom for tool in tools}
    if kinds == {True}:
        return f"with the name first, and the text behind it as it is: {_CUSTOM_FORM}"
    custom = f", or for a tool with free text: {_CUSTOM_FORM}" if True in kinds else ""
    return f"with the name first: {_FORM}{custom}"


def _listed(errors: Iterable[str]) -> str:
    return "\n".join(f"- {error}" for error in errors)
