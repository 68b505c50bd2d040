"""What every route of the proxy takes and answers, keyed by its method and path in the route table of ``app``."""

from __future__ import annotations

from openai_dify_proxy.api.health import HealthStatus, ReadyStatus
from openai_dify_proxy.api.limits import RATE_LIMIT_HEADERS
from openai_dify_proxy.api.openapi.operations import (
    BINARY,
    EVENTS,
    FORM,
    JSON,
    TEXT,
    AnswerDescription,
    Operation,
    Parameter,
)
from openai_dify_proxy.api.openapi.parameters import END_USER, IMAGE_HEADERS, TURN_HEADERS, page_parameters
from openai_dify_proxy.api.responses import ResponseDeleted
from openai_dify_proxy.limits.reports import UsageReport
from openai_dify_proxy.translate.openai.speech import MEDIA_TYPES
from openai_dify_proxy.wire.openai.audio import (
    AudioModels,
    SpeechDelta,
    SpeechDone,
    SpeechRequest,
    TranscriptDelta,
    TranscriptDone,
    Transcription,
    TranscriptionFields,
    VerboseTranscription,
    Voices,
)
from openai_dify_proxy.wire.openai.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    CompletionRequest,
    ErrorEnvelope,
    TextCompletion,
)
from openai_dify_proxy.wire.openai.conversations import (
    Conversation,
    ConversationDeleted,
    ConversationRequest,
    HistoryItem,
    ItemList,
)
from openai_dify_proxy.wire.openai.feedback import Feedback, FeedbackRequest
from openai_dify_proxy.wire.openai.files import FileDeleted, FileList, FileObject
from openai_dify_proxy.wire.openai.images import ImageEvent, ImageRequest, ImagesResponse
from openai_dify_proxy.wire.openai.models import Model, ModelList
from openai_dify_proxy.wire.openai.pictures import PictureDeleted, PictureList, PictureObject
from openai_dify_proxy.wire.openai.responses import (
    ChatOrInputRequest,
    InputTokens,
    Response,
    ResponsesRequest,
    StreamEvent,
)

TURN_ERRORS = (400, 404, 409, 412, 413, 415, 429, 502, 503, 504)
BODY_ERRORS = (400, 413, 415)
STATE_ERRORS = (404, 503)
IMAGE_ERRORS = (400, 404, 406, 413, 415, 429, 500, 502, 503, 504)
AUDIO_ERRORS = (400, 404, 413, 415, 429, 502, 503, 504)

TURN_ANSWER_HEADERS = (
    "X-Dify-Conversation-Id",
    "X-Dify-Message-Id",
    "X-Unsupported-Parameters",
    "X-Queue-Position",
    *RATE_LIMIT_HEADERS,
)
_ANY = {"*/*": BINARY}
PICTURES = dict.fromkeys(("image/png", "image/jpeg", "image/webp", "image/gif"), BINARY)

_DAY = {"type": "string", "format": "date"}

_UPLOAD = {
    "type": "object",
    "properties": {
        "file": BINARY,
        "purpose": {"type": "string", "maxLength": 64, "default": "user_data"},
    },
    "required": ["file"],
}

_IMAGE_FORM = {
    "type": "object",
    "description": "The fields of ImageRequest as text, and the pictures as files.",
    "properties": {
        "prompt": TEXT,
        "model": TEXT,
        "image": BINARY,
        "image[]": {"type": "array", "items": BINARY, "maxItems": 16},
        "mask": BINARY,
    },
}


def _json(kind: object, *, headers: tuple[str, ...] = ()) -> tuple[AnswerDescription, ...]:
    return (AnswerDescription(content={JSON: kind}, headers=headers),)


def _turn(summary: str, *, body: object, answer: object, event: object, tag: str = "Chat") -> Operation:
    return Operation(
        summary=summary,
        tag=tag,
        docs="api.md#request-fields" if tag == "Chat" else "responses.md#request-fields",
        body={JSON: body},
        parameters=TURN_HEADERS,
        answers=(AnswerDescription(content={JSON: answer, EVENTS: event}, headers=TURN_ANSWER_HEADERS),),
        errors=TURN_ERRORS,
    )


