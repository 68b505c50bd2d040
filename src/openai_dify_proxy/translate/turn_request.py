"""The request for one turn, in the terms that all OpenAI endpoints share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

CONTINUE = "Continue."
"""The question of a request that ends with a message of the assistant."""

FILES_ONLY = "See the attached file."
"""The question of a request whose last message has files but no text: Dify rejects an empty query."""


class ToolCall(Struct, frozen=True):
    """A call of a client's tool: ``arguments`` is a JSON object, or free text if the tool is ``custom``."""

    id: str
    name: str
    arguments: str
    custom: bool = False


FileKind: TypeAlias = Literal["image", "document", "audio", "video", "custom"]
"""Dify's types of files; ``custom`` is every other type."""


class SentFile(Struct, frozen=True, omit_defaults=True):
    """A file in a message, without its content.

    Its source is a ``url``, a ``file_id`` of the Files API, the id of an upload in Dify (``upload_id``), or the content
    with the SHA-256 ``digest`` (hex). ``name`` has no extension of its own; ``extension`` has no dot and may be empty,
    as ``media_type`` may, if the content is not known yet. ``size`` is in bytes. ``param`` is the part's path in the
    request.
    """

    kind: FileKind
    name: str = ""
    extension: str = ""
    media_type: str = ""
    size: int = 0
    digest: str = ""
    url: str = ""
    file_id: str = ""
    upload_id: str = ""
    param: str = ""

    @property
    def identity(self) -> str:
        """What identifies the file in a fingerprint: the same in every request that repeats its message."""
        return self.url or self.file_id or self.upload_id or self.digest

    @property
    def file_name(self) -> str:
        """The name with its extension, such as ``photo.png``."""
        name = self.name or self.kind
        return f"{name}.{self.extension}" if self.extension else name


class FileContents:
    """The contents of a request's files by their digest. ``drop`` frees them, and calls ``on_drop`` once."""

    def __init__(self) -> None:
        self.on_drop: Callable[[], None] | None = None
        self._data: dict[str, bytes] = {}

    def add(self, digest: str, data: bytes) -> None:
        self._data[digest] = data

    def get(self, digest: str) -> bytes | None:
        return self._data.get(digest)

    @property
    def size(self) -> int:
        """The bytes of all contents."""
        return sum(map(len, self._data.values()))

    def drop(self) -> None:
        self._data.clear()
        on_drop, self.on_drop = self.on_drop, None
        if on_drop is not None:
            on_drop()


class HistoryMessage(Struct, frozen=True):
    """A message of the history. Its role is checked only where a message is decoded.

    An assistant's message may have ``calls``; a tool's message is the result of the call ``call_id``. Messages of users
    and tools may have ``files``.
    """

    role: Annotated[str, Meta(pattern="^(user|assistant|tool|system)$")]
    text: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    files: tuple[SentFile, ...] = ()


class Tool(Struct, frozen=True):
    """A tool of the client.

    ``parameters`` is a JSON schema as the client sent it; None means no parameters. The input of a ``custom`` tool is
    free text, which ``grammar`` may describe. ``param`` is the tool's path in the request.
    """

    name: str
    description: str = ""
    parameters: bytes | None = None
    strict: bool = False
    custom: bool = False
    grammar: str | None = None
    param: str = "tools"


class ToolChoice(Struct, frozen=True):
    """Whether the model may (``auto``), must (``required``) or must not (``none``) call a tool.

    ``names`` limits the choice to these tools; empty means all. ``param`` is the field's path in the request.
    """

    mode: Literal["auto", "required", "none"] = "auto"
    names: tuple[str, ...] = ()
    param: str = "tool_choice"


class AnswerFormat(Struct, frozen=True):
    """The JSON that the answer's text must be; ``schema`` is a JSON schema, None for any JSON object.

    ``param`` is the schema's path in the request.
    """

    schema: bytes | None = None
    name: str = ""
    description: str = ""
    strict: bool = False
    param: str = "response_format"


class OutputRequest(Struct, frozen=True):
    """The tools that the model may call, and the format of its answer.

    ``legacy`` means that the tools are ``functions``, so that calls are answered as ``function_call``.
    """

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()
    parallel: bool = True
    answer_format: AnswerFormat | None = None
    legacy: bool = False


