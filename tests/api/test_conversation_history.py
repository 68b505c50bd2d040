"""A client that sends the whole history continues its Dify conversation, and Dify receives only the new message."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import CONVERSING, turns
from tests.api.chats import (
    Chat,
    at_once,
    messages_of,
    starts_conversation,
    the_request,
    the_run,
    transcript,
)
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, app_settings

VERSIONS = ("0.15", "1.11", "1.13", "1.14", "1.15", "1.16")
MODELS = [f"{name}@{version}" for version in VERSIONS for name in CONVERSING if name != "demo-agent"] + ["demo-agent"]

REWRITTEN = "Use this context: {}\n\nQuestion: {}"
"""A retrieval template, which clients apply to the last question."""


async def test_streaming_and_content_parts_do_not_affect_matching(client: AsyncOpenAI, log: DemoLog) -> None:
    """The next turn may drop streaming, and send content as parts instead of text."""
    chat = Chat(client, "demo-chat", stream=True)
    await chat.say("ways 1")
    chat.messages = [
        {**message, "content": [{"type": "text", "text": message["content"]}]} for message in chat.messages
    ]
    chat.stream = False
    await chat.say("ways 2")
    assert the_run(log, "ways 2").history[0] == ("user", "ways 1")


# Differences that clients introduce


@pytest.mark.parametrize("stream", [False, True])
async def test_line_ends_and_outer_white_space_are_ignored(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    async def converse(name: str, change: Any) -> None:
        chat = Chat(client, "demo-chat", stream)
        await chat.say(f"  {name} 1\n  second line\n\nSAY<<  one\n    two\n\nthree \n>>\n")
        for message in chat.messages:
            message["content"] = change(message["content"])
        await chat.say(f"{name} 2")
        assert the_request(log, f"{name} 2").body.get("conversation_id") == chat.conversation_id
        assert the_run(log, f"{name} 2").history[1] == ("assistant", "one\n    two\n\nthree")

    await at_once(
        converse(f"{stream} {name}", change)
        for name, change in {
            "stripped": str.strip,
            "CRLF": lambda text: text.replace("\n", "\r\n"),
            "CR": lambda text: text.replace("\n", "\r"),
            "wrapped": lambda text: f"\n\t {text} \n\n",
        }.items()
    )


async def test_a_changed_indentation_is_a_changed_history(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-chat")
    await chat.say("indented 1 SAY<<if x:\n    y()>>")
    chat.messages[-1]["content"] = "if x:\n  y()"
    await chat.say("indented 2")
    assert starts_conversation(log, "indented 2")
    assert "Assistant: if x:\n  y()\n" in the_request(log, "indented 2").body["query"]


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_not_part_of_a_reply(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    """The client may omit it, send it inside the reply, or send it in a separate field."""

    async def converse(name: str, model: str, change: Any) -> None:
        chat = Chat(client, model, stream, {"user": name})
        reply = await chat.say(f"{name} 1 THINK SAY<<the answer>>")
        assert reply == "the answer"
        change(chat.messages[-1])
        await chat.say(f"{name} 2")
        assert the_request(log, f"{name} 2").body["conversation_id"] == chat.conversation_id
        assert chat.conversation_id == the_run(log, f"{name} 1 THINK SAY<<the answer>>").conversation_id

    await at_once(
        converse(f"{name} {model} {stream}", model, change)
        for model in ("demo-chat", "demo-advanced-chat", "demo-agent")
        for name, change in {
            "left out": lambda message: None,
            "inside": lambda message: message.update(content=f"<think>\nhm\n</think>\n\n{message['content']}"),
            "beside": lambda message: message.update(reasoning_content="hm"),
        }.items()
    )


async def test_a_moderated_answer_is_continued_from_the_text_that_was_sent(client: AsyncOpenAI, log: DemoLog) -> None:
    """A stream cannot retract text, so its reply is longer than the one in Dify."""

    async def converse(model: str, stream: bool) -> None:
        name = f"{model} {stream} moderated"
        chat = Chat(client, model, stream)
        reply = await chat.say(f"{name} MODERATE SAY<<something bad>>")
        assert ("something bad" in reply) is stream
        await chat.say(f"{name} 2")
        assert the_request(log, f"{name} 2").body["conversation_id"] == chat.conversation_id
        assert "bad" not in the_run(log, f"{name} 2").history[1][1]

    await at_once(converse(model, stream) for model in ("demo-chat", "demo-advanced-chat") for stream in (False, True))


@pytest.mark.parametrize("as_sent", ["", None])
async def test_an_empty_answer_is_continued(client: AsyncOpenAI, log: DemoLog, as_sent: str | None) -> None:
    async def converse(model: str, stream: bool) -> None:
        name = f"{model} {stream} {as_sent}"
        chat = Chat(client, model, stream, {"user": name})
        assert await chat.say(f"{name} 1 EMPTY") == ""
        chat.messages[-1]["content"] = as_sent
        await chat.say(f"{name} 2 EMPTY")
        await chat.say(f"{name} 3")
        first, second, third = (the_run(log, f"{name} {end}") for end in ("1 EMPTY", "2 EMPTY", "3"))
        assert first.conversation_id == second.conversation_id == third.conversation_id
        assert [text for role, text in third.history if role == "user"] == [f"{name} 1 EMPTY", f"{name} 2 EMPTY"]

    await at_once(converse(model, stream) for model in ("demo-chat", "demo-advanced-chat") for stream in (False, True))


# Clients that name their chats


CHAT_HEADERS = (
    "X-OpenWebUI-Chat-Id",
    "X-Conversation-Id",
    "X-Chat-Id",
    "X-Session-Id",
    "session-id",
    "session_id",
    "conversation-id",
    "chat-id",
)


async def test_rewritten_questions_match_with_a_chat_id_and_a_user_id(client: AsyncOpenAI, log: DemoLog) -> None:
    """A client applies its retrieval template to the last question only, and later sends that question without it."""

    async def converse(header: str) -> None:
        chat = Chat(client, "demo-chat", more={"extra_headers": {header: f"chat {header}", "X-OpenWebUI-User-Id": "u"}})
        for number in (1, 2, 3):
            question, earlier = f"{number}. {header}", messages_of(chat)
            await chat.say(REWRITTEN.format(f"passage {number}", question))
            run = the_run(log, question)
            assert [text for role, text in run.history if role == "assistant"] == [
                text for role, text in earlier if role == "assistant"
            ]
            assert len(run.history) == len(earlier)
            chat.messages[-2]["content"] = question
        assert len({run.conversation_id for run in log.runs if header in run.question}) == 1

    await at_once(converse(header) for header in CHAT_HEADERS)


async def test_rewritten_questions_match_with_a_chat_id_and_a_user_in_the_body(
    client: AsyncOpenAI, log: DemoLog
) -> None:
    chat = Chat(client, "demo-chat", more={"extra_headers": {"X-Chat-Id": "by body"}, "user": "anna"})
    await chat.say(REWRITTEN.format("passage", "by body 1"))
    chat.messages[0]["content"] = "by body 1"
    await chat.say("by body 2")
    assert the_request(log, "by body 2").body["conversation_id"] == chat.conversation_id


async def test_rewritten_questions_do_not_match_with_a_chat_id_alone(client: AsyncOpenAI, log: DemoLog) -> None:
    """Without a user the chat id could be anyone's, so the history must match exactly."""
    chat = Chat(client, "demo-chat", more={"extra_headers": {"X-OpenWebUI-Chat-Id": "nobody's"}})
    await chat.say(REWRITTEN.format("passage", "nobody 1"))
    reply = chat.messages[1]["content"]
    chat.messages[0]["content"] = "nobody 1"
    await chat.say("nobody 2")
    assert the_request(log, "nobody 2").body["query"] == transcript(
        ("user", "nobody 1"), ("assistant", reply), question="nobody 2"
    )
    assert starts_conversation(log, "nobody 2")


