"""A chat client that sends the whole history with each question, and assertions about its turns in Dify."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.log import LoggedRequest, LoggedRun
from tests.api.chat_requests import turns

Message = Any
"""A message of the official client."""


@dataclass
class Chat:
    """One chat. ``more`` holds keyword arguments for each request; ``messages`` collects questions and replies."""

    client: AsyncOpenAI
    model: str
    stream: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    conversation_id: str | None = None
    """The id that the last answer named."""

    async def say(self, text: str, **more: Any) -> str:
        """Send a question and return the reply."""
        self.messages.append({"role": "user", "content": text})
        return await self.answer(**more)

    async def answer(self, **more: Any) -> str:
        """Send the messages as they are and return the reply."""
        text = await (self._streamed(more) if self.stream else self._whole(more))
        self.messages.append({"role": "assistant", "content": text})
        return text

    def copy(self, *, messages: int | None = None) -> Chat:
        """Return a copy with the first ``messages`` messages, or with all."""
        return Chat(
            self.client,
            self.model,
            self.stream,
            self.more,
            [dict(message) for message in self.messages[:messages]],
            self.conversation_id,
        )

    async def _whole(self, more: dict[str, Any]) -> str:
        completion = await self.client.chat.completions.create(
            model=self.model, messages=list(self.messages), **{**self.more, **more}
        )
        self.conversation_id = (completion.model_extra or {})["dify"].get("conversation_id")
        return completion.choices[0].message.content or ""

    async def _streamed(self, more: dict[str, Any]) -> str:
        stream: Any = await self.client.chat.completions.create(
            model=self.model, messages=list(self.messages), stream=True, **{**self.more, **more}
        )
        parts = []
        async for chunk in stream:
            parts += [choice.delta.content or "" for choice in chunk.choices]
            if "dify" in (chunk.model_extra or {}):
                self.conversation_id = (chunk.model_extra or {})["dify"].get("conversation_id")
        return "".join(parts)


async def at_once(chats: Iterable[Awaitable[object]]) -> None:
    """Run chats concurrently, so that their pauses between two turns of a conversation overlap."""
    await asyncio.gather(*chats)


def requests_for(log: DemoLog, question: str, *, key: str = "") -> list[LoggedRequest]:
    """Return the requests for turns whose query ends with ``question``, and whose app key ends with ``key``."""
    return [request for request in turns(log) if _query(request).endswith(question) and request.key.endswith(key)]


def the_run(log: DemoLog, question: str, model: str = "") -> LoggedRun:
    """Return the only run whose question ends with ``question``."""
    name, _, dialect = model.partition("@")
    found = [
        run
        for run in log.runs
        if run.question.endswith(question) and name in ("", run.app) and dialect in ("", run.dialect)
    ]
    assert len(found) == 1, [(run.app, run.question) for run in log.runs]
    return found[0]


def the_request(log: DemoLog, question: str) -> LoggedRequest:
    (request,) = requests_for(log, question)
    return request


def messages_of(chat: Chat) -> list[tuple[str, str]]:
    """Return role and content of the messages."""
    return [(message["role"], message["content"]) for message in chat.messages]


def transcript(*messages: tuple[str, str], question: str) -> str:
    """Return the query that holds earlier messages and the question, as documented in docs/apps.md."""
    names = {"user": "User", "assistant": "Assistant"}
    lines = "\n\n".join(f"{names[role]}: {text}" for role, text in messages)
    return f"The conversation so far, oldest message first:\n\n{lines}\n\nThe new message to answer:\n\n{question}"


def assert_continues(log: DemoLog, question: str, conversation_id: str | None, *history: tuple[str, str]) -> None:
    """Assert that the turn sent only the question, in that conversation, and that its model saw ``history``."""
    request, run = the_request(log, question), the_run(log, question)
    assert (request.body["query"], request.body["conversation_id"]) == (question, conversation_id)
    assert list(run.history) == list(history)


def starts_conversation(log: DemoLog, question: str) -> bool:
    """Return whether the only request with this question has no conversation id."""
    return "conversation_id" not in the_request(log, question).body


def seconds_of_turns(demo: DemoServer, conversation_id: str) -> list[int]:
    """Return the creation times of a conversation's messages, which Dify stores in whole seconds."""
    return [message.created_at for message in demo.app.state.demo.conversations[conversation_id].messages]


def _query(request: LoggedRequest) -> str:
    return str(request.body.get("query") or request.body["inputs"].get("query", ""))
