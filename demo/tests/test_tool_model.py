"""What the demo's model answers to instructions about tools and about JSON, as OpenAI Dify Proxy words them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.tests.conftest import Caller
from demo.tests.recorded import order, read_events, recording
from demo.tests.test_against_recordings import VERSIONS
from demo.tests.test_behaviour import answer_in
from openai_dify_proxy_demo.script import MAX_CHARACTERS, read_script
from openai_dify_proxy_demo.tool_model import FAULTS, JSON_FAULTS, MAX_CALLS, tool_answer
from openai_dify_proxy_demo.tool_prompts import read_prompt, spoken_text

WEATHER = "// Get the weather.\nget_weather({\n  city: string // The city.\n  days?: integer\n})"
PATCH = "// Edit files.\napply_patch(free text)"
DICE = "roll_dice({})"
FINAL = "final_result({ answer: string })"
FORM = (
    "To call a tool, write the call in your answer, in exactly this form, with the name first and the arguments as one "
    'JSON object:\n<tool_call>{"name": "get_weather", "arguments": {"city": "..."}}</tool_call>\nAfter the last call, '
    "stop."
)
AUTO = "Call a tool if it helps with this message, else answer as usual."
REQUIRED = "Your answer to this message must be a tool call."
DICE_REQUIRED = "Your answer to this message must be a call of the tool roll_dice."
ONLY = "Your answer to this message must be a tool call. Call only one of these tools: roll_dice, now."
SINGLE = "Call a tool if it helps with this message, else answer as usual. Write at most one call."
NONE = "Do not call a tool in this answer."
JSON = "Answer with JSON only, which fits this type. Do not explain it.\n{ x: integer; label: string }"
ANY_JSON = "Answer with one JSON object only. Do not explain it."
TOLD_JSON = "Answer with JSON only, which fits the type that you were given."

Message = tuple[str, str]


def told(demand: str = AUTO, *tools: str) -> str:
    definitions = "\n\n".join(tools or (WEATHER, PATCH, DICE))
    return f"You can call these tools. Each is shown as its name and its type.\n\n{definitions}\n\n{FORM}\n\n{demand}"


def block(instructions: str) -> str:
    return f"\n\n<instructions>\n{instructions}\n</instructions>"


def answer(question: str, *history: Message, inputs: dict[str, str] | None = None) -> str | None:
    return tool_answer(read_prompt(question, inputs or {}, history))


def call(name: str, arguments: dict[str, Any]) -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {json.dumps(arguments)}}}</tool_call>'


def result(name: str, text: str, number: int = 0) -> str:
    count = f' call="{number}"' if number else ""
    return f'<tool_result name="{name}"{count}>\n{text}\n</tool_result>'


PARIS = call("get_weather", {"city": "Paris"})
ROME = call("get_weather", {"city": "Rome"})
ROLL = call("roll_dice", {})


@pytest.mark.parametrize(
    ("question", "demand", "expected"),
    [
        ("Hello.", AUTO, None),
        ("What does get_weather say about 'Paris'?", AUTO, PARIS),
        ("What's the weather in Paris?", AUTO, PARIS),
        ("Ask get_weather(city=Paris) and get_weather(city=Rome).", AUTO, f"{PARIS}\n{ROME}"),
        ("get_weather about 'Paris', then roll_dice, roll_dice!", AUTO, f"{PARIS}\n{ROLL}"),
        ("get_weather and roll_dice with 'Paris'", AUTO, f"{PARIS}\n{ROLL}"),
        ('get_weather({"city": "(P)"})', AUTO, call("get_weather", {"city": "(P)"})),
        ("get_weather({broken}) in Paris", AUTO, PARIS),
        ("get_weather({city: Paris", AUTO, PARIS),
        ("You may use roll_dice.\n\nHello.", AUTO, None),
        ("You may use roll_dice.\n\n\nAsk get_weather about 'Paris'.", AUTO, PARIS),
        ("apply_patch: INPUT<<\n*** A\n\nb>>>", AUTO, '<tool_call>{"name": "apply_patch"}\n*** A\n\nb>\n</tool_call>'),
        (
            "Use apply_patch: INPUT<<*** A\n\nroll_dice>>",
            AUTO,
            '<tool_call>{"name": "apply_patch"}\n*** A\n\nroll_dice\n</tool_call>',
        ),
        (
            "apply_patch INPUT<<no end",
            AUTO,
            '<tool_call>{"name": "apply_patch"}\napply_patch INPUT<<no end\n</tool_call>',
        ),
        ("Hello 'Paris'.", REQUIRED, PARIS),
        ("Hello.", DICE_REQUIRED, ROLL),
        ("Ask get_weather about 'Paris'.", ONLY, ROLL),
        ("Ask get_weather about 'Paris'.", NONE, None),
        ("get_weather(city=Paris) and roll_dice", SINGLE, PARIS),
        ("get_weather(city=Paris) THEN roll_dice", AUTO, PARIS),
        ("Ask get_weather about 'Paris'.", f"{AUTO}\n\nWhen you answer without a tool call: {JSON}", PARIS),
        ("3 of 'a'", f"{AUTO}\n\nWhen you answer without a tool call: {JSON}", '{"x": 3, "label": "a"}'),
    ],
)
def test_questions_with_tools(question: str, demand: str, expected: str | None) -> None:
    assert answer(question + block(told(demand))) == expected
    assert answer(question, inputs={"tools": told(demand), "query": question}) == expected


@pytest.mark.parametrize(
    ("question", "instructions", "expected"),
    [
        ("A point at 3 named 'here'.", JSON, {"x": 3, "label": "here"}),
        ("Tell me.", ANY_JSON, {"answer": "Tell me."}),
        ("Long.\n\nTell me.", ANY_JSON, {"answer": "Tell me."}),
        ("A point at 3 named 'here'.", JSON.replace("\n", "\nA point.\nOn a map.\n", 1), {"x": 3, "label": "here"}),
    ],
)
def test_answers_in_json(question: str, instructions: str, expected: Any) -> None:
    text = answer(question + block(instructions))
    assert text == json.dumps(expected)


def test_definitions_stay_valid_in_a_conversation() -> None:
    history = [("user", f"Hello.{block(told())}"), ("assistant", "Hello.")]
    assert answer("Ask get_weather about 'Paris'.", *history) == PARIS
    for question in ("Is the weather good?", "get_weathers and get_weather-maps of forget_weather"):
        assert answer(question, *history) is None, "without instructions only a named tool is called"
    assert answer(f"Hello 'Paris'.{block(REQUIRED)}", *history) == PARIS
    changed = [*history, ("user", f"More.{block(told(AUTO, DICE))}"), ("assistant", "More.")]
    assert answer("Ask get_weather about 'Paris'.", *changed) is None
    assert answer(f"Now roll_dice.{block(AUTO)}", *changed) == ROLL
    points = [("user", f"Hello.{block(JSON)}"), ("assistant", "{}")]
    assert answer(f"4 and 'b'{block(TOLD_JSON)}", *points) == '{"x": 4, "label": "b"}'
    assert answer("4 and 'b'", *points) is None


ASKED = ("user", f"get_weather(city=Paris) and get_weather(city=Rome) THEN roll_dice THEN roll_dice{block(told())}")
STEPS = [
    ASKED,
    ("assistant", f"{PARIS}\n{ROME}"),
    ("user", f"{result('get_weather', 'sun', 1)}\n\n{result('get_weather', 'rain', 2)}"),
    ("assistant", ROLL),
    ("user", result("roll_dice", "5")),
    ("assistant", ROLL),
    ("user", result("roll_dice", "6")),
    ("assistant", "The result of roll_dice is: 6"),
]


@pytest.mark.parametrize("number", range(0, len(STEPS), 2))
def test_steps_follow_the_results(number: int) -> None:
    """As a conversation of Dify, and as a transcript."""
    assert answer(STEPS[number][1], *STEPS[:number]) == STEPS[number + 1][1]
    lines = "\n\n".join(
        f"{'Tool' if text.startswith('<tool_result') else role.title()}: {text.partition('<instr')[0].strip()}"
        for role, text in STEPS[:number]
    )
    transcript = f"The conversation so far, oldest message first:\n\n{lines}\n\nThe new message to answer:\n\n"
    question = STEPS[number][1].partition("\n\n<instr")[0]
    assert answer(f"{transcript}{question}{block(told())}") == STEPS[number + 1][1]


def test_single_calls_are_steps() -> None:
    question = f"get_weather(city=Paris) and get_weather(city=Rome){block(told(SINGLE))}"
    history = [("user", question), ("assistant", PARIS)]
    sunny = result("get_weather", "sunny")
    assert answer(sunny + block(SINGLE), *history) == ROME
    history += [("user", sunny), ("assistant", ROME)]
    assert answer(sunny + block(SINGLE), *history) == "The result of get_weather is: sunny"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (result("a", "one"), "The result of a is: one"),
        (result("a", "two\nlines"), "The result of a is: two\nlines"),
        (f"{result('b', 'two', 2)}\n\n{result('a', 'one', 1)}", "The result of a is: one\nThe result of b is: two"),
        ("<tool_result>\nlost\n</tool_result>", "The result of the tool is: lost"),
        (f"{result('a', 'one')}\n\nWhat does it mean?", "The result of a is: one"),
        (f"{result('a', 'ERROR get_weather')}\n\nNow roll_dice.{block(told())}", ROLL),
        (f"{result('a', 'one')}{block(told(REQUIRED, WEATHER, FINAL))}", call("final_result", {"answer": "one"})),
        (f"{result('a', 'one')}{block(told(AUTO, WEATHER, FINAL))}", call("final_result", {"answer": "one"})),
        (f"{result('a', 'one')}{block(told(REQUIRED, WEATHER))}", call("get_weather", {"city": "one"})),
        (f"{result('a', '7 of “b”')}{block(JSON)}", '{"x": 7, "label": "b"}'),
        ("<tool_result name='a'>\nno end", None),
        ("<tool_result of another form\n</tool_result>", None),
    ],
)
def test_answers_from_results(question: str, expected: str | None) -> None:
    assert answer(question) == expected


def test_final_tools_are_called_at_the_end() -> None:
    assert answer(f"About 'x'.{block(told(REQUIRED, FINAL))}") == call("final_result", {"answer": "x"})
    assert answer(f"The weather in Paris.{block(told(REQUIRED, FINAL, WEATHER))}") == PARIS


INVALID = (
    'Your call of get_weather is invalid:\n- arguments.city: [1] is not of type "string"\n\nThe tool is:\n'
    f"{WEATHER}\n\nWrite the corrected call only, with the name first: <tool_call>…</tool_call>. Do not explain."
)
MISSING = "Your answer must be a tool call of one of these tools: get_weather, roll_dice. Write the call only, as told."
MISSING_ONE = "Your answer must be a tool call of get_weather. Write the call only, as told."
BAD_JSON = f'Your answer is not the JSON that was asked for:\n- x: null is not of type "integer"\n\n{JSON}'


@pytest.mark.parametrize(
    ("question", "instructions", "repair", "expected"),
    [
        ("CALL:types get_weather about 'Paris'", told(), INVALID, PARIS),
        ("CALL:none get_weather about 'Paris'", told(REQUIRED), MISSING, PARIS),
        ("CALL:none about 'Paris'", told(REQUIRED), MISSING_ONE, PARIS),
        ("CALL:half 3 'a'", JSON, BAD_JSON, '{"x": 3, "label": "a"}'),
    ],
)
def test_corrections(question: str, instructions: str, repair: str, expected: str) -> None:
    asked = question + block(instructions)
    wrong = answer(asked)
    assert wrong is not None
    assert wrong != expected
    history: list[Message] = [("user", asked), ("assistant", wrong)]
    assert answer(repair, *history) == expected
    alone = f"{question}\n\nYour answer was:\n{wrong}\n\n{repair}{block(instructions)}"
    assert answer(alone) == expected
    assert answer(repair, *history, ("user", repair), ("assistant", wrong)) == expected
    stubborn = [("user", f"STUBBORN {asked}"), ("assistant", wrong)]
    assert answer(repair, *stubborn) == wrong
    assert answer(f"STUBBORN {alone}") == wrong


ARGUMENTS = '{"city": "Rome", "days": 3}'
SPELLINGS = {
    "fenced": f'```json\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n```',
    "function": f"<function=get_weather>{ARGUMENTS}</function>",
    "invoke": (
        '<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n<parameter name="days">3</parameter>\n'
        "</invoke>"
    ),
    "mistral": f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {ARGUMENTS}}}]',
    "python-tag": f'<|python_tag|>{{"name": "get_weather", "parameters": {ARGUMENTS}}}',
    "single-quotes": "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Rome', 'days': 3}}</tool_call>",
    "comma": '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": 3,},}</tool_call>',
    "half": '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": ',
    "types": '<tool_call>{"name": "get_weather", "arguments": {"city": ["Rome"], "days": [3]}}</tool_call>',
    "misspelled": f'<tool_call>{{"name": "Get-Weather", "arguments": {ARGUMENTS}}}</tool_call>',
    "full-width": f'＜tool_call＞{{"name": "get_weather", "arguments": {ARGUMENTS}}}＜/tool_call＞',
}


@pytest.mark.parametrize("word", SPELLINGS)
def test_spellings(word: str) -> None:
    assert answer(f"CALL:{word} get_weather(city=Rome, days=3){block(told())}") == SPELLINGS[word]


@pytest.mark.parametrize("word", FAULTS)
def test_every_misbehaviour_differs_from_the_told_form(word: str) -> None:
    for question in ('get_weather({"city": "a\\nb"}) roll_dice', "apply_patch INPUT<<a\nb>>"):
        usual = answer(question + block(told()))
        spelled = answer(f"CALL:{word} {question}{block(told())}")
        assert spelled
        assert spelled != usual


@pytest.mark.parametrize("word", JSON_FAULTS)
def test_every_misbehaviour_differs_from_plain_json(word: str) -> None:
    instructions = JSON.replace("label: string", 'label: "a\\nb"')
    usual = answer(f"3{block(instructions)}")
    spelled = answer(f"CALL:{word} 3{block(instructions)}")
    assert spelled
    assert spelled != usual


def test_every_misbehaviour_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "demo.md").read_text(encoding="utf-8")
    assert [word for word in (*FAULTS, *JSON_FAULTS) if f"`{word}`" not in page] == []


def test_an_unknown_misbehaviour_is_none() -> None:
    assert answer(f"CALL:nothing get_weather about 'Paris'{block(told())}") == PARIS


# Keywords and apps


def test_keywords_do_not_count_in_instructions_and_results() -> None:
    question = f"{result('a', 'ERROR')}\n\nHello.{block('// Returns ERROR:limit or EMPTY.')}"
    assert spoken_text(question) == "Hello."
    assert read_script(spoken_text(question), "x") == read_script("Hello.", "x")


def test_text_of_say_may_end_with_a_bracket() -> None:
    assert read_script("SAY<<<a>1</a>>> THINK", "").answer == "<a>1</a>"
    assert read_script("SAY<<a>> and >>", "").answer == "a"


def test_split_sends_single_characters_without_delay() -> None:
    script = read_script("SPLIT SAY<<a b>>", "")
    assert (script.pieces, script.delay) == (("a", " ", "b"), 0)
    script = read_script("SPLIT LONG:100000", "")
    assert len(script.pieces) == MAX_CHARACTERS


@pytest.mark.parametrize("name", ["demo-chat-tools", "demo-completion-tools", "demo-workflow-tools"])
def test_instructions_in_an_input(demo: Caller, name: str) -> None:
    for question, expected in (("Ask get_weather about 'Paris'.", PARIS), ("Hello.", None)):
        body = demo.body(name, question)
        events = read_events(demo.ask(name, question, inputs={**body["inputs"], "tools": told()}).content)
        text = answer_in(events)
        assert text == expected if expected else text.endswith("You wrote: “Hello.”") and "Inputs:" not in text


@pytest.mark.parametrize("version", VERSIONS)
def test_fixed_text_has_the_recorded_events(demo: Caller, version: str) -> None:
    """The recording has fixed text before the first model's node, and right behind its text."""
    recorded = recording(VERSIONS[version], "chatflow-multi-answer").events()
    events = read_events(demo.ask(f"demo-advanced-chat-framed@{version}", "SAY<<hi>>").content)
    assert texts_in(events) == [
        ("You asked: ", ["answer", "answer"]),
        ("SAY<<hi>>", ["sys", "query"]),
        ("\n\n", ["answer", "answer"]),
        ("hi", ["llm", "text"]),
        ("", ["llm", "text"]),
        ("\n\nWhat else?", ["answer", "answer"]),
    ]
    whole = "You asked: SAY<<hi>>\n\nhi\n\nWhat else?"
    assert (
        next(event for event in events if event["event"] == "workflow_finished")["data"]["outputs"]["answer"] == whole
    )
    assert demo.log.runs[-1].answer == whole
    first = order(events).index("message")
    assert order(events)[:first] == order(recorded)[: order(recorded).index("message")]
    for found, selector in ((events, "llm"), (recorded, "llm1")):
        last = max(
            index for index, event in enumerate(found) if event.get("from_variable_selector") == [selector, "text"]
        )
        assert found[last + 1]["from_variable_selector"][1] == "answer"
        assert found[last + 2]["event"] == "node_finished"