async def test_chats_and_users_with_equal_messages_are_separate(client: AsyncOpenAI, log: DemoLog) -> None:
    async def converse(chat_id: str, user_id: str) -> str:
        headers = {"X-OpenWebUI-Chat-Id": chat_id, "X-OpenWebUI-User-Id": user_id}
        chat = Chat(client, "demo-chat", more={"extra_headers": headers})
        for number in (1, 2):
            await chat.say(f"same {number} SAY<<yes>>")
        return str(chat.conversation_id)

    pairs = [(chat_id, user_id) for chat_id in ("one", "two") for user_id in ("anna", "bert")]
    conversations: list[str] = []

    async def collect(chat_id: str, user_id: str) -> None:
        conversations.append(await converse(chat_id, user_id))

    await at_once(collect(*pair) for pair in pairs)
    assert len(set(conversations)) == 4
    assert len({run.conversation_id for run in log.runs}) == 4


async def test_a_changed_system_prompt_is_sent_in_the_same_conversation_of_a_chat_id(
    client: AsyncOpenAI, log: DemoLog
) -> None:
    """Open WebUI writes the time and the user's memories into the system prompt."""
    headers = {"X-OpenWebUI-Chat-Id": "changing", "X-OpenWebUI-User-Id": "u"}
    chat = Chat(client, "demo-chat", more={"extra_headers": headers})
    for number, system in enumerate(["It is noon.", "It is one.", "It is one."], 1):
        chat.messages = [
            {"role": "system", "content": system},
            *(message for message in chat.messages if message["role"] != "system"),
        ]
        await chat.say(f"changing {number}")
    queries = [request.body["query"] for request in turns(log)]
    assert queries == ["It is noon.\n\nchanging 1", "It is one.\n\nchanging 2", "changing 3"]
    assert len({run.conversation_id for run in log.runs}) == 1


