"""The response object of ``/v1/responses``, from ``queued`` or ``in_progress`` to its final status.

``begin_response`` returns an object that repeats the request. Every later state is that object with another status,
an output and a usage. The ids of output items derive from the response's id, so that a reference to an item identifies
the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from openai_dify_proxy.errors import ClientError, ContextTooLong, ProxyError, QuotaExceeded, RateLimited
from openai_dify_proxy.events import TurnIds, Usage
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_answers import extension
from openai_dify_proxy.translate.openai.sent_tools import split_name
from openai_dify_proxy.translate.turn_request import ToolCall
from openai_dify_proxy.translate.usage_estimates import estimate_usage
from openai_dify_proxy.wire.openai.responses import (
    ConversationName,
    IncompleteDetails,
    InputTokensDetails,
    ItemStatus,
    OutputItem,
    OutputPart,
    OutputRefusal,
    OutputText,
    OutputTokensDetails,
    Response,
    ResponseError,
    ResponsesRequest,
    ResponseUsage,
    Status,
    SummaryText,
    UrlCitationAnnotation,
)


def begin_response(request: ResponsesRequest, *, id: str, created_at: int, model: str) -> Response:  # noqa: A002 - its name on the wire
    """Return a response without output: the request's fields, and OpenAI's defaults for absent ones.

    ``id`` starts with ``resp_``, ``created_at`` is in whole seconds since 1970, ``model`` is the name in the request.
    """
    conversation = request.conversation_name
    return Response(
        id=id,
        created_at=created_at,
        status="queued" if request.background else "in_progress",
        background=bool(request.background),
        conversation=UNSET if conversation is None else ConversationName(conversation),
        frequency_penalty=_or_default(request.frequency_penalty, 0.0),
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        model=model,
        parallel_tool_calls=_or_default(request.parallel_tool_calls, True),
        presence_penalty=_or_default(request.presence_penalty, 0.0),
        previous_response_id=request.previous_response_id,
        prompt_cache_key=request.prompt_cache_key,
        prompt_cache_retention=request.prompt_cache_retention,
        reasoning={"effort": None, "summary": None, **(request.reasoning or {})},
        safety_identifier=request.safety_identifier,
        service_tier="default" if request.service_tier in (None, "auto") else request.service_tier,
        store=_or_default(request.store, True),
        temperature=_or_default(request.temperature, 1.0),
        text={"format": {"type": "text"}, "verbosity": "medium", **_without_nulls(request.text)},
        tool_choice=_or_default(request.tool_choice, "auto"),
        tools=[_echoed_tool(tool) for tool in request.tools or ()],
        top_logprobs=_or_default(request.top_logprobs, 0),
        top_p=_or_default(request.top_p, 1.0),
        truncation=_or_default(request.truncation, "disabled"),
        user=request.user,
        metadata=request.metadata or {},
    )


def response_object(
    initial: Response,
    answer: Answer,
    ids: TurnIds,
    *,
    status: Status,
    completed_at: int | None = None,
    output: Sequence[OutputItem] | None = None,
    prompt_characters: int = 0,
) -> Response:
    """Return the response for the current state of ``answer``; ``status_of`` returns the status of an answer.

    ``completed_at`` is in whole seconds and present only in a completed response. ``output`` holds the items of a
    stream; if it is None, ``output_of`` builds the items from the answer. ``prompt_characters`` is for the estimate of
    a usage that Dify does not report.
    """
    ended = status in ("completed", "incomplete")
    estimated = answer.usage is None and ended
    usage = estimate_usage(prompt_characters, answer) if estimated else answer.usage
    return replace(
        initial,
        status=status,
        completed_at=completed_at if status == "completed" else None,
        error=None if answer.error is None else response_error(answer.error),
        incomplete_details=_incomplete(answer) if status == "incomplete" else None,
        output=output_of(initial.id, answer, status) if output is None else list(output),
        usage=None if usage is None else _response_usage(usage),
        dify=extension(answer, ids, estimated=estimated),
    )


def failed_response(response: Response, error: ProxyError) -> Response:
    """Return ``response`` as failed, with the output so far."""
    return replace(
        response, status="failed", error=response_error(error), output=[_interrupted(item) for item in response.output]
    )


def cancelled_response(response: Response) -> Response:
    """Return ``response`` as cancelled, with the output so far."""
    return replace(response, status="cancelled", output=[_interrupted(item) for item in response.output])


def status_of(answer: Answer) -> Status:
    if answer.error is not None:
        return "failed"
    if answer.finish_reason is None:
        return "in_progress"
    return "completed" if answer.finish_reason in ("stop", "tool_calls") else "incomplete"


def output_of(response_id: str, answer: Answer, status: Status) -> list[OutputItem]:
    """Return the items of an answer that was not streamed: reasoning, the message, and the calls.

    A finished answer without calls has a message, even an empty one.
    """
    items, last = [], item_status(status)
    if answer.reasoning:
        items.append(reasoning_item(reasoning_id(response_id), answer.reasoning))
    calls, parts = answer.calls, _message_parts(answer)
    if parts or (not calls and status in ("completed", "incomplete")):
        parts = parts or [OutputText(annotations=url_citation_annotations(answer, ""))]
        items.append(message_item(message_id(response_id), parts, "completed" if calls else last))
    for index, call in enumerate(calls):
        calling = answer.calling and index == len(calls) - 1
        item_id = call_item_id(response_id, index, custom=call.custom)
        items.append(call_item(item_id, call, last if calling else "completed"))
    return items


def _message_parts(answer: Answer) -> list[OutputPart]:
    parts: list[OutputPart] = []
    if text := answer.text:
        parts.append(OutputText(annotations=url_citation_annotations(answer, text), text=text))
    if refusal := answer.refusal:
        parts.append(OutputRefusal(refusal=refusal))
    return parts


def message_item(item_id: str, parts: list[OutputPart], status: ItemStatus) -> OutputItem:
    return OutputItem(id=item_id, type="message", status=status, content=parts, role="assistant")


def call_item(item_id: str, call: ToolCall, status: ItemStatus) -> OutputItem:
    namespace, name = split_name(call.name)
    return OutputItem(
        id=item_id,
        type="custom_tool_call" if call.custom else "function_call",
        status=status,
        arguments=UNSET if call.custom else call.arguments,
        call_id=call.id,
        input=call.arguments if call.custom else UNSET,
        name=name,
        namespace=namespace or UNSET,
    )


def reasoning_item(item_id: str, text: str) -> OutputItem:
    return OutputItem(id=item_id, type="reasoning", summary=[SummaryText(text=text)])


def item_status(status: Status) -> ItemStatus:
    """Return the status of the message and of the calls in a response with ``status``."""
    if status in ("queued", "in_progress"):
        return "in_progress"
    return "completed" if status == "completed" else "incomplete"


def message_id(response_id: str) -> str:
    return "msg_" + response_id.removeprefix("resp_")


def reasoning_id(response_id: str) -> str:
    return "rs_" + response_id.removeprefix("resp_")


def call_item_id(response_id: str, index: int, *, custom: bool) -> str:
    """Return the id of the item of a response's call; ``index`` counts its calls from 0."""
    return f"{'ctc' if custom else 'fc'}_{response_id.removeprefix('resp_')}_{index}"