def _stored(summary: str, answer: object, *, parameters: tuple[Parameter, ...] = ()) -> Operation:
    """Describe a route that reads or deletes a stored response, which belongs to an end user."""
    return Operation(
        summary=summary,
        tag="Responses",
        docs="responses.md",
        parameters=(*parameters, END_USER),
        answers=_json(answer),
        errors=(400, *STATE_ERRORS),
    )


def _conversation(
    summary: str, answer: object, *, body: object = None, parameters: tuple[Parameter, ...] = ()
) -> Operation:
    return Operation(
        summary=summary,
        tag="Conversations",
        docs="responses.md#conversations",
        body={} if body is None else {JSON: body},
        parameters=(*parameters, END_USER),
        answers=_json(answer),
        errors=TURN_ERRORS,
    )


def _file(summary: str, *answers: AnswerDescription, parameters: tuple[Parameter, ...] = ()) -> Operation:
    return Operation(
        summary=summary,
        tag="Files",
        docs="files.md#uploads",
        parameters=parameters,
        answers=answers,
        errors=(400, *STATE_ERRORS, 502),
    )


def _image(summary: str, *, form: bool = True) -> Operation:
    json = AnswerDescription(
        content={JSON: ImagesResponse, EVENTS: ImageEvent | ErrorEnvelope, **PICTURES},
        headers=("X-Unsupported-Parameters", "Content-Location"),
        description="The pictures: as JSON, as events, or the first one's bytes if `Accept` asks for them.",
    )
    return Operation(
        summary=summary,
        tag="Images",
        docs="images.md",
        body={JSON: ImageRequest, **({FORM: _IMAGE_FORM} if form else {})},
        parameters=IMAGE_HEADERS,
        answers=(json,),
        errors=IMAGE_ERRORS,
        key="spender",
    )


def _stored_picture(summary: str, answer: type) -> Operation:
    return Operation(
        summary=summary,
        tag="Pictures",
        docs="pictures.md#for-operators",
        answers=_json(answer),
        errors=(400, 404, 500),
        key="spender",
    )


