"""Tools and schemas on Dify apps, from the client's request to Dify's and back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError
from openai.lib.streaming.chat import ChatCompletionStreamState

from openai_dify_proxy.settings import ToolsRule
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.conftest import Serve
from tests.api.servers import app_settings

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city."}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
POINT: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "point",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "label": {"type": "string"}},
            "required": ["x", "label"],
            "additionalProperties": False,
        },
    },
}
APPS = ["demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-agent", "demo-completion", "demo-workflow"]


def question(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def whole(client: AsyncOpenAI, model: str, messages: list[Any], **more: Any) -> Any:
    return await client.chat.completions.create(model=model, messages=messages, **({"tools": [WEATHER]} | more))


async def streamed(client: AsyncOpenAI, model: str, messages: list[Any], **more: Any) -> Any:
    """Return the completion that the official client puts together from the chunks of a stream."""
    state: Any = ChatCompletionStreamState()
    options = {"tools": [WEATHER]} | more
    stream: Any = await client.chat.completions.create(model=model, messages=messages, stream=True, **options)
    async for chunk in stream:
        state.handle_chunk(chunk)
    return state.get_final_completion()


ANSWERS = pytest.mark.parametrize("ask", [whole, streamed])


@pytest.mark.parametrize("model", APPS)
@ANSWERS
async def test_every_app_calls_tools(client: AsyncOpenAI, model: str, ask: Any) -> None:
    completion = await ask(client, model, question("What does get_weather say about 'Paris'?"))
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == ("function", "get_weather", '{"city": "Paris"}')
    assert call.id.startswith("call_")


@pytest.mark.parametrize("model", APPS)
@ANSWERS
async def test_the_model_answers_from_the_result(client: AsyncOpenAI, model: str, ask: Any) -> None:
    messages = question("What does get_weather say about 'Rome'?")
    first = await ask(client, model, messages)
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "sunny"},
    ]
    second = await ask(client, model, messages)
    assert second.choices[0].message.content == "The result of get_weather is: sunny"
    assert second.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", ["demo-chat", "demo-advanced-chat", "demo-agent"])
async def test_results_continue_the_conversation(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    messages = question(f"Ask get_weather about 'Oslo' for {model}.")
    first = await whole(client, model, messages)
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "cold"},
    ]
    second = await whole(client, model, messages)
    assert second.dify["conversation_id"] == first.dify["conversation_id"]
    assert log.runs[-1].question == '<tool_result name="get_weather">\ncold\n</tool_result>'


async def test_results_continue_a_conversation_that_the_request_names(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await whole(client, "demo-chat", question("Ask get_weather about 'Turku'."))
    call, name = first.choices[0].message.tool_calls[0].id, first.dify["conversation_id"]
    result = {"role": "tool", "tool_call_id": call, "content": "cold"}
    second = await whole(client, "demo-chat", [result], extra_body={"conversation_id": name})
    assert second.dify["conversation_id"] == name
    assert log.runs[-1].question == "<tool_result>\ncold\n</tool_result>"


async def test_results_continue_a_chat_whose_client_rewrites_questions(client: AsyncOpenAI) -> None:
    ids = {"X-OpenWebUI-Chat-Id": "chat-1", "X-OpenWebUI-User-Id": "user-1"}
    first = await whole(client, "demo-chat", question("Ask get_weather about 'Vaasa'."), extra_headers=ids)
    messages = [
        *question("Rewritten."),
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "cold"},
    ]
    second = await whole(client, "demo-chat", messages, extra_headers=ids)
    messages += [{"role": "assistant", "content": second.choices[0].message.content}, *question("Thanks.")]
    third = await whole(client, "demo-chat", messages, extra_headers=ids)
    assert {turn.dify["conversation_id"] for turn in (first, second, third)} == {first.dify["conversation_id"]}


async def test_no_call_may_follow_a_result(client: AsyncOpenAI, log: DemoLog) -> None:
    messages = question("Ask get_weather about 'Kemi'.")
    first = await whole(client, "demo-chat", messages)
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "cold"},
    ]
    second = await whole(client, "demo-chat", messages, tool_choice="none")
    assert second.dify["conversation_id"] == first.dify["conversation_id"]
    assert log.runs[-1].question.endswith("<instructions>\nDo not call a tool in this answer.\n</instructions>")


@ANSWERS
async def test_call_in_an_output_variable(serve: Serve, demo: DemoServer, ask: Any) -> None:
    app = app_settings("flow", "app-demo-workflow", demo.url, output_variable="text")
    async with serve(apps={"flow": app}).client() as client:
        completion = await ask(client, "flow", question("Ask get_weather about 'Oulu'."))
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oulu"}'


async def test_an_edited_result_forks_the_conversation(client: AsyncOpenAI) -> None:
    messages = question("Ask get_weather about 'Bergen'.")
    first = await whole(client, "demo-chat", messages)
    call = first.choices[0].message.tool_calls[0].id
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call, "content": "rain"},
    ]
    second = await whole(client, "demo-chat", messages)
    messages += [{"role": "assistant", "content": second.choices[0].message.content}, *question("Thanks.")]
    edited = [*messages]
    edited[2] = {"role": "tool", "tool_call_id": call, "content": "snow"}
    forked = await whole(client, "demo-chat", edited)
    third = await whole(client, "demo-chat", messages)
    assert third.dify["conversation_id"] == first.dify["conversation_id"]
    assert forked.dify["conversation_id"] != first.dify["conversation_id"]


async def test_the_model_is_told_once_and_reminded(serve: Serve, log: DemoLog) -> None:
    proxy = serve(tools_reminder=2)
    messages: list[Any] = []
    async with proxy.client() as client:
        for number in range(4):
            messages += question(f"Hello {number}.")
            completion = await whole(client, "demo-chat", messages)
            messages.append({"role": "assistant", "content": completion.choices[0].message.content})
    told = ["full" if "get_weather({" in run.question else "<instructions>" in run.question for run in log.runs]
    assert told == ["full", False, True, False]


async def test_another_tool_is_told_in_the_same_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    messages = question("Hello with one tool.")
    first = await whole(client, "demo-chat", messages)
    other = {"type": "function", "function": {"name": "roll_dice", "parameters": {"type": "object", "properties": {}}}}
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, *question("Now roll_dice.")]
    second = await whole(client, "demo-chat", messages, tools=[WEATHER, other])
    assert second.choices[0].message.tool_calls[0].function.name == "roll_dice"
    assert second.dify["conversation_id"] == first.dify["conversation_id"]
    assert "roll_dice(" in log.runs[-1].question


@ANSWERS
async def test_what_follows_a_call_is_cut(client: AsyncOpenAI, log: DemoLog, ask: Any) -> None:
    messages = question("CALL:invented What does get_weather say about 'Lima'?")
    first = await ask(client, "demo-chat", messages)
    message = first.choices[0].message
    assert not message.content
    assert message.tool_calls[0].function.arguments == '{"city": "Lima"}'
    messages += [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "foggy"},
    ]
    second = await ask(client, "demo-chat", messages)
    assert second.choices[0].message.content == "The result of get_weather is: foggy"


@pytest.mark.parametrize("model", ["demo-chat", "demo-completion"])
@ANSWERS
async def test_invalid_arguments_are_repaired(client: AsyncOpenAI, log: DemoLog, model: str, ask: Any) -> None:
    messages = question("CALL:types What does get_weather say about 'Quito'?")
    completion = await ask(client, model, messages, tool_choice="required")
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"city": "Quito"}'
    assert len(log.runs) == 2
    if ask is whole:
        assert completion.dify["tool_emulation"]["repairs"] == 1


@ANSWERS
async def test_arguments_that_stay_invalid_are_an_error(client: AsyncOpenAI, ask: Any) -> None:
    messages = question("STUBBORN CALL:types What does get_weather say about 'Quito'?")
    with pytest.raises(APIStatusError) as failed:
        await ask(client, "demo-chat", messages, tool_choice="required")
    assert failed.value.status_code == 502
    assert failed.value.code == "tool_call_invalid"


@pytest.mark.parametrize("model", APPS)
@ANSWERS
async def test_every_app_answers_in_a_schema(client: AsyncOpenAI, model: str, ask: Any) -> None:
    completion = await ask(client, model, question("A point at 3 named 'here'."), tools=None, response_format=POINT)
    assert completion.choices[0].message.content == '{"x": 3, "label": "here"}'
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("fault", ["fenced", "prose", "comma", "single-quotes", "types", "half", "none"])
@ANSWERS
async def test_schema_holds_whatever_the_model_writes(client: AsyncOpenAI, fault: str, ask: Any) -> None:
    messages = question(f"CALL:{fault} A point at 3 named 'here'.")
    completion = await ask(client, "demo-chat", messages, tools=None, response_format=POINT)
    assert json.loads(completion.choices[0].message.content) == {"x": 3, "label": "here"}


# Where tools are off


@pytest.fixture
async def strict_client(serve: Serve, demo: DemoServer) -> AsyncIterator[AsyncOpenAI]:
    """A client of a proxy with one app for each rule about tools."""
    rules: tuple[ToolsRule, ...] = ("emulate", "ignore", "reject")
    apps = {rule: app_settings(rule, "app-demo-chat", demo.url, tools=rule) for rule in rules}
    async with serve(apps=apps).client() as client:
        yield client


@ANSWERS
async def test_tools_can_be_ignored(strict_client: AsyncOpenAI, ask: Any) -> None:
    completion = await ask(strict_client, "ignore", question("Ask get_weather about 'Paris'."))
    assert completion.choices[0].message.content.endswith("You wrote: “Ask get_weather about 'Paris'.”")
    assert not completion.choices[0].message.tool_calls


async def test_ignored_parameters_are_named(strict_client: AsyncOpenAI) -> None:
    reply = await strict_client.chat.completions.with_raw_response.create(
        model="ignore", messages=question("Hello."), tools=[WEATHER], response_format=POINT
    )
    assert reply.headers["X-Unsupported-Parameters"] == "tools, response_format"
    emulated = await strict_client.chat.completions.with_raw_response.create(
        model="emulate", messages=question("Hello."), tools=[WEATHER]
    )
    assert "X-Unsupported-Parameters" not in emulated.headers


@pytest.mark.parametrize(
    ("model", "more", "param"),
    [
        ("ignore", {"tool_choice": "required"}, "tool_choice"),
        ("reject", {}, "tools"),
        ("reject", {"tools": None, "response_format": POINT}, "response_format"),
    ],
)
@ANSWERS
async def test_tools_that_an_app_rejects(
    strict_client: AsyncOpenAI, model: str, more: Any, param: str, ask: Any
) -> None:
    with pytest.raises(BadRequestError) as failed:
        await ask(strict_client, model, question("Ask get_weather about 'Paris'."), **more)
    assert (failed.value.code, failed.value.param) == ("unsupported_parameter", param)


async def test_workflow_without_a_text_input_ignores_tools(serve: Serve, demo: DemoServer) -> None:
    app = app_settings("w", "app-demo-workflow-form", demo.url, inputs={"language": "en"})
    async with serve(apps={"w": app}).client() as client:
        completion = await whole(client, "w", question("Ask get_weather."), extra_body={"inputs": {"question": "Hi"}})
        assert not completion.choices[0].message.tool_calls


# Conversations


async def test_stateless_turns_have_no_memory(client: AsyncOpenAI, log: DemoLog) -> None:
    headers = {"X-Context-Mode": "stateless"}
    messages = question("Hello, stateless.")
    first = await whole(client, "demo-chat", messages, extra_headers=headers)
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, *question("And again.")]
    second = await whole(client, "demo-chat", messages, extra_headers=headers)
    assert second.dify["conversation_id"] != first.dify["conversation_id"]
    assert "Hello, stateless." in log.runs[-1].question


async def test_unknown_context_mode_is_an_error(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as failed:
        await whole(client, "demo-chat", question("Hello."), extra_headers={"X-Context-Mode": "none"})
    assert failed.value.param == "X-Context-Mode"


async def test_calls_are_part_of_a_transcript(client: AsyncOpenAI, log: DemoLog) -> None:
    messages = [
        *question("Which weather?"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rom"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "warm"},
        {"role": "assistant", "content": "It is warm."},
        *question("Thanks."),
    ]
    await whole(client, "demo-chat", messages)
    sent = log.runs[-1].question
    assert 'Assistant: <tool_call>{"name": "get_weather", "arguments": {"city":"Rom"}}</tool_call>' in sent
    assert 'Tool: <tool_result name="get_weather">\nwarm\n</tool_result>' in sent


async def test_invalid_schema_is_an_error(client: AsyncOpenAI, log: DemoLog) -> None:
    broken: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "objekt"}}}
    with pytest.raises(BadRequestError) as failed:
        await whole(client, "demo-chat", question("Hello."), tools=[broken])
    assert (failed.value.code, failed.value.param) == ("invalid_function_parameters", "tools[0].function.parameters")
    assert not log.runs


async def test_moderated_answer_with_a_schema_is_a_refusal(client: AsyncOpenAI) -> None:
    completion = await whole(client, "demo-chat", question("MODERATE A point."), tools=None, response_format=POINT)
    message = completion.choices[0].message
    assert (message.content, message.refusal) == (None, "This answer was withheld.")


async def test_outputs_of_a_workflow_answer_a_schema(client: AsyncOpenAI, log: DemoLog) -> None:
    outputs: Any = {
        "type": "json_schema",
        "json_schema": {
            "name": "outputs",
            "schema": {
                "type": "object",
                "properties": {"answer": {"type": "string"}, "keywords": {}, "length": {"type": "integer"}},
                "required": ["answer", "keywords", "length"],
            },
        },
    }
    for _ in range(3):
        completion = await whole(
            client, "demo-workflow-outputs", question("SAY<<Fine>> Hi."), tools=None, response_format=outputs
        )
        assert json.loads(completion.choices[0].message.content)["answer"] == "Fine"
    assert ["<instructions>" in run.question for run in log.runs] == [True, False, False]


@pytest.mark.parametrize("version", ["", "@1.11", "@1.13"])
@ANSWERS
async def test_fixed_text_of_a_chatflow_is_never_a_call(client: AsyncOpenAI, version: str, ask: Any) -> None:
    """The app repeats the question with its instructions, which show a call of the tool."""
    model = f"demo-advanced-chat-framed{version}"
    (choice,) = (await ask(client, model, question("Hello."))).choices
    assert choice.finish_reason == "stop"
    assert not choice.message.tool_calls
    assert choice.message.content.startswith("You asked: Hello.")
    assert '<tool_call>{"name": "get_weather", "arguments": ' in choice.message.content
    assert choice.message.content.endswith("\n\nWhat else?")
    (choice,) = (await ask(client, model, question("What does get_weather say about 'Paris'?"))).choices
    assert [call.function.arguments for call in choice.message.tool_calls] == ['{"city": "Paris"}']
    assert choice.message.content.startswith("You asked: What does get_weather say")


@pytest.mark.parametrize("model", ["demo-chat-tools", "demo-completion-tools", "demo-workflow-tools"])
@ANSWERS
async def test_an_input_gets_the_instructions(client: AsyncOpenAI, log: DemoLog, model: str, ask: Any) -> None:
    (choice,) = (await ask(client, model, question("What does get_weather say about 'Paris'?"))).choices
    assert [call.function.arguments for call in choice.message.tool_calls] == ['{"city": "Paris"}']
    assert log.runs[-1].question == "What does get_weather say about 'Paris'?"
    assert "get_weather({" in log.runs[-1].inputs["tools"]