# Models without a memory


async def test_a_model_without_memory_is_detected_and_gets_transcripts(serve: Serve, log: DemoLog) -> None:
    """The second turn shows that the model did not see the first. Later turns have a transcript."""
    async with serve(state_url="memory://").client() as client:

        async def converse(version: str) -> None:
            model = f"demo-advanced-chat-forgetful@{version}"
            chat, other = Chat(client, model), Chat(client, model)
            for number in (1, 2, 3):
                await chat.say(f"forgotten {number}")
            for number in (1, 2):
                await other.say(f"other {number}")
            queries = [request.body["query"] for request in turns(log) if request.dialect == version]
            assert queries == [
                "forgotten 1",
                "forgotten 2",
                transcript(*messages_of(chat)[:4], question="forgotten 3"),
                "other 1",
                transcript(*messages_of(other)[:2], question="other 2"),
            ]
            runs = [run for run in log.runs if run.dialect == version]
            assert [run.history for run in runs] == [()] * 5
            assert [run.conversation_id for run in runs] == [chat.conversation_id] * 3 + [other.conversation_id] * 2

        await at_once(converse(version) for version in VERSIONS)


async def test_models_with_memory_do_not_get_transcripts(serve: Serve, log: DemoLog) -> None:
    """This includes an answer without a model call, and a question with a system prompt around it."""
    async with serve(state_url="memory://").client() as client:

        async def converse(version: str, first: str) -> None:
            chat = Chat(client, f"demo-advanced-chat@{version}", messages=[{"role": "system", "content": "Be kind."}])
            await chat.say(f"{first} {version}")
            await chat.say(f"second after {first} {version}")
            await chat.say(f"third after {first} {version}")
            assert the_request(log, f"third after {first} {version}").body["query"] == f"third after {first} {version}"

        await at_once(
            converse(version, first) for version in VERSIONS for first in ("ANNOTATION", "PARTIAL", "a\r\nplain one")
        )


# Other values of the setting `conversations`


@pytest.mark.parametrize("model", CONVERSING)
async def test_conversations_transcript_always_sends_a_transcript(serve: Serve, log: DemoLog, model: str) -> None:
    async with serve(conversations="transcript").client() as client:
        chat = Chat(client, model)
        for number in (1, 2, 3):
            await chat.say(f"t {number} SAY<<no {number}>>")
    first, second, third = turns(log)
    assert first.body["query"] == "t 1 SAY<<no 1>>"
    assert second.body["query"] == transcript(*messages_of(chat)[:2], question="t 2 SAY<<no 2>>")
    assert third.body["query"] == transcript(*messages_of(chat)[:4], question="t 3 SAY<<no 3>>")
    assert not any("conversation_id" in request.body for request in turns(log))


