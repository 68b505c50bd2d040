"""Answers a prompt with tools or with a type for the answer, as a model that follows its instructions would.

The model calls a tool that the question names, or that it has to call. It takes arguments from the question: a value
after the name of a parameter (`city=Paris`), text in quotation marks, numbers, names after "in" or "for". It answers
from tool results. `CALL:<fault>` makes it write a call or an answer in another way; see `FAULTS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from openai_dify_proxy_demo.tool_prompts import Prompt
from openai_dify_proxy_demo.type_texts import Type, make_value

_QUOTED = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"|“([^”\n]+)”|`([^`\n]+)`")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)")
_NAMES = re.compile(r"\b(?:in|for|about|of|at|to|from)\s+((?:[A-Z][\w.'-]*,?\s?)+)")
_INPUT = re.compile(r"INPUT<<(.*?)>>", re.DOTALL)
_FAULT = re.compile(r"\bCALL:([\w-]+)")
_FINAL = re.compile(r"final[_-]")
_COMMON_WORDS = frozenset({"get", "set", "the", "tool", "call", "function", "with", "final", "result", "answer"})

MAX_CALLS = 20


def tool_answer(prompt: Prompt) -> str | None:
    """Return the answer of the model; None if the prompt leaves it free and asks for nothing that needs a tool."""
    fault = _fault(prompt)
    calls = [] if prompt.forbidden else list(_calls(prompt, prompt.topic))
    if calls:
        return FAULTS.get(fault, _tagged)(prompt, calls)
    if prompt.wants_json:
        return _JSON_FAULTS.get(fault, _plain_json)(_instance(prompt, prompt.topic))
    if prompt.results:
        return "\n".join(f"The result of {name or 'the tool'} is: {text}" for name, text in prompt.results)
    return None


Call = tuple[str, Any]
"""The name of a tool, and its arguments: a dict, or free text."""


def _fault(prompt: Prompt) -> str:
    found = _FAULT.search(prompt.topic)
    return found[1] if found and (not prompt.repairs or "STUBBORN" in prompt.topic) else ""


def _calls(prompt: Prompt, source: str) -> Iterator[Call]:
    """Return the calls that the question needs: those that it names, else one if a call is required."""
    allowed = {name: kind for name, kind in prompt.tools.items() if not prompt.only or name in prompt.only}
    if prompt.results and not (prompt.required and not prompt.repairs):
        final = next((name for name in allowed if _FINAL.match(name)), None)
        if final is not None:
            yield _call(prompt, final, allowed[final], prompt.results[-1][1])
        return
    named = [name for name in allowed if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", source)]
    for name in named:
        written = re.findall(rf"(?<![\w-]){re.escape(name)}\(([^()]*)\)", source)[:MAX_CALLS]
        for text in written or [source]:
            yield _call(prompt, name, allowed[name], text if text.strip() else source)
    if named:
        return
    hinted = [name for name in allowed if _hints(name) & set(re.findall(r"[a-z]{4,}", source.lower()))]
    if hinted and not all(map(_FINAL.match, hinted)):
        yield _call(prompt, hinted[0], allowed[hinted[0]], source)
    elif prompt.required and allowed:
        final = next((name for name in allowed if _FINAL.match(name)), None)
        name = final if final is not None and (prompt.results or len(allowed) == 1) else next(iter(allowed))
        yield _call(prompt, name, allowed[name], prompt.results[-1][1] if prompt.results else source)


def _hints(name: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]{4,}", name.lower())} - _COMMON_WORDS


def _call(prompt: Prompt, name: str, kind: Type | None, text: str) -> Call:
    if kind is None:
        written = _INPUT.search(prompt.topic)
        return name, written[1].strip("\n") if written else text
    return name, _filled(kind, text, prompt.named)


def _instance(prompt: Prompt, source: str) -> Any:
    text = prompt.results[-1][1] if prompt.results else source
    return {"answer": text} if prompt.answer is None else _filled(prompt.answer, text, prompt.named)


def _filled(kind: Type, text: str, named: Mapping[str, Type]) -> Any:
    """Return a value of ``kind`` with what ``text`` says."""
    numbers = [json.loads(number) for number in _NUMBER.findall(text)]
    texts = [next(filter(None, found)) for found in _QUOTED.findall(text)]
    names = [found.strip(" ,.?") for found in _NAMES.findall(text)]

    def choose(name: str, member: Type) -> Any:
        explicit = re.search(rf"\b{re.escape(name)}[\"']?\s*[=:]\s*([\"']?)([^\s,;\"')]+)\1", text)
        return _chosen(member, explicit[2] if explicit else None, text, numbers, texts, names)

    return make_value(kind, choose, dict(named))


def _chosen(kind: Type, explicit: str | None, text: str, numbers: list[Any], texts: list[str], names: list[str]) -> Any:
    """Return the value of a member, or None if the text has none for it."""
    if kind.kind == "union":
        literals = [part.value for part in kind.parts if part.kind == "literal" and part.value is not None]
        if literals:
            return next(
                (value for value in literals if re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", explicit or text)),
                None,
            )
        return _chosen(kind.parts[0], explicit, text, numbers, texts, names)
    if kind.kind == "array" and kind.parts[0].kind == "name":
        values = numbers if kind.parts[0].value in ("number", "integer") else texts or names
        return list(values) or None
    if kind.kind != "name":
        return None
    if kind.value == "string":
        if explicit is not None:
            return explicit
        found = texts or names
        return found.pop(0) if found else text.strip()[:200] or None
    if kind.value == "boolean":
        return {"true": True, "false": False}.get(explicit or "")
    if kind.value in ("number", "integer"):
        if explicit is not None and _NUMBER.fullmatch(explicit):
            return json.loads(explicit)
        return numbers.pop(0) if numbers else None
    return None


# Spellings


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object(call: Call) -> str:
    name, arguments = call
    if isinstance(arguments, str):
        return f'{{"name": {_json(name)}}}\n{arguments}\n'
    return f'{{"name": {_json(name)}, "arguments": {_json(arguments)}}}'


def _tagged(_: Prompt, calls: list[Call]) -> str:
    return "\n".join(f"<tool_call>{_object(call)}</tool_call>" for call in calls)


def _each(template: Callable[[str, Any], str]) -> Callable[[Prompt, list[Call]], str]:
    return lambda _, calls: "\n".join(template(*call) for call in calls)


def _parameters(arguments: dict[str, Any], tag: str) -> str:
    shown = {name: value if isinstance(value, str) else _json(value) for name, value in arguments.items()}
    if tag == "parameter=":
        return "".join(f"<parameter={name}>{value}</parameter>" for name, value in shown.items())
    return "".join(f'<parameter name="{name}">{value}</parameter>' for name, value in shown.items())


def _wrong(value: Any) -> Any:
    """Return a value of another type."""
    if isinstance(value, dict):
        return {name: _wrong(part) for name, part in value.items()} or {"surplus": [None]}
    return [value] if not isinstance(value, list) else "no list"


def _half(text: str) -> str:
    """Cut a text before its last value."""
    return text[: text.rfind(": ") + 2]


FAULTS: dict[str, Callable[[Prompt, list[Call]], str]] = {
    "fenced": _each(lambda name, arguments: f"```json\n{_object((name, arguments))}\n```"),
    "bare": _each(lambda name, arguments: _object((name, arguments))),
    "array": lambda _, calls: "<tool_call>[" + ", ".join(map(_object, calls)) + "]</tool_call>",
    "function": _each(lambda name, arguments: f"<function={name}>{_json(arguments)}</function>"),
    "function-parameters": _each(
        lambda name, arguments: (
            f"<tool_call>\n<function={name}>\n{_parameters(arguments, 'parameter=')}\n</function>\n</tool_call>"
        )
    ),
    "invoke": _each(lambda name, arguments: f'<invoke name="{name}">{_parameters(arguments, "parameter")}</invoke>'),
    "function-calls": lambda _, calls: (
        "<function_calls>\n"
        + "\n".join(
            f'<invoke name="{name}">\n{_parameters(arguments, "parameter")}\n</invoke>' for name, arguments in calls
        )
        + "\n</function_calls>"
    ),
    "mistral": lambda _, calls: "[TOOL_CALLS] [" + ", ".join(map(_object, calls)) + "]",
    "mistral-name": _each(lambda name, arguments: f"[TOOL_CALLS]{name}{_json(arguments)}"),
    "python-tag": _each(
        lambda name, arguments: f'<|python_tag|>{{"name": {_json(name)}, "parameters": {_json(arguments)}}}'
    ),
    "tool-key": _each(
        lambda name, arguments: f'<tool_call>{{"tool": {_json(name)}, "arguments": {_json(arguments)}}}</tool_call>'
    ),
    "function-key": _each(
        lambda name, arguments: (
            f'<tool_call>{{"type": "function", "function": {_object((name, arguments))}}}</tool_call>'
        )
    ),
    "parameters-key": _each(
        lambda name, arguments: f'<tool_call>{{"name": {_json(name)}, "parameters": {_json(arguments)}}}</tool_call>'
    ),
    "string-arguments": _each(
        lambda name, arguments: (
            f'<tool_call>{{"name": {_json(name)}, "arguments": {_json(_json(arguments))}}}</tool_call>'
        )
    ),
    "arguments-first": _each(
        lambda name, arguments: f'<tool_call>{{"arguments": {_json(arguments)}, "name": {_json(name)}}}</tool_call>'
    ),
    "think": lambda prompt, calls: f"<think>\nI need a tool.\n{_tagged(prompt, calls)}\n</think>\n",
    "unclosed": _each(lambda name, arguments: f"<tool_call>{_object((name, arguments))}"),
    "full-width": _each(lambda name, arguments: f"＜tool_call＞{_object((name, arguments))}＜/tool_call＞"),
    "comma": _each(lambda name, arguments: f"<tool_call>{_object((name, arguments)).replace('}}', ',}}')}</tool_call>"),
    "single-quotes": _each(
        lambda name, arguments: f"<tool_call>{ {'name': name, 'arguments': arguments} }</tool_call>"
    ),
    "line-breaks": _each(
        lambda name, arguments: f"<tool_call>{_object((name, arguments))}</tool_call>".replace("\\n", "\n")
    ),
    "prose": lambda prompt, calls: f"I will look that up.\n\n{_tagged(prompt, calls)}",
    "invented": lambda prompt, calls: (
        f"{_tagged(prompt, calls)}\n\nThe tool says 42, so the answer is 42. " + "It is certain. " * 20
    ),
    "half": lambda prompt, calls: _half(_tagged(prompt, calls).removesuffix("</tool_call>")),
    "types": lambda prompt, calls: _tagged(prompt, [(name, _wrong(arguments)) for name, arguments in calls]),
    "unknown": lambda prompt, calls: _tagged(prompt, [(f"no_{name}_here", arguments) for name, arguments in calls]),
    "misspelled": lambda prompt, calls: _tagged(
        prompt, [(name.replace("_", "-").title(), arguments) for name, arguments in calls]
    ),
    "none": lambda _, __: "I would rather not call a tool.",
}
"""Other ways of writing calls, by the word after `CALL:`."""


def _plain_json(value: Any) -> str:
    return _json(value)


_JSON_FAULTS: dict[str, Callable[[Any], str]] = {
    "fenced": lambda value: f"```json\n{_json(value)}\n```",
    "prose": lambda value: f"Here is the JSON:\n\n{_json(value)}\n\nAnything else?",
    "comma": lambda value: re.sub(r"\}$", ",}", _json(value)),
    "single-quotes": str,
    "half": lambda value: _half(_json(value)),
    "types": lambda value: _json(_wrong(value)),
    "none": lambda _: "I would rather write prose.",
}
"""Other ways of writing the JSON of an answer."""
