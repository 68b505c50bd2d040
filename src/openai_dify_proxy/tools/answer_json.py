"""Finds the JSON in a model's answer, and repairs its syntax.

A repair adds no content: truncated JSON gets at most its closing brackets, and the characters of the
result are those of the source, in the same order. Everything else is left to a repair turn.

json-repair takes quadratic time for many quotes or brackets, so its input is bounded; the common faults of long texts
(line ends in strings, a comma too many, missing brackets) are repaired before it in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from msgspec import DecodeError, json

from openai_dify_proxy.tools.schemas import Validator

MAX_SEARCHED = 128 * 1024
"""Characters of a text that is searched or repaired: about 0.15 s. Longer JSON must be whole, or in one fence."""

_MAX_REPAIRED = 8 * 1024
"""Characters of a text for json-repair."""

_MAX_WORK = 1_000_000
"""Characters times quotes and brackets of a text for json-repair: at most about 0.1 s."""

_MAX_CANDIDATES = 16
_SPACE = " \t\r\n"

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[][{}:,]|[^][{}:,"\s]++', re.DOTALL)
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)
_BEGIN = re.compile(r'\{(?=\s*+["}])|\[(?=\s*+["\]{\[\d\-tfn])')
_FENCE_HEAD = re.compile(r"[\w+-]*+[ \t]*+\r?\n|(?:json|JSON)?")
_CONTROL = re.compile(r"[\x00-\x1f]")
_BAD_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|(\')|)')
_MARKS = re.compile(r"[\"'“”\[{(]")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_LITERAL = re.compile(r"\b(?:None|True|False)\b")
_LITERALS = {"None": "null", "True": "true", "False": "false"}
_STRUCTURE = dict.fromkeys(map(ord, "{}[]:,\"'“”\\"))
_CLOSERS = {"{": "}", "[": "]"}


def json_in(text: str, validator: Validator | None = None) -> str | None:
    """Return the JSON of an answer without code fences and prose around it, or None if there is none.

    The characters of valid JSON are unchanged; other JSON is repaired if that is safe. Of several parts that are JSON,
    the result is the first that ``validator`` accepts, else the first object, else the first.
    """
    whole = text.strip(_SPACE)
    if _is_json(whole):
        return whole
    found = list(islice((part for part in _candidates(whole) if _is_json(part)), _MAX_CANDIDATES))
    if found:
        valid = (part for part in found if validator is not None and not validator.errors(part.encode()))
        objects = (part for part in found if part.startswith("{"))
        return next(valid, None) or next(objects, found[0])
    for part in _repairable(whole):
        if (result := repaired(part, validator)) is not None:
            return result
    return None


def repaired(text: str | bytes, validator: Validator | None = None) -> str | None:
    """Return JSON with its syntax repaired, or None if that is not safe or the result is invalid.

    Valid JSON is returned as it is, if ``validator`` accepts it.
    """
    source = (text if isinstance(text, str) else text.decode("utf-8", "replace")).strip(_SPACE)
    if _is_json(source):
        result: str | None = source
    else:
        result = (_tidied(source) or _restored(source)) if len(source) <= MAX_SEARCHED else None
    if result is None or (validator is not None and validator.errors(result.encode())):
        return None
    return result


def fitting_outputs(outputs: dict[str, Any] | None, validator: Validator | None) -> str | None:
    """Return the outputs of a workflow as JSON if they fit the schema, else its only output if that is an object."""
    if outputs is None or validator is None:
        return None
    values = list(outputs.values())
    for value in [outputs, *(values if len(values) == 1 and isinstance(values[0], dict) else ())]:
        if not validator.names_any(value):
            continue
        data = json.encode(value)
        if not validator.errors(data):
            return data.decode()
    return None


def errors_of_answer(text: str | None, validator: Validator | None) -> list[str]:
    """Return what is wrong with a JSON text; without a schema it must be an object."""
    if text is None:
        return ["The answer contains no JSON."]
    if validator is not None:
        return validator.errors(text.encode())
    return [] if text.startswith("{") else ["The answer is no JSON object."]


def _is_json(text: str) -> bool:
    try:
        json.decode(text)
    except (DecodeError, RecursionError, UnicodeError):
        return False
    return True


def _candidates(text: str) -> Iterator[str]:
    """Yield parts that may be JSON. The parts of one kind do not overlap, so that all take linear time."""
    yield from _fenced(text)
    begin = _BEGIN.search(text) if len(text) <= MAX_SEARCHED else None
    while begin is not None:
        end = _end_of(text, begin.start())
        if end is None:
            return
        yield text[begin.start() : end]
        begin = _BEGIN.search(text, end)


def _fenced(text: str) -> Iterator[str]:
    """Yield the content between the first and the last code fence, and of each fenced block."""
    first, last = text.find("```"), text.rfind("```")
    if first == last:
        return
    yield _without_head(text[first + 3 : last])
    for block in text.split("```", 2 * _MAX_CANDIDATES)[1::2]:
        yield _without_head(block)


def _without_head(block: str) -> str:
    """Return a fenced block without the name of its language."""
    head = _FENCE_HEAD.match(block)
    return block[head.end() if head else 0 :].strip(_SPACE)


def _end_of(text: str, begin: int) -> int | None:
    """Return the end of the brackets that open at ``begin``, or None if they do not close."""
    depth = 0
    for token in _BRACKET.finditer(text, begin):
        if token[0] in _CLOSERS:
            depth += 1
        elif token[0] in ("}", "]"):
            depth -= 1
            if not depth:
                return token.end()
    return None


def _repairable(text: str) -> Iterator[str]:
    """Yield the parts that a repair may turn into JSON: the fenced block, or everything from the first bracket."""
    first, last = text.find("```"), text.rfind("```")
    if first >= 0:
        inside = _without_head(text[first + 3 : last if last > first else None])
        if inside.startswith(("{", "[")):
            yield inside
    if text.startswith(("{", "[")):
        yield text
    elif begin := _BEGIN.search(text):
        yield text[begin.start() :]


def _tidied(text: str) -> str | None:
    """Return ``text`` with line ends in strings escaped, commas too many removed, and missing brackets added."""
    parts: list[str] = []
    open_: list[str] = []
    end = 0
    for token in _TOKEN.finditer(text):
        if text[end : token.start()].strip(_SPACE):
            return None  # a quote that opens no string
        end = token.end()
        mark = token[0]
        if mark in _CLOSERS:
            open_.append(_CLOSERS[mark])
        elif mark in ("}", "]"):
            if not open_ or open_.pop() != mark:
                return None
            if parts[-1] == ",":
                parts.pop()
        parts.append(_string(mark) if mark[0] == '"' else mark)
    if text[end:].strip(_SPACE) or not parts or (open_ and parts[-1][-1] not in '"}]el'):
        return None  # a number at the end may be truncated
    result = "".join([*parts, *reversed(open_)])
    return result if _is_json(result) else None


def _string(text: str) -> str:
    """Return a JSON string with its control characters and wrong escapes escaped."""
    text = _BAD_ESCAPE.sub(_escape, text)
    return _CONTROL.sub(lambda found: json.encode(found[0]).decode()[1:-1], text)


def _escape(found: re.Match[str]) -> str:
    if found[1] is not None:
        return found[0]
    return "'" if found[2] else r"\\"


def _restored(text: str) -> str | None:
    """Return what json-repair makes of a text that is not truncated, if nothing is lost or added."""
    marks = sum(1 for _ in _MARKS.finditer(text[:_MAX_REPAIRED]))
    if len(text) > _MAX_REPAIRED or marks * len(text) > _MAX_WORK:
        return None
    if not text.startswith(("{", "[")) or not text.endswith(("}", "]")) or _ESCAPE.sub("", text).count('"') % 2:
        return None
    import json_repair  # noqa: PLC0415 - few answers need it, and it loads argparse

    try:
        result = json_repair.repair_json(text, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    # Empty strings stand for values that are missing, and an apostrophe may have been taken for a quote.
    added = result.count('""') > text.count('""') + text.count("''")
    mistaken = result.count("'") not in (0, text.count("'"))
    if added or mistaken or not _is_json(result) or (result[0], result[-1]) != (text[0], text[-1]):
        return None
    return result if _content(result) == _content(text) else None


def _content(text: str) -> str:
    """Return the characters of a text that are neither structure nor white space nor escapes."""
    text = _LITERAL.sub(lambda found: _LITERALS[found[0]], _ESCAPE.sub("", text))
    return "".join(text.translate(_STRUCTURE).split())
