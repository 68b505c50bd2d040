"""Estimate the token counts of turns for which Dify reported none, such as one that a stop sequence ended.

An estimate is for the client only, marked as ``usage_estimated`` in the ``dify`` object. It never counts against a
budget: only the usage of the events does.
"""

from __future__ import annotations

from openai_dify_proxy.events import Usage
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnMessages, TurnRequest

CHARACTERS_PER_TOKEN = 4
"""OpenAI's rule of thumb for English text."""


def estimate_tokens(characters: int) -> int:
    """Return the number of tokens that a text of this length takes, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def estimate_usage(prompt_characters: int, answer: Answer) -> Usage:
    """Return the estimated usage of a turn with this prompt and this answer, including its reasoning."""
    prompt = estimate_tokens(prompt_characters)
    completion = estimate_tokens(len(answer.reasoning) + characters_of(answer.reply))
    return Usage(prompt, completion, prompt + completion)


def prompt_characters(request: TurnRequest | TurnMessages) -> int:
    """Return the number of characters in a request's messages, without a history that is stored here or in Dify."""
    return len(request.system) + len(request.question) + sum(map(characters_of, request.history))


def characters_of(message: HistoryMessage) -> int:
    """Return the number of characters of a message and its calls."""
    return len(message.text) + sum(len(call.name) + len(call.arguments) for call in message.calls)
