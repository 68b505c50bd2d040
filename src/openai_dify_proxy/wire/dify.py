"""The messages of Dify's Service API, versions 0.15 to 1.16.

Structs declare only the fields that the proxy reads; msgspec skips the rest without decoding. Nearly every field is
missing or null somewhere, so nearly all are optional. Parts that only some events need stay ``Raw`` until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field, structs
from msgspec.json import Decoder, Encoder

from openai_dify_proxy.wire.numbers import read_float

Mode = Literal["chat", "agent-chat", "advanced-chat", "completion", "workflow", "agent"]
"""The app modes; ``advanced-chat`` is the chatflow, ``agent`` exists since 1.16."""

NO_RAW = Raw(b"")

_encoder = Encoder()


class TextEvent(Struct, gc=False):
    """The fields that are decoded from every event; text events, the most frequent ones, need no others."""

    event: str = ""
    answer: str | None = None
    from_variable_selector: list[str] | None = None


class DifyEvent(TextEvent, gc=False):
    """One event of a stream. A field that is absent from an event has its default."""

    task_id: str | None = None
    message_id: str | None = None
    conversation_id: str | None = None
    workflow_run_id: str | None = None
    data: Raw = NO_RAW
    metadata: Raw = NO_RAW
    files: Raw = NO_RAW
    # agent_thought
    id: str | None = None
    thought: str | None = None
    tool: str | None = None
    observation: Any = None
    # message_file
    url: str | None = None
    type: str | None = None
    belongs_to: str | None = None
    # message_replace
    reason: str | None = None
    # error
    code: str | int | None = None
    status: int | str | None = None
    message: str | None = None


class EventName(Struct):
    """The only field that is decoded from an event with an unexpected form."""

    event: str = ""


class UsageData(Struct, gc=False):
    """Token counts of ``message_end.metadata.usage`` and of an LLM node's ``outputs.usage``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    total_price: str | float | None = None
    currency: str | None = None
    latency: float | None = None


class FileData(Struct):
    """A file of ``message_end.files`` and ``workflow_finished.data.files``.

    ``transfer_method`` is ``tool_file`` for files that an app produced; 1.16 also lists the user's own files there.
    """

    url: str | None = None
    remote_url: str | None = None
    type: str | None = None
    transfer_method: str | None = None
    filename: str | None = None
    mime_type: str | None = None
    size: int | None = None


class MessageEndMetadata(Struct):
    usage: UsageData | None = None
    retriever_resources: list[dict[str, Any]] | None = None


class TextChunkData(Struct, gc=False):
    text: str | None = None
    from_variable_selector: list[str] | None = None


class ReasoningChunkData(Struct, gc=False):
    reasoning: str | None = None


class Prompt(Struct):
    text: str | None = None


class ProcessData(Struct):
    """The prompts of an LLM node, which show whether the model received the conversation."""

    prompts: list[Prompt] | None = None


class NodeData(Struct):
    """The fields of ``node_*`` events that the proxy may read; a node's inputs are private to the app.

    ``id`` is that of one execution of the node.
    """

    id: str | None = None
    node_id: str | None = None
    node_type: str | None = None
    title: str | None = None
    status: str | None = None
    outputs: Raw = NO_RAW
    files: Raw = NO_RAW
    process_data: Raw = NO_RAW
    process_data_truncated: bool | None = None


class LlmOutputs(Struct):
    usage: UsageData | None = None
    finish_reason: str | None = None


class RetrievedPassage(Struct):
    title: str | None = None
    content: str | None = None
    metadata: dict[str, Any] | None = None


class RetrievalOutputs(Struct):
    result: list[RetrievedPassage] | None = None


class AgentLogData(Struct):
    id: str | None = None
    label: str | None = None
    status: str | None = None


class WorkflowFinishedData(Struct):
    status: str | None = None
    outputs: dict[str, Any] | None = None
    error: str | None = None
    total_tokens: int | None = None
    files: list[FileData] | None = None


