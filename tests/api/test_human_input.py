"""Runs that pause for a person: forms as tool calls and as text, and their answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import ask, turns, user
from tests.api.chats import Chat
from tests.api.conftest import Serve
from tests.api.raw_client import until
from tests.api.response_requests import dify_conversation, respond

FLOWS = ["demo-advanced-chat@1.14", "demo-advanced-chat@1.16"]
FLOW, WORKFLOW = "demo-advanced-chat@1.16", "demo-workflow@1.16"
GRAPHS = [*FLOWS, "demo-workflow@1.14", WORKFLOW]
QUESTION = "SAY<<Draft.>> PAUSE"
FORM = "May I continue? [note]\n\n[Yes] · [No]"
AGAIN = f"This conversation waits for an answer to a form:\n\n{FORM}"
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def submissions(log: DemoLog) -> list[Any]:
    """Return the answers to forms that Dify got."""
    return [
        (request.body["action"], request.body["inputs"])
        for request in log.requests
        if request.method == "POST" and "/form/" in request.path
    ]


async def call_of(client: AsyncOpenAI, model: str, messages: list[Any], stream: bool = False, **more: Any) -> Any:
    """Return the only call of an answer, and add the answer to ``messages``."""
    choice = await complete(client, model, messages, stream, **{"tools": TOOLS, **more})
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "dify_human_input"
    return call


async def complete(client: AsyncOpenAI, model: str, messages: list[Any], stream: bool = False, **more: Any) -> Any:
    """Return the choice of an answer, and add its message to ``messages``."""
    if stream:
        async with client.chat.completions.stream(model=model, messages=messages, **more) as events:
            completion: Any = await events.get_final_completion()
    else:
        completion = await client.chat.completions.create(model=model, messages=messages, **more)
    choice = completion.choices[0]
    messages.append(choice.message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True))
    return choice


def result(call: Any, content: str) -> Any:
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def token_of(completion: Any) -> str:
    token: str = completion.model_extra["dify"]["human_input"]["token"]
    return token


async def fails(status: int, code: str, param: str, answer: Any) -> None:
    """Assert that ``answer``, which is awaited, fails so."""
    with pytest.raises(openai.APIStatusError) as error:
        await answer
    assert (error.value.status_code, error.value.code, error.value.param) == (status, code, param)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", FLOWS)
async def test_an_actions_title_in_the_chat_answers_the_form(
    client: AsyncOpenAI, log: DemoLog, model: str, stream: bool
) -> None:
    chat = Chat(client, model, stream)
    assert await chat.say(QUESTION) == f"Draft.\n\n{FORM}"
    assert await chat.say(" yes\n") == " Yes: "
    assert await chat.say("SAY<<Done.>>") == "Done."
    assert submissions(log) == [("yes", {"note": ""})]
    assert [request.body["query"] for request in turns(log)] == [QUESTION, "SAY<<Done.>>"]
    assert len({run.conversation_id for run in log.runs}) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", GRAPHS)
async def test_the_result_of_the_call_answers_the_form(
    client: AsyncOpenAI, log: DemoLog, model: str, stream: bool
) -> None:
    messages = user(QUESTION)
    call = await call_of(client, model, messages, stream)
    form = json.loads(call.function.arguments)
    assert form["actions"] == [{"id": "yes", "title": "Yes"}, {"id": "no", "title": "No"}]
    assert form["inputs"] == [{"name": "note", "type": "paragraph", "default": None}]
    messages.append(result(call, '{"action": "no", "inputs": {"note": "why"}}'))
    assert (await complete(client, model, messages, stream, tools=TOOLS)).message.content == " No: why"
    assert submissions(log) == [("no", {"note": "why"})]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", GRAPHS)
async def test_a_run_may_pause_again(client: AsyncOpenAI, log: DemoLog, model: str, stream: bool) -> None:
    messages = user("SAY<<Draft.>> PAUSE:2")
    first = await call_of(client, model, messages, stream)
    messages.append(result(first, '{"action": "no", "inputs": {"note": "one"}}'))
    second = await call_of(client, model, messages, stream)
    assert messages[-1]["content"] == " No: one"
    assert second.id != first.id
    messages.append(result(second, "yes"))
    assert (await complete(client, model, messages, stream, tools=TOOLS)).message.content == " Yes: "
    assert len(log.runs) == 1
    messages.append(result(second, "yes"))


async def test_a_chat_may_pause_again(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, FLOW)
    await chat.say("SAY<<Draft.>> PAUSE:2")
    assert await chat.say("No") == f" No: \n\n{FORM}"
    assert await chat.say("what?") == AGAIN
    assert await chat.say("YES") == " Yes: "
    assert submissions(log) == [("no", {"note": ""}), ("yes", {"note": ""})]
    assert len(turns(log)) == 1


@pytest.mark.parametrize("model", GRAPHS)
async def test_the_token_answers_the_form(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    paused = await client.chat.completions.create(model=model, messages=user(QUESTION))
    answer = {"token": token_of(paused), "action": "Yes", "inputs": {"note": "by token"}}
    assert await ask(client, model, "anything", extra_body={"human_input": answer}) == " Yes: by token"
    await fails(
        412, "human_input_form_submitted", "human_input", ask(client, model, "x", extra_body={"human_input": answer})
    )
    assert submissions(log) == [("yes", {"note": "by token"})]


async def test_a_chat_answers_with_inputs_and_without_a_token(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, FLOW)
    await chat.say(QUESTION)
    answer = {"action": "yes", "inputs": {"note": "in chat"}}
    assert await chat.say("Yes, in chat", extra_body={"human_input": answer}) == " Yes: in chat"
    assert await chat.say("SAY<<Done.>>") == "Done."
    assert len(turns(log)) == 2
    await fails(
        404, "human_input_form_not_found", "human_input", ask(client, FLOW, "x", extra_body={"human_input": answer})
    )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("perhaps", r"yes \(Yes\), no \(No\)"),
        ('{"action": "perhaps", "inputs": {"note": ""}}', r"yes \(Yes\), no \(No\)"),
        ('{"action": "yes", "inputs": {}}', "note"),
        ('{"inputs": {"note": ""}}', "action"),
        ('{"action": "yes", "inputs": [1]}', "inputs"),
        ('{"action": 1}', "action"),
    ],
)
@pytest.mark.parametrize("model", [FLOW, WORKFLOW])
async def test_a_wrong_answer_can_be_corrected(
    client: AsyncOpenAI, log: DemoLog, model: str, content: str, named: str
) -> None:
    messages = user(QUESTION)
    call = await call_of(client, model, messages)
    wrong = [*messages, result(call, content)]
    await fails(400, "invalid_form_data", "messages", complete(client, model, wrong, tools=TOOLS))
    with pytest.raises(openai.BadRequestError, match=named):
        await complete(client, model, wrong, tools=TOOLS)
    assert not submissions(log)
    messages.append(result(call, '{"action": "yes"}'))
    assert (await complete(client, model, messages, tools=TOOLS)).message.content == " Yes: "


async def test_a_chat_cannot_answer_an_expired_form(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, FLOW)
    await chat.say("SAY<<Draft.>> PAUSE:expired")
    await fails(412, "human_input_form_expired", "messages", chat.say("Yes"))
    await fails(412, "human_input_form_submitted", "messages", chat.answer())
    chat.messages.pop()
    assert await chat.say("SAY<<Next.>>") == "Next."
    assert len({run.conversation_id for run in log.runs}) == 1


@pytest.mark.parametrize("tools", [[], TOOLS])
async def test_a_form_without_a_token_names_its_channels(client: AsyncOpenAI, log: DemoLog, tools: Any) -> None:
    text = "This form cannot be answered here, only through its approval channels in Dify: email."
    chat = Chat(client, FLOW, more={"tools": tools} if tools else {})
    assert await chat.say("SAY<<Draft.>> PAUSE:email") == f"Draft.\n\n{FORM}\n\n{text}"
    assert (await chat.say("and?")).endswith(text)
    with pytest.raises(openai.BadRequestError, match="approval channels in Dify: email"):
        await chat.say("Yes")
    assert len(turns(log)) == 1


async def test_an_old_dify_has_no_answers(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-advanced-chat@1.13", more={"tools": TOOLS})
    closed = "This form cannot be answered here, only through Dify itself."
    assert await chat.say(QUESTION) == f"Draft.\n\n{FORM}\n\n{closed}"
    await chat.say("Yes")
    assert len(turns(log)) == 2


async def test_other_messages_may_start_runs(serve: Serve, log: DemoLog) -> None:
    async with serve(human_input_other="run").client() as client:
        chat = Chat(client, FLOW)
        await chat.say(QUESTION)
        assert await chat.say("SAY<<Second.>>") == "Second."
        assert len({run.conversation_id for run in log.runs}) == 1


async def test_settings_and_requests_choose_the_form(serve: Serve) -> None:
    async with serve(human_input="tool").client() as client:
        assert await call_of(client, FLOW, user(QUESTION), tools=openai.NOT_GIVEN)
        text = await ask(client, FLOW, QUESTION, extra_body={"human_input": "text"})
        assert text == f"Draft.\n\n{FORM}"
    async with serve(human_input="text").client() as client:
        assert await ask(client, FLOW, QUESTION, tools=TOOLS) == f"Draft.\n\n{FORM}"
        assert await call_of(client, FLOW, user(QUESTION), extra_body={"human_input": "auto"})
        for wrong, param in (("perhaps", "human_input"), ({"action": "yes", "token": "a/b"}, "human_input.token")):
            await fails(400, "invalid_value", param, ask(client, FLOW, QUESTION, extra_body={"human_input": wrong}))


async def test_requests_without_ids_of_calls_get_text(client: AsyncOpenAI) -> None:
    functions: Any = [{"name": "weather", "parameters": {"type": "object"}}]
    more = {"human_input": "tool"}
    assert await ask(client, FLOW, QUESTION, functions=functions, extra_body=more) == f"Draft.\n\n{FORM}"
    legacy = await client.completions.create(model=WORKFLOW, prompt=QUESTION, extra_body=more)
    assert (legacy.choices[0].text, legacy.choices[0].finish_reason) == (f"Draft.\n\n{FORM}", "stop")
    assert await ask(client, FLOW, QUESTION, tools=TOOLS, tool_choice="none") == f"Draft.\n\n{FORM}"


async def test_the_result_must_be_the_only_new_message(client: AsyncOpenAI, log: DemoLog) -> None:
    messages = user(QUESTION)
    call = await call_of(client, FLOW, messages)
    more = [*messages, result(call, "yes"), *user("And tell me why.")]
    with pytest.raises(openai.BadRequestError, match="only new message"):
        await complete(client, FLOW, more, tools=TOOLS)
    assert not submissions(log)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_paused_run_is_neither_checked_nor_corrected(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    """Its answer has a format, or a tool is required; the rest of the run may still fulfil that."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer_format: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    messages = user(QUESTION)
    more = {"response_format": answer_format, "extra_body": {"human_input": "tool"}}
    await call_of(client, FLOW, messages, stream, tools=openai.NOT_GIVEN, **more)
    assert messages[-1]["content"] == "Draft."
    await call_of(client, FLOW, user(QUESTION), stream, tool_choice="required")
    assert len(log.runs) == 2


