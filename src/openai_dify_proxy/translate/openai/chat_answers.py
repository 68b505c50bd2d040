"""Encode complete answers, and the parts that all endpoints share: usage, citations, the ``dify`` object."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, json

from openai_dify_proxy.events import TurnIds, Usage
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.wire.openai.chat import (
    Annotation,
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    CompletionUsage,
    DifyExtension,
    DifyFile,
    DifyPrice,
    TextChoice,
    TextCompletion,
    UrlCitation,
)


class AnswerHead(Struct, frozen=True):
    """The fields of every chunk and every complete answer.

    ``created`` is in whole seconds since 1970, ``model`` is the name in the request.
    """

    id: str
    created: int
    model: str


def encode_chat_completion(head: AnswerHead, answer: Answer, ids: TurnIds) -> bytes:
    """Return the body of a ``chat.completion`` for a finished answer."""
    text = answer.text
    message = AssistantMessage(
        content=text,
        annotations=url_annotations(answer, len(text)),
        reasoning_content=answer.reasoning or UNSET,
    )
    return json.encode(
        ChatCompletion(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=[ChatChoice(message=message, finish_reason=answer.finish_reason or "stop")],
            usage=usage_or_unset(answer.usage),
            dify=extension(answer, ids),
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
            usage=usage_or_unset(answer.usage),
            dify=extension(answer, ids),
        )
    )


def usage_of(usage: Usage | None) -> CompletionUsage:
    """Return OpenAI's usage; zeros if Dify reported none, since clients that request usage expect three integers."""
    usage = usage or Usage()
    return CompletionUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)


def usage_or_unset(usage: Usage | None) -> CompletionUsage | UnsetType:
    return UNSET if usage is None else usage_of(usage)


def url_annotations(answer: Answer, end: int) -> list[Annotation]:
    """Return the citations with a URL. Dify reports no offsets, so each covers the whole text of ``end`` characters."""
    return [Annotation(url_citation=UrlCitation(0, end, url, title)) for url, title in answer.cited_urls]


def extension(answer: Answer, ids: TurnIds) -> DifyExtension:
    """Return the ``dify`` object: ids, price, citations, files."""
    usage = answer.usage
    return DifyExtension(
        ids.conversation_id,
        ids.message_id,
        ids.task_id,
        ids.workflow_run_id,
        None if usage is None else DifyPrice(usage.price, usage.currency, usage.latency),
        [citation.raw for citation in answer.citations] or None,
        [DifyFile(file.url, file.type, file.filename, file.mime_type, file.size) for file in answer.files] or None,
        answer.replaced,
    )
