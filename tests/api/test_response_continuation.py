"""Continued responses and conversations whose history is incomplete in Dify."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.response_requests import dify_conversation, respond, the_request, the_run, transcript

WITH_ASSISTANT_MESSAGE: list[Any] = [
    {"role": "user", "content": "The word is heron."},
    {"role": "assistant", "content": "Noted."},
    {"role": "user", "content": "What is it?"},
]


async def lose(demo: DemoServer, http: httpx2.AsyncClient, conversation_id: str | None) -> None:
    run = next(run for run in demo.log.runs if run.conversation_id == conversation_id)
    reply = await http.request(
        "DELETE",
        f"{demo.url}/conversations/{conversation_id}",
        headers={"Authorization": "Bearer app-demo-chat"},
        json={"user": run.user},
    )
    assert reply.status_code in (200, 204)


async def test_an_assistant_message_in_the_input_reaches_dify(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, "begins")
    second = await respond(client, WITH_ASSISTANT_MESSAGE, previous_response_id=first.id)
    first_turn = (("User", "begins"), ("Assistant", first.output_text))
    history = (*first_turn, ("User", "The word is heron."), ("Assistant", "Noted."))
    assert the_request(log, "What is it?").body["query"] == transcript(*history, question="What is it?")
    assert dify_conversation(second) != dify_conversation(first)
    third = await respond(client, "RECALL", previous_response_id=second.id)
    assert dify_conversation(third) == dify_conversation(second)
    await respond(client, "forked", previous_response_id=second.id)
    assert "User: The word is heron." in the_request(log, "forked").body["query"]


async def test_an_assistant_message_in_the_input_of_a_conversation_reaches_dify(
    client: AsyncOpenAI, log: DemoLog
) -> None:
    conversation = await client.conversations.create()
    first = await respond(client, "begins here", conversation=conversation.id)
    await respond(client, WITH_ASSISTANT_MESSAGE, conversation=conversation.id)
    first_turn = (("User", "begins here"), ("Assistant", first.output_text))
    history = (*first_turn, ("User", "The word is heron."), ("Assistant", "Noted."))
    assert the_request(log, "What is it?").body["query"] == transcript(*history, question="What is it?")


async def test_a_model_without_memory_gets_the_whole_history(client: AsyncOpenAI, log: DemoLog) -> None:
    """The second turn shows that it has no memory."""
    model = "demo-advanced-chat-forgetful"
    response = await respond(client, "one thing", model)
    for question in ("another thing", "a third thing"):
        response = await respond(client, question, model, previous_response_id=response.id)
    assert the_request(log, "another thing").body["query"] == "another thing"
    query = the_request(log, "a third thing").body["query"]
    assert "User: one thing" in query
    assert "User: another thing" in query


@pytest.mark.parametrize("stored", [True, False])
async def test_a_conversation_lost_in_dify_is_restored_or_a_404(
    client: AsyncOpenAI, http: httpx2.AsyncClient, demo: DemoServer, log: DemoLog, stored: bool
) -> None:
    """It is restored from its stored responses. Without them its history is unknown, and the error is a 404."""
    items: Any = [{"type": "message", "role": "user", "content": "The word is otter."}]
    conversation = await client.conversations.create(items=items)
    first = await respond(client, "begins there", conversation=conversation.id, store=stored)
    await lose(demo, http, dify_conversation(first))
    if not stored:
        for _ in range(2):
            with pytest.raises(openai.NotFoundError) as refused:
                await respond(client, "and then", conversation=conversation.id, store=False)
            assert refused.value.code == "conversation_not_found"
        return
    await respond(client, "and then", conversation=conversation.id)
    question = the_run(log, "and then").question
    beginning = "The conversation so far, oldest message first:\n\nUser: The word is otter.\n\nUser: begins there\n\n"
    assert question.startswith(f"{beginning}Assistant: Hello from the demo chat app")
    after = await respond(client, "RECALL", conversation=conversation.id)
    assert json.loads(after.output_text.splitlines()[0]) == ["user", question]