async def test_callers_and_users_cannot_answer_each_others_forms(serve: Serve, log: DemoLog) -> None:
    proxy = serve(api_keys=("key-a", "key-b"))
    async with proxy.client(api_key="key-a") as ours, proxy.client(api_key="key-b") as theirs:
        for model in (FLOW, WORKFLOW):
            messages = user(QUESTION)
            call = await call_of(ours, model, messages, user="ann")
            messages.append(result(call, "yes"))
            token = {"human_input": {"token": json.loads(call.function.arguments)["token"], "action": "yes"}}
            for client, name, other in ((theirs, "ann", model), (ours, "bob", model), (ours, "ann", "demo-chat")):
                for sent, more, param in ((messages, {}, "messages"), (user("x"), token, "human_input")):
                    await fails(
                        404,
                        "human_input_form_not_found",
                        param,
                        complete(client, other, list(sent), tools=TOOLS, user=name, extra_body=more),
                    )
            assert not submissions(log)
            answered = await complete(ours, model, messages, tools=TOOLS, user="ann")
            assert answered.message.content == " Yes: "
            log.clear()


@pytest.mark.parametrize("model", [FLOW, WORKFLOW])
async def test_of_two_answers_at_once_one_is_submitted(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    messages = user(QUESTION)
    call = await call_of(client, model, messages)
    messages.append(result(call, "yes"))
    both = await asyncio.gather(
        *(complete(client, model, list(messages), tools=TOOLS) for _ in range(4)), return_exceptions=True
    )
    texts = [each.message.content for each in both if not isinstance(each, BaseException)]
    errors = [each for each in both if isinstance(each, openai.APIStatusError)]
    assert (texts, [error.status_code for error in errors]) == ([" Yes: "], [412] * 3)
    assert len(submissions(log)) == 1


async def test_of_two_chat_answers_at_once_one_is_submitted(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, FLOW)
    await chat.say(QUESTION)
    both = await asyncio.gather(*(chat.copy().say("Yes") for _ in range(4)), return_exceptions=True)
    assert sorted(each for each in both if isinstance(each, str)) == [" Yes: "]
    assert all(each.status_code == 412 for each in both if isinstance(each, openai.APIStatusError))
    assert (len(submissions(log)), len(turns(log))) == (1, 1)


@pytest.mark.parametrize("tools", [[], TOOLS])
async def test_a_restart_between_pause_and_answer(serve: Serve, log: DemoLog, tmp_path: Path, tools: Any) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    messages = user(QUESTION)
    more = {"tools": tools} if tools else {}
    async with serve(state_url=state).client() as before:
        first = await complete(before, FLOW, messages, **more)
    async with serve(state_url=state).client() as after:
        messages.append(result(first.message.tool_calls[0], "yes") if tools else user("Yes")[0])
        assert (await complete(after, FLOW, messages, **more)).message.content == " Yes: "
    assert len(turns(log)) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [FLOW, WORKFLOW])
