"""Match the results of tools with the calls that they answer, and make them the question of a turn.

Chats are as strict as OpenAI's: the results follow the calls at once, in any order. In the ``input`` of a response they
may be anywhere. Results without a call id, which legacy ``function`` messages have, are not checked. Neither are
results for calls in a Dify conversation that the request names: these calls are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import quotable
from openai_dify_proxy.translate.role_lines import escape_role_lines
from openai_dify_proxy.translate.tool_texts import render_result, result_attributes
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall

_MAX_NAMED = 20
"""Calls that an error message names."""


def question_of(asked: Iterable[HistoryMessage], calls: Sequence[ToolCall] = ()) -> str:
    """Return the text of the new messages, which may be results of ``calls``."""
    messages = [message for message in asked if message.text or message.role == "tool"]
    if len(messages) == 1 and messages[0].role != "tool":
        return messages[0].text  # the usual case
    attributes = result_attributes(calls)
    return "\n\n".join(
        escape_role_lines(render_result(message, attributes)) if message.role == "tool" else message.text
        for message in messages
    )


def last_calls(messages: Sequence[HistoryMessage]) -> tuple[ToolCall, ...]:
    """Return the calls of the last message that has any."""
    return next((message.calls for message in reversed(messages) if message.calls), ())


def check_calls(
    messages: Iterable[HistoryMessage], earlier: Iterable[ToolCall] = (), *, param: str, named: bool = False
) -> None:
    """Raise InvalidRequest for a call without a result, or a result without its call.

    ``messages`` are those of ``param``, without system messages; ``earlier`` are the stored calls before them. A
    ``named`` conversation in Dify may have further calls.
    """
    if param == "input":
        _check_items(messages, earlier, named=named)
    else:
        _check_chat(messages, param, named=named)


def _check_chat(messages: Iterable[HistoryMessage], param: str, *, named: bool) -> None:
    unanswered: dict[str, None] = {}
    known: set[str] = set()
    for message in messages:
        if message.role != "tool":
            _require_results(unanswered, param)
            if message.role == "assistant":
                known = {call.id for call in message.calls}
                unanswered = dict.fromkeys(call.id for call in message.calls if call.id)
        elif message.call_id:
            unanswered.pop(message.call_id, None)
            if message.call_id not in known and not named:
                raise InvalidRequest(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                    f"'tool_calls'. There is no call with the id '{quotable(message.call_id)}'.",
                    param=param,
                )
    _require_results(unanswered, param)


def _require_results(unanswered: dict[str, None], param: str) -> None:
    if unanswered:
        names = [quotable(name) for name in list(unanswered)[:_MAX_NAMED]]
        raise InvalidRequest(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(names)}",
            param=param,
        )


def _check_items(messages: Iterable[HistoryMessage], earlier: Iterable[ToolCall], *, named: bool) -> None:
    calls = {call.id: call for call in earlier}
    answered = set()
    for message in messages:
        calls |= {call.id: call for call in message.calls}
        if message.call_id:
            answered.add(message.call_id)
            if message.call_id not in calls and not named:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id {quotable(message.call_id)}.",
                    param="input",
                )
    call = next((call for name, call in calls.items() if name and name not in answered), None)
    if call is not None:
        kind = "custom tool call" if call.custom else "function call"
        raise InvalidRequest(f"No tool output found for {kind} {quotable(call.id)}.", param="input")
