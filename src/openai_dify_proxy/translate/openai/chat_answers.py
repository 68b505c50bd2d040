"""A whole answer as the parts that OpenAI's surfaces share: usage, citations, the ``dify`` object."""

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
    """What stands on every chunk and in every whole answer: ``created`` in whole seconds, ``model`` as asked for."""

    id: str
    created: int
    model: str


def encode_chat_completion(head: AnswerHead, answer: Answer, ids: TurnIds) -> bytes:
    """The body of a ``chat.completion`` for an answer that finished."""
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
    """The body of a legacy ``text_completion`` for an answer that finished."""
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
    """OpenAI's usage; zeros where Dify told nothing, since a client that asked for usage expects three integers."""
    usage = usage or Usage()
    return CompletionUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)


def usage_or_unset(usage: Usage | None) -> CompletionUsage | UnsetType:
    return UNSET if usage is None else usage_of(usage)


def url_annotations(answer: Answer, end: int) -> list[Annotation]:
    """The citations with a URL. Dify names no offsets, so each covers the whole text of ``end`` characters."""
    return [Annotation(url_citation=UrlCitation(0, end, url, title)) for url, title in answer.cited_urls]


def extension(answer: Answer, ids: TurnIds) -> DifyExtension:
    """The ``dify`` object: ids, price, citations, files."""
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