class TurnMessages(Struct, frozen=True):
    """The parts of a request's messages.

    ``question`` is the text of the new messages, ``asked``. ``history`` holds the messages before them, except system
    messages, whose text is ``system``. ``has_calls`` means that a message has calls or is a tool's result. ``param`` is
    the field that holds the messages. ``contents`` holds the contents of their files, None if no message has files.
    """

    question: str
    asked: tuple[HistoryMessage, ...]
    system: str = ""
    history: tuple[HistoryMessage, ...] = ()
    has_calls: bool = False
    param: str = "messages"
    contents: FileContents | None = None


class RequestIdentity(Struct, frozen=True):
    """The conversation and end user from the headers and the client key, which override the body.

    ``chat_id`` is the client's own id of the chat. ``stateless`` means that the turn uses no conversation in Dify.
    """

    conversation_id: str | None = None
    end_user: str | None = None
    chat_id: str | None = None
    stateless: bool = False


class StoredHistory(Struct, frozen=True):
    """The stored response or conversation ``name`` that a turn continues.

    ``link`` is the fingerprint of its history within ``scope``, and ``asked`` a question of that history. A
    conversation also has its ``system`` text, and ``conversation_id`` if the turn can continue it in Dify. ``calls``
    are the calls of its last message, whose results the request may send.
    """

    name: str
    scope: bytes = b""
    link: bytes = b""
    asked: str | None = None
    system: str = ""
    conversation_id: str | None = None
    calls: tuple[ToolCall, ...] = ()


FormMode: TypeAlias = Literal["auto", "tool", "text"]
"""How the form of a paused run reaches the client: as a tool call, as text, or as it suits the request."""


class FormAnswer(Struct, frozen=True):
    """The client's answer to the form of a paused run.

    Without a ``token`` it is for the run that the conversation waits for. ``action`` is an id or a title. ``inputs`` is
    None if the client sent nothing but an action. ``param`` is the answer's path in the request.
    """

    token: str | None
    action: str
    inputs: dict[str, Any] | None
    param: str


SideCallKind: TypeAlias = Literal[
    "title",
    "tags",
    "follow_ups",
    "queries",
    "image_prompt",
    "emoji",
    "autocomplete",
    "tool_choice",
    "memory",
    "summary",
    "merge",
]


class SideCall(Struct, frozen=True):
    """A request that the chat client ``client`` makes outside the conversation.

    ``empty_answer`` makes the client behave as if it had made no side call. It is None if no answer does:
    without a summary, for example, a client loses its conversation.
    """

    client: str
    kind: SideCallKind
    empty_answer: str | None


class TurnRequest(Struct, frozen=True):
    """The request for a turn, without the app that answers it.

    ``question``, ``asked``, ``system`` and ``history`` are as in ``TurnMessages``, ``chat_id`` as in
    ``RequestIdentity``. ``stored_history`` is a history that is stored here and not in the request. A ``stateless``
    turn, such as a side call, continues no conversation and cannot be continued. ``conversation_param`` is the
    field or header that ``conversation_id`` comes from. ``output`` is None for a plain answer. ``unsupported`` names
    the parameters of the request that have no effect. ``files`` are those of the body's field ``files``, which belong
    to no message. ``contents`` is None if the request has no files at all. ``form_mode`` is None if the request does
    not say how it wants forms; with a ``form_answer`` the turn resumes a paused run, and asks nothing.
    """

    question: str
    system: str = ""
    history: tuple[HistoryMessage, ...] = ()
    inputs: dict[str, Any] = {}
    conversation_id: str | None = None
    conversation_param: str = "conversation_id"
    end_user: str | None = None
    stop: tuple[str, ...] = ()
    asked: tuple[HistoryMessage, ...] = ()
    chat_id: str | None = None
    stored_history: StoredHistory | None = None
    side_call: SideCall | None = None
    stateless: bool = False
    output: OutputRequest | None = None
    unsupported: tuple[str, ...] = ()
    files: tuple[SentFile, ...] = ()
    contents: FileContents | None = None
    form_mode: FormMode | None = None
    form_answer: FormAnswer | None = None

    @property
    def new_files(self) -> tuple[SentFile, ...]:
        """The files of the new messages and of the body."""
        return (*(file for message in self.asked for file in message.files), *self.files)
