"""The ways in which models write tool calls and JSON: as they were told, and otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A tool call. `free` is the text of a tool that takes free text, None for a tool with arguments."""

    name: str
    arguments: dict[str, Any]
    free: str | None = None

    @property
    def head(self) -> str:
        """The name and the arguments as JSON; the name alone if free text follows."""
        return _json({"name": self.name} if self.free is not None else {"name": self.name, "arguments": self.arguments})

    @property
    def values(self) -> dict[str, Any]:
        """The arguments, for spellings without free text."""
        return self.arguments if self.free is None else {"input": self.free}


def tagged(calls: list[Call]) -> str:
    """Return the calls in the form that the instructions demand."""
    return "\n".join(map(_tagged, calls))


def plain_json(value: Any) -> str:
    """Return a value as JSON on one line."""
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tagged(call: Call) -> str:
    return _block(call.head if call.free is None else f"{call.head}\n{call.free}\n")


def _block(content: str) -> str:
    return f"<tool_call>{content}</tool_call>"


def _named(call: Call, name_key: str = "name", arguments_key: str = "arguments") -> str:
    return _json({name_key: call.name, arguments_key: call.values})


def _list(calls: list[Call]) -> str:
    return f"[{', '.join(map(_named, calls))}]"


def _each(write: Callable[[Call], str]) -> Callable[[list[Call]], str]:
    return lambda calls: "\n".join(map(write, calls))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _invoke(call: Call, prefix: str = "") -> str:
    inner = "".join(
        f'<{prefix}parameter name="{name}">{_text(value)}</{prefix}parameter>\n' for name, value in call.values.items()
    )
    return f'<{prefix}invoke name="{call.name}">\n{inner}</{prefix}invoke>'


def _invocations(calls: list[Call], prefix: str = "") -> str:
    inner = "\n".join(_invoke(call, prefix) for call in calls)
    return f"<{prefix}function_calls>\n{inner}\n</{prefix}function_calls>"


def _function_parameters(call: Call) -> str:
    inner = "".join(f"<parameter={name}>{_text(value)}</parameter>\n" for name, value in call.values.items())
    return f"<tool_call>\n<function={call.name}>\n{inner}</function>\n</tool_call>"


def _with_comma(text: str) -> str:
    """Return a JSON object with a trailing comma."""
    return f"{text[:-1]},}}" if text.endswith("}") and text != "{}" else text


def _comma_call(call: Call) -> str:
    return _block(f'{{"name": {_json(call.name)}, "arguments": {_with_comma(_json(call.values))},}}')


def _wrong(value: Any) -> Any:
    """Return a value of another type."""
    if isinstance(value, dict):
        return {name: _wrong(part) for name, part in value.items()} or {"surplus": [None]}
    return "no list" if isinstance(value, list) else [value]


def _wrong_types(calls: list[Call]) -> str:
    return tagged([Call(call.name, _wrong(call.values)) for call in calls])


def _half(text: str) -> str:
    """Cut a text before its last value."""
    return text[: text.rfind(": ") + 2]


def _renamed(rename: Callable[[str], str]) -> Callable[[list[Call]], str]:
    return lambda calls: tagged([Call(rename(call.name), call.arguments, call.free) for call in calls])


def _thought(text: str) -> str:
    return f"<think>\nI need a tool.\n{text}\n</think>\n"


def _bracketed(less: str, greater: str) -> Callable[[list[Call]], str]:
    return _each(lambda call: f"{less}tool_call{greater}{_named(call)}{less}/tool_call{greater}")


FAULTS: dict[str, Callable[[list[Call]], str]] = {
    # JSON in other places
    "fenced": _each(lambda call: f"```json\n{_named(call)}\n```"),
    "bare": _each(_named),
    "array": lambda calls: _block(_list(calls)),
    "tool-calls": lambda calls: f"<tool_calls>{_list(calls)}</tool_calls>",
    "function-call": _each(lambda call: f"<function_call>{_named(call)}</function_call>"),
    "mistral": lambda calls: f"[TOOL_CALLS] {_list(calls)}",
    "mistral-name": _each(lambda call: f"[TOOL_CALLS]{call.name}{_json(call.values)}"),
    "python-tag": _each(lambda call: f"<|python_tag|>{_named(call, 'name', 'parameters')}"),
    # Other keys
    "tool-key": _each(lambda call: _block(_named(call, "tool"))),
    "function-key": _each(lambda call: _block(f'{{"type": "function", "function": {_named(call)}}}')),
    "parameters-key": _each(lambda call: _block(_named(call, "name", "parameters"))),
    "string-arguments": _each(
        lambda call: _block(_json({"name": call.name, "arguments": _json(call.values)})),
    ),
    "arguments-first": _each(lambda call: _block(_json({"arguments": call.values, "name": call.name}))),
    # XML
    "function": _each(lambda call: f"<function={call.name}>{_json(call.values)}</function>"),
    "function-parameters": _each(_function_parameters),
    "invoke": _each(_invoke),
    "function-calls": _invocations,
    "namespace": lambda calls: _invocations(calls, "ns:"),
    # Broken marks
    "unclosed": _each(lambda call: f"<tool_call>{_named(call)}"),
    "full-width": _bracketed("＜", "＞"),
    "look-alike": _bracketed("‹", "›"),
    "escaped": _each(lambda call: f"&lt;tool_call&gt;{_named(call)}&lt;/tool_call&gt;"),
    "end-token": lambda calls: f"{tagged(calls)}<|im_end|>",
    # Broken JSON
    "comma": _each(_comma_call),
    "single-quotes": _each(lambda call: _block(str({"name": call.name, "arguments": call.values}))),
    "line-breaks": _each(lambda call: _block(_named(call).replace("\\n", "\n"))),
    "half": lambda calls: _half(tagged(calls).removesuffix("</tool_call>")),
    # Wrong content
    "types": _wrong_types,
    "unknown": _renamed(lambda name: f"no_{name}_here"),
    "misspelled": _renamed(lambda name: name.replace("_", "-").title()),
    # Other text
    "prose": lambda calls: f"I will look that up.\n\n{tagged(calls)}",
    "invented": lambda calls: f"{tagged(calls)}\n\nThe tool says 42, so the answer is 42. " + "It is certain. " * 20,
    "invented-result": lambda calls: (
        f'{tagged(calls)}\n<tool_result name="{calls[-1].name}">\n42\n</tool_result>\nThe answer is 42.'
    ),
    "think": lambda calls: _thought(tagged(calls)),
    "think-text": lambda calls: f"{_thought(tagged(calls))}\nI know the answer without it: 42.",
    "none": lambda _: "I would rather not call a tool.",
}
"""Other ways of writing calls, by the word after `CALL:`."""


JSON_FAULTS: dict[str, Callable[[Any], str]] = {
    "fenced": lambda value: f"```json\n{_json(value)}\n```",
    "prose": lambda value: f"Here is the JSON:\n\n{_json(value)}\n\nAnything else?",
    "think": lambda value: f"<think>\nMaybe {_json(value)}?\n</think>\n\n{_json(value)}",
    "tagged": lambda value: f"<answer>{_json(value)}</answer>",
    "array": lambda value: _json([value]),
    "comma": lambda value: _with_comma(_json(value)),
    "single-quotes": str,
    "line-breaks": lambda value: _json(value).replace("\\n", "\n"),
    "unclosed": lambda value: _json(value)[:-1],
    "half": lambda value: _half(_json(value)),
    "types": lambda value: _json(_wrong(value)),
    "none": lambda _: "I would rather write prose.",
}
"""Other ways of writing the JSON of an answer, by the word after `CALL:`."""