async def test_a_response_pauses_and_continues(client: AsyncOpenAI, log: DemoLog, model: str, stream: bool) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]
    first = await response(client, QUESTION, model, stream, tools=tools)
    call = first.output[-1]
    assert (first.status, call.type, call.name) == ("completed", "function_call", "dify_human_input")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": '{"action": "no"}'}
    second = await response(client, [output], model, stream, tools=tools, previous_response_id=first.id)
    assert second.output_text == " No: "
    assert len(turns(log)) == 1
    if model == FLOW:
        third = await response(client, "SAY<<Done.>>", model, stream, previous_response_id=second.id)
        assert third.output_text == "Done."
        assert dify_conversation(first) == dify_conversation(third)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_pauses_and_continues(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    conversation = (await client.conversations.create()).id
    first = await response(client, QUESTION, FLOW, stream, conversation=conversation)
    assert first.output_text == f"Draft.\n\n{FORM}"
    for wrong in ("what?", "sorry?"):
        assert (await response(client, wrong, FLOW, stream, conversation=conversation)).output_text == AGAIN
    assert (await response(client, "No", FLOW, stream, conversation=conversation)).output_text == " No: "
    assert (await response(client, "SAY<<Done.>>", FLOW, stream, conversation=conversation)).output_text == "Done."
    assert [request.body["query"] for request in turns(log)] == [QUESTION, "SAY<<Done.>>"]


async def test_a_response_in_the_background_pauses_and_continues(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await in_background(client, QUESTION)
    assert first.output_text == f"Draft.\n\n{FORM}"
    second = await in_background(client, "Yes", previous_response_id=first.id)
    assert second.output_text == " Yes: "
    assert len(turns(log)) == 1


async def response(client: AsyncOpenAI, text: Any, model: str, stream: bool, **more: Any) -> Any:
    if not stream:
        return await respond(client, text, model, **more)
    async with client.responses.stream(model=model, input=text, **more) as events:
        return await events.get_final_response()


async def in_background(client: AsyncOpenAI, text: str, **more: Any) -> Any:
    queued = await respond(client, text, FLOW, background=True, **more)
    stream = await client.responses.retrieve(queued.id, stream=True)
    async for _ in stream:
        pass
    done = await client.responses.retrieve(queued.id)
    assert done.status == "completed"
    return done


async def test_a_named_conversation_continues(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, FLOW)
    await chat.say(QUESTION)
    named = {"conversation_id": chat.conversation_id}
    assert await ask(client, FLOW, "what?", extra_body=named) == AGAIN
    assert await ask(client, FLOW, "Yes", extra_body=named) == " Yes: "
    assert len(turns(log)) == 1


@pytest.mark.parametrize("model", [FLOW, WORKFLOW])
async def test_events_that_break_off_are_read_again(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    messages = user("SAY<<Draft.>> PAUSE:cut")
    call = await call_of(client, model, messages)
    messages.append(result(call, '{"action": "no", "inputs": {"note": "a few more words"}}'))
    text = (await complete(client, model, messages, tools=TOOLS)).message.content
    assert text.endswith(" No: a few more words")
    assert sum(request.path.endswith("/events") for request in log.requests) == 2


async def test_a_client_that_leaves_stops_the_rest_of_the_run(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, FLOW)
    await chat.say("SLOW:1x300 PAUSE")
    more = {"human_input": {"action": "yes", "inputs": {"note": "word " * 50}}}
    stream = await client.chat.completions.create(
        model=FLOW, messages=[*chat.messages, *user("Yes")], stream=True, extra_body=more
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await log.wait_for(lambda log: any(stop.effective for stop in log.stops))


async def test_the_rest_of_a_run_takes_a_slot(limited: Any, log: DemoLog) -> None:
    async with limited(1).client() as client:
        messages = user(QUESTION)
        call = await call_of(client, FLOW, messages)
        other = asyncio.create_task(ask(client, FLOW, "SLOW:1x600"))
        await until(lambda: len(log.runs) == 2)
        messages.append(result(call, "yes"))
        resumed = asyncio.create_task(complete(client, FLOW, messages, tools=TOOLS))
        await other
        assert (await resumed).message.content == " Yes: "
        first, second = log.runs
        assert first.finished_at is not None
        assert second.finished_at is not None
        assert first.finished_at > second.finished_at


async def test_a_chat_that_is_known_by_its_id(client: AsyncOpenAI, log: DemoLog) -> None:
    """Open WebUI sends the ids of its chats and users, and may rewrite earlier questions."""
    ids = {"X-OpenWebUI-Chat-Id": "chat-1", "X-OpenWebUI-User-Id": "ann"}
    chat = Chat(client, FLOW, stream=True, more={"extra_headers": ids})
    assert await chat.say(QUESTION) == f"Draft.\n\n{FORM}"
    chat.messages[0]["content"] = "rewritten"
    assert await chat.say("and?") == AGAIN
    assert await chat.say("Yes") == " Yes: "
    assert await chat.say("SAY<<Done.>>") == "Done."
    assert len(turns(log)) == 2


async def test_instructions_about_tools_follow_the_answer(client: AsyncOpenAI, log: DemoLog) -> None:
    """The model learns nothing from a turn that answers a form: a new tool is described in the next one."""
    messages = user(QUESTION)
    call = await call_of(client, FLOW, messages)
    other: Any = [{"type": "function", "function": {"name": "clock", "description": "Tells the time."}}]
    messages.append(result(call, "yes"))
    await complete(client, FLOW, messages, tools=other)
    await complete(client, FLOW, [*messages, *user("SAY<<Done.>>")], tools=other)
    assert ["Tells the time." in request.body["query"] for request in turns(log)] == [False, True]
    assert turns(log)[1].body["conversation_id"]
