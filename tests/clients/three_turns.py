"""Hold a conversation of three turns as a client does, and check the runs that it causes upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from openai_dify_proxy_demo import DemoServer

Ask = Callable[[str], Awaitable[str]]
"""Asks the next question of a conversation and returns the reply as the client reads it."""

REPLIES = ("Of course:\n\n    Paris\n\nThat is it.  ", "Rome", "Rome,\nby far")
"""They contain indented text and trailing white space, which clients may lose."""


def questions(name: str) -> list[str]:
    """Return three questions, which the demo answers with ``REPLIES``; the first one also makes it think."""
    return [
        f"{name}: the capital of France? THINK SAY<<{REPLIES[0]}>>",
        f"{name}: and of Italy? SAY<<{REPLIES[1]}>>",
        f"{name}: which is larger? SAY<<{REPLIES[2]}>>",
    ]


async def have_three_turns(name: str, ask: Ask) -> None:
    """Ask the questions of the conversation ``name`` and check the replies."""
    replies = [await ask(question) for question in questions(name)]
    check_replies(name, replies)


def check_replies(name: str, replies: Sequence[str]) -> None:
    assert [reply.strip() for reply in replies] == [reply.strip() for reply in REPLIES], name


def check_upstream(demo: DemoServer, name: str) -> None:
    """Check that Dify has one conversation for ``name`` and received each question once."""
    runs = [run for run in demo.log.runs if run.question.startswith(f"{name}: ")]
    assert [run.question for run in runs] == questions(name), name
    assert len({(run.conversation_id, run.user) for run in runs}) == 1, name
    sent = [text.strip() for run in runs[:2] for text in (run.question, run.answer)]
    remembered = [text.strip() for _, text in runs[2].history]
    assert remembered == sent, (name, remembered)
