"""The messages of ``POST /v1/responses``: requests, the response object, its items and its events.

A request declares the fields that the proxy uses or that the response object repeats; the rest is skipped without
decoding. Objects and events have OpenAI's keys in the order in which OpenAI sends them, and all keys that the Open
Responses specification requires.
Source: the OpenAI API reference, the official SDKs, and https://www.openresponses.org.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field
from msgspec.json import Decoder

from openai_dify_proxy.wire.numbers import read_float
from openai_dify_proxy.wire.openai.chat import (
    MAX_ITEMS,
    ChatCompletionRequest,
    CompletionFields,
    Content,
    ContentPart,
    DifyExtension,
    ErrorObject,
    Messages,
    TokenLimit,
    TopLogprobs,
)
from openai_dify_proxy.wire.openai.tools import MAX_TOOLS

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputItem(Struct):
    """An item of ``input``, of any type.

    The form of ``content`` and ``output`` depends on the type, so they are decoded (as ITEM_TEXT) only where they hold
    text. ``arguments`` and ``input`` are decoded only in calls.
    """

    type: str | None = None
    role: str | None = None
    id: str | None = None
    content: Raw = Raw(b"null")
    output: Raw = Raw(b"null")
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: Raw = Raw(b"null")
    input: Raw = Raw(b"null")


InputItems = Annotated[list[InputItem], Meta(max_length=MAX_ITEMS)]


class ConversationName(Struct):
    id: str


class ResponsesRequest(CompletionFields, kw_only=True):
    """``messages`` belongs to chats, but some clients send it here; all fields after it are only repeated."""

    input: str | InputItems | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationName | None = None
    store: bool | None = None
    background: bool | None = None
    tools: Annotated[list[Any], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    messages: Messages | None = None
    max_output_tokens: Annotated[int, Meta(ge=16)] | None = None
    max_tool_calls: TokenLimit | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None
    top_logprobs: TopLogprobs | None = None
    truncation: str | None = None

    @property
    def conversation_name(self) -> str | None:
        """The id in ``conversation``, which is a string or an object."""
        return self.conversation.id if isinstance(self.conversation, ConversationName) else self.conversation


class ChatOrInputRequest(ChatCompletionRequest, kw_only=True):
    """A chat completion request. Some clients send the ``input`` of a Responses request instead of ``messages``."""

    input: str | InputItems | None = None
    instructions: str | None = None


class UrlCitationAnnotation(Struct, kw_only=True):
    """A citation; unlike in chats, its fields are not nested in the annotation."""

    type: Literal["url_citation"] = "url_citation"
    start_index: int
    end_index: int
    url: str
    title: str


class OutputText(Struct, kw_only=True, tag_field="type", tag="output_text"):
    annotations: list[UrlCitationAnnotation] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    text: str = ""


class OutputRefusal(Struct, kw_only=True, tag_field="type", tag="refusal"):
    refusal: str = ""


OutputPart = OutputText | OutputRefusal


class SummaryText(Struct, kw_only=True):
    type: Literal["summary_text"] = "summary_text"
    text: str = ""


class OutputItem(Struct, kw_only=True):
    """A message (``status``, ``content``, ``role``), reasoning (``summary``), or a call.

    A function's call has ``status``, ``arguments``, ``call_id`` and ``name``, a custom tool's call ``input`` in place
    of ``arguments``. ``namespace`` is that of the tool, if it has one.
    """

    id: str
    type: Literal["message", "reasoning", "function_call", "custom_tool_call"]
    status: ItemStatus | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    call_id: str | UnsetType = UNSET
    input: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    content: list[OutputPart] | UnsetType = UNSET
    role: Literal["assistant"] | UnsetType = UNSET
    summary: list[SummaryText] | UnsetType = UNSET


class ResponseError(Struct):
    code: str
    message: str


class IncompleteDetails(Struct):
    reason: Literal["max_output_tokens", "content_filter"]


class InputTokensDetails(Struct):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct):
    reasoning_tokens: int = 0


class ResponseUsage(Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Response(Struct, kw_only=True):
    """The response object; ``created_at`` and ``completed_at`` in whole seconds since 1970."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: bool
    completed_at: int | None = None
    conversation: ConversationName | UnsetType = UNSET
    error: ResponseError | None = None
    frequency_penalty: float
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[OutputItem] = field(default_factory=list)
    parallel_tool_calls: bool
    presence_penalty: float
    previous_response_id: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[Any]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, Any]
    dify: DifyExtension | UnsetType = UNSET


class InputTokensDify(Struct, kw_only=True):
    """The proxy's own ``dify`` object beside a count of tokens, which is always an estimate."""

    usage_estimated: Literal[True] = True


