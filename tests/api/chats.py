"""A chat as clients without a memory of ours have it: all of it is sent again with each question."""

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
"""A message as the official client takes it."""


@dataclass
class Chat:
    """``say`` asks and keeps the reply; ``answer`` asks for one to the messages as they are. ``more`` goes with all."""

    client: AsyncOpenAI
    model: str
    stream: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    conversation_id: str | None = None
    """Dify's, as the last answer told it."""

    async def say(self, text: str, **more: Any) -> str:
        self.messages.append({"role": "user", "content": text})
        return await self.answer(**more)

    async def answer(self, **more: Any) -> str:
        text = await (self._streamed(more) if self.stream else self._whole(more))
        self.messages.append({"role": "assistant", "content": text})
        return text

    def copy(self, *, messages: int | None = None) -> Chat:
        """The same chat, of which only the first so many messages were said."""
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
    """Runs chats side by side: what they wait for, between two turns of a conversation, they wait for together."""
    await asyncio.gather(*chats)


def asked(log: DemoLog, question: str, *, key: str = "") -> list[LoggedRequest]:
    """The requests for a turn that ask this, whatever stands before it; ``key`` is the app's if several are asked."""
    return [request for request in turns(log) if _query(request).endswith(question) and request.key.endswith(key)]


def the_run(log: DemoLog, question: str, model: str = "") -> LoggedRun:
    """The one run that answered ``question``, whatever stood before it."""
    name, _, dialect = model.partition("@")
    found = [
        run
        for run in log.runs
        if run.question.endswith(question) and name in ("", run.app) and dialect in ("", run.dialect)
    ]
    assert len(found) == 1, [(run.app, run.question) for run in log.runs]
    return found[0]


def the_request(log: DemoLog, question: str) -> LoggedRequest:
    (request,) = asked(log, question)
    return request


def said(chat: Chat) -> list[tuple[str, str]]:
    """The messages of a chat as a model is sent them."""
    return [(message["role"], message["content"]) for message in chat.messages]


def transcript(*messages: tuple[str, str], question: str) -> str:
    """A question that carries earlier messages, as docs/apps.md words it."""
    names = {"user": "User", "assistant": "Assistant"}
    lines = "\n\n".join(f"{names[role]}: {text}" for role, text in messages)
    return f"The conversation so far, oldest message first:\n\n{lines}\n\nThe new message to answer:\n\n{question}"


def goes_on(log: DemoLog, question: str, conversation_id: str | None, *remembered: tuple[str, str]) -> None:
    """The turn went on in that conversation, was sent nothing but the question, and its model had this before it."""
    request, run = the_request(log, question), the_run(log, question)
    assert (request.body["query"], request.body["conversation_id"]) == (question, conversation_id)
    assert list(run.history) == list(remembered)


def began_anew(log: DemoLog, question: str) -> bool:
    """Whether the one turn that asked this was sent without a conversation's id."""
    return "conversation_id" not in the_request(log, question).body


def seconds_of_turns(demo: DemoServer, conversation_id: str) -> list[int]:
    """The whole seconds in which the turns of a conversation began, as Dify stores them."""
    return [message.created_at for message in demo.app.state.demo.conversations[conversation_id].messages]


def _query(request: LoggedRequest) -> str:
    return str(request.body.get("query") or request.body["inputs"].get("query", ""))
