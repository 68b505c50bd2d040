"""Encode complete answers, and the parts that all endpoints share: usage, citations, the ``dify`` object."""

from __future__ import annotations

from msgspec import UNSET, Struct, json
from msgspec.structs import replace

from openai_dify_proxy.events import FileProduced, Repairs, TurnIds, Usage
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.human_input import form_object
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall
from openai_dify_proxy.translate.usage_estimates import estimate_usage
from openai_dify_proxy.wire.openai.chat import (
    Annotation,
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    CompletionUsage,
    CustomCall,
    DifyExtension,
    DifyFile,
    DifyPrice,
    DifyToolEmulation,
    FunctionCall,
    MessageToolCall,
    RepairUsage,
    TextChoice,
    TextCompletion,
    UrlCitation,
)


class AnswerHead(Struct, frozen=True):
    """The fields of every chunk and every complete answer.

    ``created`` is in whole seconds since 1970, ``model`` is the name in the request. ``prompt_characters`` is for the
    estimate of a usage that Dify does not report. ``legacy_functions`` is for requests with ``functions``: the first
    call is the ``function_call``, the only one that this form can hold.
    """

    id: str
    created: int
    model: str
    prompt_characters: int = 0
    legacy_functions: bool = False


def encode_chat_completion(head: AnswerHead, answer: Answer, ids: TurnIds) -> bytes:
    """Return the body of a ``chat.completion`` for a finished answer."""
    text, calls, refusal, legacy = answer.text, answer.calls, answer.refusal, head.legacy_functions
    reason = answer.finish_reason or "stop"
    message = AssistantMessage(
        content=None if (calls or refusal) and not text else text,
        tool_calls=[message_tool_call(call) for call in calls] if calls and not legacy else UNSET,
        function_call=FunctionCall(calls[0].name, calls[0].arguments) if calls and legacy else UNSET,
        refusal=refusal,
        annotations=url_annotations(answer, len(text)) if answer.citations else [],
        reasoning_content=answer.reasoning or UNSET,
    )
    return json.encode(
        ChatCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=[
                ChatChoice(
                    message=message,
                    finish_reason=legacy_reason(reason) if legacy else reason,
                )
            ],
            usage=usage_of(answer, head.prompt_characters),
            dify=extension(answer, ids, estimated=answer.usage is None),
        )
    )


def encode_text_completion(head: AnswerHead, answer: Answer, ids: TurnIds) -> bytes:
    """Return the body of a legacy ``text_completion`` for a finished answer."""
    return json.encode(
        TextCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=[TextChoice(text=answer.text, finish_reason=answer.finish_reason or "stop")],
            usage=usage_of(answer, head.prompt_characters),
            dify=extension(answer, ids, estimated=answer.usage is None),
        )
    )


def message_tool_call(call: ToolCall) -> MessageToolCall:
    """Return a call as an element of ``tool_calls``."""
    if call.custom:
        return MessageToolCall(id=call.id, type="custom", custom=CustomCall(call.name, call.arguments))
    return MessageToolCall(id=call.id, type="function", function=FunctionCall(call.name, call.arguments))


def legacy_reply(reply: HistoryMessage) -> HistoryMessage:
    """Return a reply as a client with ``functions`` repeats it: with a single call, which has no id."""
    return replace(reply, calls=tuple(replace(call, id="") for call in reply.calls[:1]))


def legacy_reason(reason: str) -> str:
    """Return the finish reason for a request with ``functions``, which has an older name for ``tool_calls``."""
    return "function_call" if reason == "tool_calls" else reason


def usage_of(answer: Answer, prompt_characters: int) -> CompletionUsage:
    """Return OpenAI's usage; an estimate if Dify reported none, since clients read its three integers."""
    usage = answer.usage or estimate_usage(prompt_characters, answer)
    return CompletionUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)


def url_annotations(answer: Answer, end: int) -> list[Annotation]:
    """Return the citations with a URL. Dify reports no offsets, so each covers the whole text of ``end`` characters."""
    return [Annotation(url_citation=UrlCitation(0, end, url, title)) for url, title in answer.cited_urls]


def extension(answer: Answer, ids: TurnIds, *, estimated: bool = False) -> DifyExtension:
    """Return the ``dify`` object: ids, price, citations, files, repairs, suggested questions, and a form to answer.

    ``estimated`` marks an estimated usage.
    """
    usage = answer.usage
    return DifyExtension(
        ids.conversation_id,
        ids.message_id,
        ids.task_id,
        ids.workflow_run_id,
        None if usage is None else DifyPrice(usage.price, usage.currency, usage.latency),
        [citation.raw for citation in answer.citations] if answer.citations else None,
        [_file_object(file) for file in answer.files] if answer.files else None,
        answer.replaced,
        estimated,
        None if answer.repairs is None else _tool_emulation(answer.repairs),
        answer.suggested_questions or None,
        None if answer.human_input is None else form_object(answer.human_input),
    )


def _file_object(file: FileProduced) -> DifyFile:
    return DifyFile(file.url, file.type, file.filename, file.mime_type, file.size)


def _tool_emulation(repairs: Repairs) -> DifyToolEmulation:
    return DifyToolEmulation(repairs.count, None if repairs.usage is None else _repair_usage(repairs.usage))


def _repair_usage(usage: Usage) -> RepairUsage:
    return RepairUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.price, usage.currency)