class InputTokens(Struct, kw_only=True):
    """The answer of ``POST /v1/responses/input_tokens``."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
    dify: InputTokensDify = field(default_factory=InputTokensDify)


class ResponseEvent(Struct, kw_only=True):
    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int = 0
    response: Response


class OutputItemEvent(Struct, kw_only=True):
    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int = 0
    output_index: int
    item: OutputItem


class ContentPartEvent(Struct, kw_only=True):
    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int = 0
    item_id: str
    output_index: int
    content_index: int = 0
    part: OutputPart


class OutputTextDeltaEvent(Struct, kw_only=True):
    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    sequence_number: int = 0
    item_id: str
    output_index: int
    content_index: int = 0
    delta: str
    logprobs: list[Any] = field(default_factory=list)


class OutputTextDoneEvent(Struct, kw_only=True):
    type: Literal["response.output_text.done"] = "response.output_text.done"
    sequence_number: int = 0
    item_id: str
    output_index: int
    content_index: int = 0
    text: str
    logprobs: list[Any] = field(default_factory=list)


class AnnotationAddedEvent(Struct, kw_only=True):
    type: Literal["response.output_text.annotation.added"] = "response.output_text.annotation.added"
    sequence_number: int = 0
    item_id: str
    output_index: int
    content_index: int = 0
    annotation_index: int
    annotation: UrlCitationAnnotation


class RefusalDeltaEvent(Struct, kw_only=True):
    type: Literal["response.refusal.delta"] = "response.refusal.delta"
    sequence_number: int = 0
    item_id: str
    output_index: int
    content_index: int
    delta: str


class RefusalDoneEvent(Struct, kw_only=True):
    type: Literal["response.refusal.done"] = "response.refusal.done"
    sequence_number: int = 0
    item_id: str
    output_index: int
    content_index: int
    refusal: str


class CallDeltaEvent(Struct, kw_only=True):
    """Further characters of a function's arguments, or of a custom tool's input."""

    type: Literal["response.function_call_arguments.delta", "response.custom_tool_call_input.delta"]
    sequence_number: int = 0
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(Struct, kw_only=True):
    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    sequence_number: int = 0
    item_id: str
    output_index: int
    arguments: str


class CustomInputDoneEvent(Struct, kw_only=True):
    type: Literal["response.custom_tool_call_input.done"] = "response.custom_tool_call_input.done"
    sequence_number: int = 0
    item_id: str
    output_index: int
    input: str


class SummaryPartEvent(Struct, kw_only=True):
    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    sequence_number: int = 0
    item_id: str
    output_index: int
    summary_index: int = 0
    part: SummaryText


class SummaryTextDeltaEvent(Struct, kw_only=True):
    type: Literal["response.reasoning_summary_text.delta"] = "response.reasoning_summary_text.delta"
    sequence_number: int = 0
    item_id: str
    output_index: int
    summary_index: int = 0
    delta: str


class SummaryTextDoneEvent(Struct, kw_only=True):
    type: Literal["response.reasoning_summary_text.done"] = "response.reasoning_summary_text.done"
    sequence_number: int = 0
    item_id: str
    output_index: int
    summary_index: int = 0
    text: str


class KeepaliveEvent(Struct, kw_only=True):
    type: Literal["keepalive"] = "keepalive"
    sequence_number: int = 0


class ErrorEvent(Struct, kw_only=True):
    """An error event. The error is nested, as OpenAI sends it; SDKs ignore the flat form of OpenAI's reference."""

    type: Literal["error"] = "error"
    sequence_number: int = 0
    error: ErrorObject


StreamEvent = (
    ResponseEvent
    | OutputItemEvent
    | ContentPartEvent
    | OutputTextDeltaEvent
    | OutputTextDoneEvent
    | AnnotationAddedEvent
    | RefusalDeltaEvent
    | RefusalDoneEvent
    | CallDeltaEvent
    | ArgumentsDoneEvent
    | CustomInputDoneEvent
    | SummaryPartEvent
    | SummaryTextDeltaEvent
    | SummaryTextDoneEvent
    | KeepaliveEvent
    | ErrorEvent
)

RESPONSES_REQUEST = Decoder(ResponsesRequest, float_hook=read_float)
CHAT_OR_INPUT_REQUEST = Decoder(ChatOrInputRequest, float_hook=read_float)
ITEM_TEXT: Decoder[str | list[ContentPart] | None] = Decoder(Content)
ITEM_ARGUMENTS: Decoder[str | dict[str, Any] | None] = Decoder(str | dict[str, Any] | None, float_hook=read_float)
RESPONSE = Decoder(Response, float_hook=read_float)
