"""The messages of ``POST /v1/chat/completions`` and ``POST /v1/completions``.

Requests declare only the fields that the proxy uses. Clients always send others, which are skipped without decoding.
Source: the OpenAI API reference, and requests of the official SDKs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field
from msgspec.json import Decoder

from openai_dify_proxy.wire.numbers import read_float
from openai_dify_proxy.wire.openai.tools import MAX_TOOLS, ToolDefinitions

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

MAX_ITEMS = 10_000
"""Messages or items of a request, and content parts of a message. Far more than a model can read."""

ModelName = Annotated[str, Meta(max_length=256)]
StopSequence = Annotated[str, Meta(max_length=256)]


class ContentPart(Struct):
    """A part of a message. Only parts of type ``text``, and ``refusal`` from an assistant, hold text.

    The other fields hold files, in as many forms as there are types of parts, so they are decoded (as FILE_SOURCE) only
    there: a large file is then not copied. Chats nest the fields of a file in ``file``.
    """

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: Raw = Raw(b"null")
    input_audio: Raw = Raw(b"null")
    audio_url: Raw = Raw(b"null")
    video_url: Raw = Raw(b"null")
    file: Raw = Raw(b"null")
    file_data: Raw = Raw(b"null")
    file_url: Raw = Raw(b"null")
    file_id: Raw = Raw(b"null")
    filename: Raw = Raw(b"null")


class FileSource(Struct):
    """The object in a part of type ``image_url``, ``input_audio``, ``audio_url``, ``video_url`` or ``file``."""

    url: Raw = Raw(b"null")
    data: Raw = Raw(b"null")
    file_data: Raw = Raw(b"null")
    file_url: Raw = Raw(b"null")
    file_id: Raw = Raw(b"null")
    filename: Raw = Raw(b"null")


class RequestFile(Struct):
    """A file in Dify's own form, in the body field ``files``."""

    type: Literal["image", "document", "audio", "video", "custom"]
    transfer_method: Literal["remote_url", "local_file"]
    url: str | None = None
    upload_file_id: str | None = None


MAX_FILES = 100
"""Files of one request, with those of its earlier messages."""


Content = str | Annotated[list[ContentPart], Meta(max_length=MAX_ITEMS)] | None


class SentFunction(Struct):
    """The function of a call. Some clients send ``arguments`` as an object instead of a string."""

    name: str
    arguments: str | dict[str, Any] = ""


class SentCustom(Struct):
    name: str
    input: str = ""


class SentCall(Struct):
    """A tool call that a client sends back. ``type`` may be absent."""

    id: str | None = None
    function: SentFunction | None = None
    custom: SentCustom | None = None


SentCalls = Annotated[list[SentCall], Meta(max_length=MAX_TOOLS)]


class ChatMessage(Struct):
    """A message of any role. ``function_call`` is the legacy form of ``tool_calls``."""

    role: Role
    content: Content = None
    tool_calls: SentCalls | None = None
    tool_call_id: str | None = None
    function_call: SentFunction | None = None


Messages = Annotated[list[ChatMessage], Meta(max_length=MAX_ITEMS)]