def texts_in(events: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(event["answer"], event["from_variable_selector"]) for event in events if event["event"] == "message"]


# Bounds

PARTS = [
    *(
        "INPUT<<",
        "SAY<<",
        "CALL:",
        "get_weather(",
        "get_weather({",
        'get_weather({"',
        "roll_dice ",
        "a=",
        "'",
        "“",
        '"',
    ),
    *(
        "\n\n<instructions>\n",
        "<tool_result",
        "User: ",
        "\n\n",
        "in A",
        "1",
        "1.",
        "THEN ",
        "Your answer must be a tool call of ",
    ),
    *("a, ", "name=", "in ", "A", "-", "_", ".", "get_weather "),
]


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=30))
def test_no_question_breaks_the_model(parts: list[str]) -> None:
    question = "".join(parts)
    for instructions in (told(), told(REQUIRED), JSON):
        answer(question + block(instructions), ("user", question), ("assistant", question))
        answer(question + question.join(["\n\nThe new message to answer:\n\n", block(instructions)]))


@pytest.mark.parametrize("part", PARTS)
def test_hostile_questions_take_little_time(part: str) -> None:
    """Regular expressions of quadratic time would take minutes."""
    question = part * (400_000 // len(part))
    before = time.process_time()
    answer(question + block(told()))
    answer(f"x{block(told())}", ("user", question), ("assistant", question))
    answer("x", inputs={"tools": question})
    read_script(spoken_text(question), "")
    assert time.process_time() - before < 10


def test_the_number_of_calls_is_bounded() -> None:
    text = answer("roll_dice({}) " * 1000 + block(told()))
    assert text is not None
    assert text.count("<tool_call>") == MAX_CALLS