def response_of_item(item_id: str) -> str | None:
    """Return the id of the response with this message or call, or None if ``item_id`` is the id of neither."""
    kind, _, name = item_id.partition("_")
    if kind == "msg":
        return f"resp_{name}"
    if kind not in ("fc", "ctc"):
        return None
    name, _, index = name.rpartition("_")
    return f"resp_{name}" if name and index.isdecimal() else None


def url_citation_annotations(answer: Answer, text: str) -> list[UrlCitationAnnotation]:
    """Return the annotations of the message ``text``: citations as in ``chat_answers``, and links to the app's files.

    OpenAI's annotations for files name files in its own storage; that of a URL is the one that every client can open.
    """
    end = len(text)
    annotations = [
        UrlCitationAnnotation(start_index=0, end_index=end, url=url, title=title) for url, title in answer.cited_urls
    ]
    for file in answer.files:
        if (at := text.find(file.url)) >= 0:
            title = file.filename or file.type
            annotations.append(
                UrlCitationAnnotation(start_index=at, end_index=at + len(file.url), url=file.url, title=title)
            )
    return annotations


_ERROR_CODES: tuple[tuple[type[ProxyError], str], ...] = (
    (ContextTooLong, "context_length_exceeded"),
    (QuotaExceeded, "insufficient_quota"),
    (RateLimited, "rate_limit_exceeded"),
    (ClientError, "invalid_prompt"),
    (ProxyError, "server_error"),
)
"""The code of a failed response; the first match applies.

OpenAI's reference does not list the first two codes, but OpenAI sends them and Codex reacts to them.
"""


def response_error(error: ProxyError) -> ResponseError:
    return ResponseError(next(code for kind, code in _ERROR_CODES if isinstance(error, kind)), error.message)


def _incomplete(answer: Answer) -> IncompleteDetails:
    return IncompleteDetails("content_filter" if answer.finish_reason == "content_filter" else "max_output_tokens")


def _response_usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens, InputTokensDetails(), usage.completion_tokens, OutputTokensDetails(), usage.total_tokens
    )


def _interrupted(item: OutputItem) -> OutputItem:
    return replace(item, status="incomplete") if item.status == "in_progress" else item


def _echoed_tool(tool: Any) -> Any:
    """Return a function tool with all keys of OpenAI's answers; on Responses a function is strict by default."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    strict = tool.get("strict")
    return {
        "type": "function",
        "description": None,
        "name": tool.get("name"),
        "parameters": None,
        **tool,
        "strict": True if strict is None else strict,
    }


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _without_nulls(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value is not None}