class StreamOptions(Struct):
    include_usage: bool | None = None


Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenLimit = Annotated[int, Meta(ge=1)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
LogitBias = dict[str, Annotated[float, Meta(ge=-100, le=100)]]


class HumanInputAnswer(Struct):
    """The answer to the form of a paused run. Without a ``token`` it is for the run that the conversation waits for."""

    action: str
    inputs: dict[str, Any] | None = None
    token: str | None = None


class CompletionFields(Struct, kw_only=True):
    """The fields of every generating request; the proxy's own are ``inputs``, ``files``, ``conversation_id``,
    ``session_id``, ``suggested_questions`` and ``human_input``.

    Clients send these through the ``extra_body`` of their SDK. The fields after them have no effect: they are
    validated, and named in a header of the answer.
    """

    model: ModelName | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: StopSequence | Annotated[list[StopSequence], Meta(max_length=4)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    files: Annotated[list[RequestFile], Meta(max_length=MAX_FILES)] | None = None
    conversation_id: str | None = None
    session_id: Any = None
    suggested_questions: bool | None = None
    human_input: Literal["auto", "tool", "text"] | HumanInputAnswer | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatCompletionRequest(CompletionFields, kw_only=True):
    """``functions`` and ``function_call`` are the legacy forms of ``tools`` and ``tool_choice``.

    The fields after ``response_format`` have no effect.
    """

    messages: Messages | UnsetType = UNSET
    tools: ToolDefinitions | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: ToolDefinitions | None = None
    function_call: Any = None
    response_format: Any = None
    audio: Any = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = None
    max_completion_tokens: TokenLimit | None = None
    max_tokens: TokenLimit | None = None
    modalities: list[str] | None = None
    prediction: Any = None
    reasoning_effort: str | None = None
    seed: int | None = None
    top_logprobs: TopLogprobs | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class CompletionRequest(CompletionFields, kw_only=True):
    """The fields after ``best_of`` have no effect."""

    prompt: Any = None
    best_of: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    logit_bias: LogitBias | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    seed: int | None = None
    suffix: str | None = None


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(Struct, frozen=True):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class UrlCitation(Struct):
    start_index: int
    end_index: int
    url: str
    title: str


class Annotation(Struct, kw_only=True):
    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class DifyPrice(Struct, omit_defaults=True):
    total_price: str | None = None
    currency: str | None = None
    latency: float | None = None


class RepairUsage(Struct, omit_defaults=True):
    """The tokens and the price of the runs that corrected an answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    total_price: str | None = None
    currency: str | None = None


class DifyToolEmulation(Struct, omit_defaults=True):
    repairs: int
    usage: RepairUsage | None = None


class DifyFile(Struct, omit_defaults=True):
    url: str
    type: str
    filename: str | None = None
    mime_type: str | None = None
    size: int | None = None


class DifyFormAction(Struct):
    id: str
    title: str


class DifyHumanInput(Struct, omit_defaults=True):
    """A form that a paused run waits for; ``expires_at`` is in seconds since 1970.

    An input has ``name``, ``type``, ``default``, and the other fields of its type in Dify.
    """

    token: str | None
    title: str
    content: str
    inputs: list[dict[str, Any]]
    actions: list[DifyFormAction]
    expires_at: int | None = None
    approval_channels: list[str] | None = None


class DifyExtension(Struct, omit_defaults=True):
    """The ``dify`` object, an addition to OpenAI's fields: facts of a turn for which OpenAI has no field."""

    conversation_id: str | None = None
    message_id: str | None = None
    task_id: str | None = None
    workflow_run_id: str | None = None
    usage: DifyPrice | None = None
    retriever_resources: list[dict[str, Any]] | None = None
    files: list[DifyFile] | None = None
    replaced: bool = False
    usage_estimated: bool = False
    tool_emulation: DifyToolEmulation | None = None
    suggested_questions: list[str] | None = None
    human_input: DifyHumanInput | None = None


class FunctionCall(Struct):
    """The name and the arguments of a called function, or their increments in a stream."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class CustomCall(Struct):
    """The name and the input of a called custom tool, or their increments in a stream."""

    name: str | UnsetType = UNSET
    input: str | UnsetType = UNSET


class MessageToolCall(Struct, kw_only=True):
    """A tool call. In a stream it has an ``index``, and only its first chunk has ``id`` and ``type``."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: Literal["function", "custom"] | UnsetType = UNSET
    function: FunctionCall | UnsetType = UNSET
    custom: CustomCall | UnsetType = UNSET


class AssistantMessage(Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[MessageToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    refusal: str | None = None
    annotations: list[Annotation] = field(default_factory=list)
    reasoning_content: str | UnsetType = UNSET


class ChatChoice(Struct, kw_only=True):
    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: str


class ChatCompletion(Struct, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    dify: DifyExtension | UnsetType = UNSET
    service_tier: None = None


class ChunkDelta(Struct, omit_defaults=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    tool_calls: list[MessageToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    refusal: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    index: int = 0
    delta: ChunkDelta
    logprobs: None = None
    finish_reason: str | None = None


class ChatCompletionChunk(Struct, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    dify: DifyExtension | UnsetType = UNSET
    service_tier: None = None


class TextChoice(Struct, kw_only=True):
    text: str
    index: int = 0
    logprobs: None = None
    finish_reason: str | None = None


class TextCompletion(Struct, kw_only=True):
    """A complete legacy completion, or a chunk of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    dify: DifyExtension | UnsetType = UNSET


class ErrorObject(Struct):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(Struct):
    """The body of every error, and the last frame of a failed stream; all four keys are always present."""

    error: ErrorObject


COMPLETION_REQUEST = Decoder(CompletionRequest, float_hook=read_float)
FILE_SOURCE = Decoder(FileSource)
