"""Streams of chatflows and workflows that break off in mid-answer while the run goes on."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import ask, ask_streaming, turns, user
from tests.api.chats import Chat
from tests.api.raw_client import until
from tests.api.response_requests import dify_conversation, respond

RESUMABLE = [f"{name}@{version}" for name in ("demo-advanced-chat", "demo-workflow") for version in ("1.14", "1.16")]
OLD = [f"{name}@{version}" for name in ("demo-advanced-chat", "demo-workflow") for version in ("1.11", "1.13")]
TEXT = "one two three four five six seven eight"
SAY = f"SAY<<{TEXT}>>"


def attached(log: DemoLog) -> int:
    return sum(request.path.endswith("/events") for request in log.requests)


async def fails(client: AsyncOpenAI, model: str, text: str) -> None:
    """Assert that the answer breaks off, whole and streamed."""
    with pytest.raises(openai.APIStatusError) as whole:
        await ask(client, model, text)
    assert (whole.value.status_code, whole.value.code) == (502, "upstream_incomplete")
    assert whole.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.APIError) as streamed:
        await ask_streaming(client, model, text)
    assert streamed.value.code == "upstream_incomplete"


@pytest.mark.parametrize("pace", ["", " SLOW:1x30"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("model", RESUMABLE)
async def test_the_answer_is_completed(client: AsyncOpenAI, log: DemoLog, model: str, times: int, pace: str) -> None:
    question = f"{SAY} DROP:{times}{pace}"
    assert await ask(client, model, question) == TEXT
    assert await ask_streaming(client, model, question) == TEXT
    assert (await respond(client, question, model)).output_text == TEXT
    assert (len(turns(log)), attached(log)) == (3, 3 * times)
    assert {run.user for run in log.runs} == {request.query["user"] for request in log.requests if request.query}


@pytest.mark.parametrize("model", RESUMABLE)
async def test_a_third_broken_stream_is_an_error(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    await fails(client, model, f"{SAY} DROP:3")
    assert attached(log) == 4


@pytest.mark.parametrize("model", RESUMABLE)
async def test_a_run_that_dify_has_lost_is_an_error(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    await fails(client, model, f"{SAY} CUT")
    assert attached(log) == 2


@pytest.mark.parametrize("model", [*OLD, "demo-chat@1.16"])
async def test_other_apps_and_versions_have_no_such_route(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    await fails(client, model, f"{SAY} CUT")
    assert not attached(log)


async def test_a_failure_of_the_run_is_reported(client: AsyncOpenAI, log: DemoLog) -> None:
    """The model fails after the stream broke off."""
    with pytest.raises(openai.RateLimitError):
        await ask(client, "demo-advanced-chat@1.16", f"{SAY} DROP MIDERROR:rate")
    assert attached(log) == 1


async def test_the_conversation_continues(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, f"{SAY} DROP", "demo-advanced-chat@1.16")
    second = await respond(client, "And now?", "demo-advanced-chat@1.16", previous_response_id=first.id)
    assert dify_conversation(first) == dify_conversation(second)
    assert turns(log)[-1].body["query"] == "And now?"


@pytest.mark.parametrize("pace", ["", " SLOW:1x30"])
@pytest.mark.parametrize("version", ["1.14", "1.16"])
async def test_a_run_that_pauses_after_the_break_shows_its_form(
    client: AsyncOpenAI, log: DemoLog, pace: str, version: str
) -> None:
    """It has paused before its events are read again, or pauses while they are."""
    chat = Chat(client, f"demo-advanced-chat@{version}")
    form = "May I continue? [note]\n\n[Yes] · [No]"
    assert await chat.say(f"{SAY} DROP PAUSE{pace}") == f"{TEXT}\n\n{form}"
    assert await chat.say("Yes") == " Yes: "
    assert len(turns(log)) == 1


@pytest.mark.parametrize("pace", ["", " SLOW:1x30"])
async def test_the_text_of_a_workflow_that_pauses_after_the_break_is_lost(
    client: AsyncOpenAI, log: DemoLog, pace: str
) -> None:
    await fails(client, "demo-workflow@1.16", f"{SAY} DROP PAUSE{pace}")


async def test_a_form_that_is_shown_again_is_completed(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-advanced-chat@1.16")
    await chat.say(f"{SAY} PAUSE:cut")
    assert "[Yes] · [No]" in await chat.say("what?")
    assert attached(log) == 2


async def test_a_stop_sequence_holds_in_the_rest(client: AsyncOpenAI, log: DemoLog) -> None:
    text = await ask(client, "demo-advanced-chat@1.16", f"{SAY} DROP", stop=["seven"])
    assert text == "one two three four five six "


async def test_a_client_that_leaves_stops_the_run(client: AsyncOpenAI, log: DemoLog) -> None:
    stream = await client.chat.completions.create(
        model="demo-advanced-chat@1.16", messages=user("SLOW:500x20 DROP"), stream=True
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await until(lambda: attached(log) == 1)
    await stream.close()
    await log.wait_for(lambda log: any(stop.effective for stop in log.stops))