class ActionData(Struct):
    id: str | None = None
    title: str | None = None


class PauseReason(Struct):
    """A form that a paused run waits for. Its inputs are objects whose fields depend on their type.

    ``form_token`` is null if only the ``approval_channels`` can answer the form.
    """

    form_content: str | None = None
    node_title: str | None = None
    inputs: list[dict[str, Any]] | None = None
    actions: list[ActionData] | None = None
    form_token: str | None = None
    approval_channels: list[str] | None = None
    resolved_default_values: dict[str, Any] | None = None
    expiration_time: int | None = None


class WorkflowPausedData(Struct):
    """``outputs`` has a chatflow's text before the pause as ``answer`` in snapshots; it is empty in live events."""

    reasons: list[PauseReason] | None = None
    outputs: dict[str, Any] | None = None


class PendingForm(Struct):
    """``GET /form/human_input/{form_token}``."""

    inputs: list[dict[str, Any]] | None = None
    resolved_default_values: dict[str, Any] | None = None
    user_actions: list[ActionData] | None = None


class FormSubmission(Struct):
    """The body of ``POST /form/human_input/{form_token}``."""

    inputs: dict[str, Any]
    action: str
    user: str


class WorkflowRun(Struct):
    """``GET /workflows/run/{workflow_run_id}``."""

    status: str | None = None


class ErrorBody(Struct):
    """``{"code", "message", "status"}``, the body of a Dify error."""

    code: str | int | None = None
    message: str | None = None
    status: int | str | None = None


class AppInfo(Struct, frozen=True):
    """``GET /info``; ``mode`` is absent before about 1.4."""

    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    mode: str | None = None
    author_name: str | None = None


class FormField(Struct):
    """One item of ``user_input_form``, without its type, which is the key of the item."""

    variable: str = ""
    label: Any = None
    required: Any = None
    default: Any = None
    max_length: Any = None
    options: Any = None
    allowed_file_types: Any = None
    allowed_file_extensions: Any = None
    allowed_file_upload_methods: Any = None


class Switch(Struct):
    enabled: bool | None = None


class ImageUpload(Switch):
    """The switch "Vision" of chat apps, agents and completion apps."""

    number_limits: Any = None
    transfer_methods: Any = None


class FileUpload(Switch):
    """The feature "File Upload". Before 1.0 only ``image`` is present."""

    allowed_file_types: Any = None
    allowed_file_extensions: Any = None
    allowed_file_upload_methods: Any = None
    number_limits: Any = None
    image: ImageUpload | None = None


class SystemParameters(Struct):
    """The largest files of each kind, in MB."""

    image_file_size_limit: Any = None
    video_file_size_limit: Any = None
    audio_file_size_limit: Any = None
    file_size_limit: Any = None


class AppParameters(Struct, frozen=True):
    """``GET /parameters``: the app's inputs, its greeting and its enabled features."""

    user_input_form: list[dict[str, FormField]] = field(default_factory=list)
    opening_statement: str | None = None
    suggested_questions: list[str] | None = None
    suggested_questions_after_answer: Switch | None = None
    speech_to_text: Switch | None = None
    text_to_speech: Switch | None = None
    retriever_resource: Switch | None = None
    annotation_reply: Switch | None = None
    sensitive_word_avoidance: Switch | None = None
    file_upload: FileUpload | None = None
    system_parameters: SystemParameters | None = None


class UploadReceipt(Struct):
    """The answer to ``POST /files/upload``."""

    id: str


class FileReference(Struct, frozen=True, omit_defaults=True):
    """A file in ``files``, or in an input of type ``file`` or ``file-list``."""

    type: str
    transfer_method: Literal["remote_url", "local_file"]
    upload_file_id: str | UnsetType = UNSET
    url: str | UnsetType = UNSET


class Suggestions(Struct):
    """``GET /messages/{id}/suggested``: questions that may follow an answer."""

    data: list[str] = field(default_factory=list)