async def test_conversations_last_message_sends_only_the_last_message(serve: Serve, log: DemoLog) -> None:
    async with serve(conversations="last-message").client() as client:
        chat = Chat(client, "demo-chat", messages=[{"role": "system", "content": "Be kind."}])
        for number in (1, 2):
            await chat.say(f"m {number}")
        await chat.say("m 3", extra_body={"conversation_id": chat.conversation_id})
    queries = [(request.body["query"], request.body.get("conversation_id")) for request in turns(log)]
    assert queries[:2] == [("Be kind.\n\nm 1", None), ("Be kind.\n\nm 2", None)]
    assert queries[2] == ("m 3", the_run(log, "m 2").conversation_id)


async def test_each_app_may_have_its_own_setting(serve: Serve, demo: DemoServer, log: DemoLog) -> None:
    apps = {
        name: app_settings(name, "app-demo-chat", demo.url, conversations=rule)
        for name, rule in {"follows": None, "carries": "transcript", "remembers": "auto"}.items()
    }
    async with serve(apps=apps, conversations="last-message").client() as client:
        chats = [Chat(client, model) for model in apps]
        for number in (1, 2):
            await at_once(chat.say(f"{chat.model} {number}") for chat in chats)
    follows, carries, remembers = (the_request(log, f"{chat.model} 2").body for chat in chats)
    assert (follows["query"], follows.get("conversation_id")) == ("follows 2", None)
    assert carries["query"] == transcript(*messages_of(chats[1])[:2], question="carries 2")
    assert "conversation_id" not in carries
    assert (remembers["query"], remembers["conversation_id"]) == ("remembers 2", chats[2].conversation_id)


async def test_a_transcript_uses_the_template(serve: Serve, log: DemoLog) -> None:
    template = "Earlier:\n{history}\n-- and now --\n{question}\n(answer that)"
    async with serve(transcript_template=template).client() as client:
        history = [{"role": "user", "content": "a\n-- and now --"}, {"role": "assistant", "content": "b"}]
        chat = Chat(client, "demo-chat", messages=history)
        await chat.say("c")
    (request,) = turns(log)
    assert request.body["query"] == (
        "Earlier:\nUser: a\n\\-- and now --\n\nAssistant: b\n-- and now --\nc\n(answer that)"
    )


async def test_the_history_input_gets_the_transcript(client: AsyncOpenAI, log: DemoLog) -> None:
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat = Chat(client, "demo-chat-history", messages=history)
    await chat.say("into the input")
    await chat.say("after the input")
    first, second = turns(log)
    assert (first.body["query"], first.body["inputs"]) == ("into the input", {"history": "User: a\n\nAssistant: b"})
    assert second.body["query"] == "after the input"
    assert (second.body["conversation_id"], second.body["inputs"]) == (chat.conversation_id, {"history": ""})


@pytest.mark.parametrize("model", ["demo-completion", "demo-workflow"])
async def test_apps_without_conversations_always_get_a_transcript(
    client: AsyncOpenAI, log: DemoLog, model: str
) -> None:
    chat = Chat(client, model)
    for number in (1, 2, 3):
        await chat.say(f"SAY<<no>> {number}")
    assert [request.body["inputs"]["query"] for request in turns(log)] == [
        "SAY<<no>> 1",
        transcript(*messages_of(chat)[:2], question="SAY<<no>> 2"),
        transcript(*messages_of(chat)[:4], question="SAY<<no>> 3"),
    ]


async def test_a_chat_that_started_elsewhere_is_sent_as_a_transcript(proxy: ProxyServer, log: DemoLog) -> None:
    """The next turn continues in Dify."""
    async with proxy.client() as client:

        async def converse(model: str) -> None:
            history = [{"role": "user", "content": f"elsewhere {model}"}, {"role": "assistant", "content": "yes"}]
            chat = Chat(client, model, messages=history)
            await chat.say(f"here {model} 1")
            await chat.say(f"here {model} 2")
            question = transcript(("user", f"elsewhere {model}"), ("assistant", "yes"), question=f"here {model} 1")
            first, second = the_run(log, f"here {model} 1"), the_run(log, f"here {model} 2")
            assert first.question == question
            assert (second.question, second.conversation_id) == (f"here {model} 2", first.conversation_id)
            assert second.history[0] == ("user", question)

        await at_once(converse(model) for model in MODELS)