DESCRIPTIONS: dict[str, Operation] = {
    "POST /v1/chat/completions": _turn(
        "Create a chat completion",
        body=ChatOrInputRequest,
        answer=ChatCompletion,
        event=ChatCompletionChunk | ErrorEnvelope,
    ),
    "POST /v1/completions": _turn(
        "Create a text completion", body=CompletionRequest, answer=TextCompletion, event=TextCompletion | ErrorEnvelope
    ),
    "POST /v1/responses": _turn(
        "Create a response, also in the background",
        body=ResponsesRequest,
        answer=Response,
        event=StreamEvent,
        tag="Responses",
    ),
    "POST /v1/responses/input_tokens": Operation(
        summary="Estimate the tokens of a response's input",
        tag="Responses",
        docs="responses.md#counting-tokens",
        body={JSON: ResponsesRequest},
        parameters=TURN_HEADERS,
        answers=_json(InputTokens, headers=("X-Unsupported-Parameters",)),
        errors=TURN_ERRORS,
    ),
    "GET /v1/responses/{response_id}": Operation(
        summary="Retrieve a response, or the events of a background response",
        tag="Responses",
        docs="responses.md",
        parameters=(
            Parameter("stream", "query", "`true` streams the past and future events of a background response."),
            Parameter(
                "starting_after",
                "query",
                "Leaves out the events up to this `sequence_number`.",
                {"type": "integer", "minimum": 0},
            ),
            END_USER,
        ),
        answers=(AnswerDescription(content={JSON: Response, EVENTS: StreamEvent}),),
        errors=(400, *STATE_ERRORS),
    ),
    "DELETE /v1/responses/{response_id}": _stored("Delete a response", ResponseDeleted),
    "POST /v1/responses/{response_id}/cancel": Operation(
        summary="Cancel a background response",
        tag="Responses",
        docs="responses.md#background-responses",
        parameters=(END_USER,),
        answers=_json(Response),
        errors=(400, 415, *STATE_ERRORS),
    ),
    "GET /v1/responses/{response_id}/input_items": _stored(
        "List the input of a response", ItemList, parameters=page_parameters()
    ),
    "POST /v1/conversations": _conversation("Create a conversation", Conversation, body=ConversationRequest),
    "GET /v1/conversations/{conversation_id}": _conversation("Retrieve a conversation", Conversation),
    "POST /v1/conversations/{conversation_id}": _conversation(
        "Replace the metadata of a conversation", Conversation, body=ConversationRequest
    ),
    "DELETE /v1/conversations/{conversation_id}": _conversation("Delete a conversation", ConversationDeleted),
    "GET /v1/conversations/{conversation_id}/items": _conversation(
        "List the items of a conversation", ItemList, parameters=page_parameters()
    ),
    "POST /v1/conversations/{conversation_id}/items": _conversation(
        "Add items to a conversation", ItemList, body=ConversationRequest
    ),
    "GET /v1/conversations/{conversation_id}/items/{item_id}": _conversation("Retrieve an item", HistoryItem),
    "DELETE /v1/conversations/{conversation_id}/items/{item_id}": _conversation(
        "Delete an item, and return the conversation", Conversation
    ),
    "POST /v1/feedback": Operation(
        summary="Rate an answer",
        tag="Chat",
        docs="api.md#ratings",
        body={JSON: FeedbackRequest},
        parameters=(END_USER,),
        answers=_json(Feedback),
        errors=TURN_ERRORS,
    ),
    "POST /v1/files": Operation(
        summary="Store a file",
        tag="Files",
        docs="files.md#uploads",
        body={FORM: _UPLOAD},
        answers=_json(FileObject),
        errors=(*BODY_ERRORS, 503),
    ),
    "GET /v1/files": _file(
        "List the stored files",
        *_json(FileList),
        parameters=(Parameter("purpose", "query", "Lists only files with this purpose."), *page_parameters(10_000)),
    ),
    "GET /v1/files/{file_id}": _file("Retrieve a file's data", *_json(FileObject)),
    "GET /v1/files/{file_id}/content": _file(
        "Retrieve a file's content", AnswerDescription(content={"application/octet-stream": BINARY})
    ),
    "DELETE /v1/files/{file_id}": _file("Delete a file", *_json(FileDeleted)),
    "POST /v1/images/generations": _image("Generate pictures", form=False),
    "POST /v1/images/edits": _image("Edit pictures"),
    "POST /v1/images/variations": _image("Vary a picture"),
    "POST /v1/audio/transcriptions": Operation(
        summary="Transcribe speech",
        tag="Audio",
        docs="audio.md#transcriptions",
        body={FORM: (TranscriptionFields, {"file": BINARY})},
        parameters=(END_USER,),
        answers=(
            AnswerDescription(
                content={
                    JSON: Transcription | VerboseTranscription,
                    "text/plain": TEXT,
                    EVENTS: TranscriptDelta | TranscriptDone | ErrorEnvelope,
                },
                headers=("X-Unsupported-Parameters", "X-Queue-Position"),
            ),
        ),
        errors=AUDIO_ERRORS,
    ),
    "POST /v1/audio/speech": Operation(
        summary="Speak a text",
        tag="Audio",
        docs="audio.md#speech",
        body={JSON: SpeechRequest},
        parameters=(END_USER,),
        answers=(
            AnswerDescription(
                content={
                    **dict.fromkeys(MEDIA_TYPES.values(), BINARY),
                    EVENTS: SpeechDelta | SpeechDone | ErrorEnvelope,
                },
                headers=("X-Unsupported-Parameters", "X-Queue-Position"),
            ),
        ),
        errors=AUDIO_ERRORS,
    ),
    "GET /v1/audio/models": Operation(
        summary="List the models that speak",
        tag="Audio",
        docs="audio.md",
        answers=_json(AudioModels),
        key="optional",
    ),
    "GET /v1/audio/voices": Operation(
        summary="List the voices", tag="Audio", docs="audio.md", answers=_json(Voices), key="optional"
    ),
    "GET /v1/models": Operation(
        summary="List the models",
        tag="Models",
        docs="api.md#which-app-a-model-name-means",
        answers=_json(ModelList),
        errors=(502, 503, 504),
    ),
    "GET /v1/models/{model}": Operation(
        summary="Retrieve a model, whose name may contain slashes",
        tag="Models",
        docs="api.md#which-app-a-model-name-means",
        answers=_json(Model),
        errors=(404, 502, 503, 504),
    ),
    "GET /pictures/{name}": Operation(
        summary="Retrieve a stored picture",
        tag="Pictures",
        docs="pictures.md",
        parameters=(
            Parameter("Range", "header", "The range of bytes, such as `bytes=0-1023`."),
            Parameter("If-None-Match", "header", "The `ETag` of a picture that the client has."),
        ),
        answers=(
            AnswerDescription(content=PICTURES, headers=("ETag",)),
            AnswerDescription(content=PICTURES, status=206, headers=("ETag",), description="The requested range."),
            AnswerDescription(status=304, headers=("ETag",), description="The client has this picture."),
            AnswerDescription(status=307, description="The signed link at the object store, in `Location`."),
        ),
        errors=(404, 416, 500),
        key="none",
    ),
    "GET /v1/stored_pictures": Operation(
        summary="List the stored pictures, newest first",
        tag="Pictures",
        docs="pictures.md#for-operators",
        parameters=(
            Parameter(
                "limit",
                "query",
                "The number of pictures.",
                {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
            ),
        ),
        answers=_json(PictureList),
        errors=(400, 500),
        key="spender",
    ),
    "DELETE /v1/stored_pictures/{name}": _stored_picture("Delete a stored picture", PictureDeleted),
    "POST /v1/stored_pictures/{name}/upload": _stored_picture("Send a stored picture to IPFS", PictureObject),
    "GET /artifacts/{name}": Operation(
        summary="Retrieve a file that an app produced, at a signed link",
        tag="Files",
        docs="files.md#files-from-apps",
        parameters=(
            Parameter("Range", "header", "The range of bytes, such as `bytes=0-1023`."),
            Parameter("If-None-Match", "header", "The `ETag` of a file that the client has."),
        ),
        answers=(
            AnswerDescription(content=_ANY, headers=("ETag",)),
            AnswerDescription(content=_ANY, status=206, headers=("ETag",), description="The requested range."),
            AnswerDescription(status=304, headers=("ETag",), description="The client has this file."),
        ),
        errors=(404, 416, 500, 502, 503),
        key="none",
    ),
    "GET /v1/usage": Operation(
        summary="Report the usage of the caller, or of all callers for an admin key",
        tag="Usage",
        docs="limits.md#usage",
        parameters=(
            Parameter("from", "query", "The first day (UTC). Default: 30 days up to `to`.", _DAY),
            Parameter("to", "query", "The last day (UTC). Default: today.", _DAY),
            Parameter(
                "by",
                "query",
                "What to group by: `key`, `app` and `day`, separated by commas. Default: `app`, or `key` for an admin.",
            ),
        ),
        answers=_json(UsageReport),
        errors=(400, 503),
        key="spender",
    ),
    "GET /openapi.json": Operation(
        summary="Describe the API",
        tag="Server",
        docs="api.md#openapi",
        parameters=(Parameter("If-None-Match", "header", "The `ETag` of a document that the client has."),),
        answers=(
            AnswerDescription(content={JSON: {"type": "object"}}, headers=("ETag",)),
            AnswerDescription(status=304, headers=("ETag",), description="The client has this document."),
        ),
        key="none",
    ),
    "GET /health": Operation(
        summary="Report that the process is alive",
        tag="Server",
        docs="api.md#routes",
        answers=_json(HealthStatus),
        key="none",
    ),
    "GET /metrics": Operation(
        summary="Return the metrics of the server, in the format of Prometheus",
        tag="Server",
        docs="metrics.md",
        answers=(AnswerDescription(content={"text/plain": {"type": "string"}}),),
        errors=(403,),
        key="spender",
    ),
    "GET /ready": Operation(
        summary="Report whether the server can serve turns",
        tag="Server",
        docs="api.md#routes",
        answers=_json(ReadyStatus),
        errors=(503,),
        key="none",
    ),
}