class AudioText(Struct):
    """``POST /audio-to-text``."""

    text: str | None = None


class SpeechCall(Struct, omit_defaults=True):
    """The request of ``POST /text-to-audio``. Without a ``voice``, Dify uses the one that is set in the app."""

    text: str
    user: str
    voice: str | None = None


class MessageRow(Struct):
    """A turn in ``GET /messages``; ``status`` is ``normal`` or ``error``."""

    id: str = ""
    query: str = ""
    answer: str = ""
    status: str | None = None
    created_at: int = 0

    @property
    def failed(self) -> bool:
        return self.status == "error"


class MessagePage(Struct):
    """The latest messages of a conversation before ``first_id``, oldest first."""

    data: list[MessageRow] = field(default_factory=list)
    has_more: bool = False


class ConversationRow(Struct):
    id: str


class ConversationPage(Struct):
    """The latest conversations of a user."""

    data: list[ConversationRow] = field(default_factory=list)
    has_more: bool = False


class MessageFeedback(Struct, omit_defaults=True):
    """The body of ``POST /messages/{id}/feedbacks``; a null ``rating`` revokes the earlier one."""

    user: str
    rating: Literal["like", "dislike"] | None
    content: str | None = None


class GenerateRequest(Struct):
    """The body of ``/chat-messages``, ``/completion-messages`` and ``/workflows/run``.

    ``query`` is a text in parts, for ``encode_generate_request``.
    """

    inputs: dict[str, Any]
    user: str
    response_mode: Literal["streaming"] = "streaming"
    query: Iterable[str] | UnsetType = UNSET
    conversation_id: str | UnsetType = UNSET
    auto_generate_name: bool | UnsetType = UNSET
    files: list[FileReference] | UnsetType = UNSET


def encode_generate_request(request: GenerateRequest) -> bytearray:
    """Return the JSON of a request. Only the parts of its query are in memory twice, one after the other."""
    body = bytearray()
    if request.query is UNSET:
        _encoder.encode_into(request, body)
        return body
    _encoder.encode_into(structs.replace(request, query=UNSET), body)
    body[-1:] = b',"query":"'
    for part in request.query:
        begin = len(body)
        _encoder.encode_into(part, body, begin)
        del body[begin], body[-1]  # the quotes
    body += b'"}'
    return body


EVENT = Decoder(DifyEvent, float_hook=read_float)
TEXT_EVENT = Decoder(TextEvent)
TEXT_EVENTS = Decoder(list[TextEvent])
EVENT_NAME = Decoder(EventName)
TEXT_CHUNK = Decoder(TextChunkData)
REASONING_CHUNK = Decoder(ReasoningChunkData)
NODE = Decoder(NodeData)
PROCESS_DATA = Decoder(ProcessData | None)
LLM_OUTPUTS = Decoder(LlmOutputs | None)
RETRIEVAL_OUTPUTS = Decoder(RetrievalOutputs | None, float_hook=read_float)
AGENT_LOG = Decoder(AgentLogData)
MESSAGE_END_METADATA = Decoder(MessageEndMetadata | None, float_hook=read_float)
FILES = Decoder(list[FileData] | None)
WORKFLOW_FINISHED = Decoder(WorkflowFinishedData, float_hook=read_float)
WORKFLOW_PAUSED = Decoder(WorkflowPausedData, float_hook=read_float)
PENDING_FORM = Decoder(PendingForm, float_hook=read_float)
WORKFLOW_RUN = Decoder(WorkflowRun)
ERROR_BODY = Decoder(ErrorBody)
APP_INFO = Decoder(AppInfo)
APP_PARAMETERS = Decoder(AppParameters, float_hook=read_float)
AUDIO_TEXT = Decoder(AudioText)
MESSAGE_PAGE = Decoder(MessagePage)
CONVERSATION_PAGE = Decoder(ConversationPage)
SUGGESTIONS = Decoder(Suggestions)
UPLOAD_RECEIPT = Decoder(UploadReceipt)
