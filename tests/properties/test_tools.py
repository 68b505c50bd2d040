"""Any schema, any answer: the code for tools raises nothing but its own errors, and makes nothing up."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.tools.answer_json import json_in, repaired
from openai_dify_proxy.tools.instructions import full_instructions, reminder
from openai_dify_proxy.tools.schema_walk import BadSchema, SchemaTooComplex
from openai_dify_proxy.tools.schemas import compile_schema
from openai_dify_proxy.tools.signatures import tool_signature, type_text
from openai_dify_proxy.tools.strict_schemas import check_strict
from openai_dify_proxy.translate.tool_texts import render_calls
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, Tool, ToolCall

_KEYWORDS = [
    "type", "properties", "required", "items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf", "not",
    "if", "then", "else", "enum", "const", "default", "description", "format", "minimum", "maxLength", "minItems",
    "pattern", "patternProperties", "propertyNames", "$ref", "$defs", "$id", "$schema", "nullable", "examples",
    "dependentSchemas", "unevaluatedProperties", "uniqueItems", "contains", "multipleOf",
]  # fmt: skip
_NAMES = ["object", "array", "string", "integer", "null", "#", "#/$defs/a", "#/properties/a", "a", "", "^a+$", "("]

plain = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False, width=16)
    | st.text(max_size=5)
)
values: st.SearchStrategy[Any] = st.recursive(
    plain | st.sampled_from(_NAMES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*_KEYWORDS, "a", "b"]), inner, max_size=5)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=25,
)


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


@given(values, values)
def test_any_schema_has_a_signature_and_instructions(parameters: Any, schema: Any) -> None:
    tool = Tool("f", "Do it.", _written(parameters))
    assert tool_signature(tool).startswith("// Do it.\nf(")
    assert type_text(_written(schema))
    output = OutputRequest((tool,), answer_format=AnswerFormat(_written(schema)))
    assert full_instructions(output).count("<tool_call>{") == 3
    assert reminder(output).count("<tool_call>{") == 1


@given(values, values)
def test_any_schema_compiles_or_is_refused(schema: Any, value: Any) -> None:
    try:
        validator = compile_schema(_written(schema))
        check_strict(validator.root)
    except (BadSchema, SchemaTooComplex):
        return
    assert len(validator.errors(_written(value))) <= 5


@given(values, values)
def test_any_value_is_checked(schema: Any, value: Any) -> None:
    try:
        validator = compile_schema(_written({"properties": {"a": schema}, "anyOf": [schema, {"items": schema}, True]}))
    except (BadSchema, SchemaTooComplex):
        return
    messages = validator.errors(_written({"a": value}))
    assert len(messages) <= 5
    assert all(messages)


@given(values, st.text(max_size=20), st.sampled_from(["{}", "```json\n{}\n```", "{}\n"]))
def test_json_in_an_answer_is_found_unchanged(value: Any, prose: str, frame: str) -> None:
    source = _written({"a": value}).decode()
    prose = prose.translate(dict.fromkeys(map(ord, "{[`")))
    fenced = frame.replace("{}", source)
    if "```" not in source:
        assert json_in(f"{prose}\n{fenced}") == source
    assert json_in(fenced) == source


@given(values, st.data())
def test_truncated_json_is_a_prefix_of_the_repair(value: Any, data: st.DataObject) -> None:
    source = json.dumps({"a": value}, separators=(",", ":"))
    cut = source[: data.draw(st.integers(0, len(source) - 1))]
    result = repaired(cut)
    assert result is None or (result.startswith(cut) and set(result[len(cut) :]) <= {"}", "]"})


@given(st.text(alphabet="{}[]\":,\\'ab1 \n`tn", max_size=60))
def test_any_text_is_searched_and_repaired(text: str) -> None:
    found, result = json_in(text), repaired(text)
    if found is not None:
        json.loads(found)
    if result is not None:
        json.loads(result)
        assert [char for char in result if char in "ab1"] == [char for char in text if char in "ab1"]


@given(values, st.text(max_size=30))
def test_calls_are_one_block_each(arguments: Any, free_text: str) -> None:
    calls = [ToolCall("1", "f", _written(arguments).decode()), ToolCall("2", "g", free_text, custom=True)]
    assert render_calls(calls).lower().count("</tool_call>") == 2
