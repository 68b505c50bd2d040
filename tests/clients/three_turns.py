"""Three turns of a conversation as programs have them, and what must have come of them upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from openai_dify_proxy_demo import DemoServer

Ask = Callable[[str], Awaitable[str]]
"""Asks the next question of a conversation and gives the reply, as the program has it."""

REPLIES = ("Of course:\n\n    Paris\n\nThat is it.  ", "Rome", "Rome,\nby far")
"""With indented text, and white space at an end, which programs may lose."""


def questions(name: str) -> list[str]:
    """A conversation's three questions, which make the demo say ``REPLIES``, and think before the first."""
    return [
        f"{name}: the capital of France? THINK SAY<<{REPLIES[0]}>>",
        f"{name}: and of Italy? SAY<<{REPLIES[1]}>>",
        f"{name}: which is larger? SAY<<{REPLIES[2]}>>",
    ]


async def have_three_turns(name: str, ask: Ask) -> None:
    """Asks the questions of the conversation called ``name``, and expects the replies."""
    replies = [await ask(question) for question in questions(name)]
    check_replies(name, replies)


def check_replies(name: str, replies: Sequence[str]) -> None:
    assert [reply.strip() for reply in replies] == [reply.strip() for reply in REPLIES], name


def check_upstream(demo: DemoServer, name: str) -> None:
    """Dify has one conversation called ``name``, and was told each question once."""
    runs = [run for run in demo.log.runs if run.question.startswith(f"{name}: ")]
    assert [run.question for run in runs] == questions(name), name
    assert len({(run.conversation_id, run.user) for run in runs}) == 1, name
    said = [text.strip() for run in runs[:2] for text in (run.question, run.answer)]
    remembered = [text.strip() for _, text in runs[2].history]
    assert remembered == said, (name, remembered)
