"""Read chat and legacy completion requests as turns: question, history, system prompt and inputs.

The question is:

- the user messages at the end, joined by an empty line if there are several;
- the results of tools at the end, together with the user messages among them;
- if the last message is the assistant's, a request to continue, with that message last in the history;
- if there are only system messages, the system message itself.

Messages with neither text, files nor calls are skipped. A request without any text or file is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from msgspec import UNSET, json, structs

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.call_results import check_calls, last_calls, question_of
from openai_dify_proxy.translate.openai.file_parts import FILE_PARTS, FileReader, read_dify_files
from openai_dify_proxy.translate.openai.form_answers import NO_FORMS, read_form_fields
from openai_dify_proxy.translate.openai.parameter_errors import (
    empty_value,
    invalid_type,
    invalid_value,
    missing_parameter,
    type_of,
)
from openai_dify_proxy.translate.openai.side_calls import detect_side_call
from openai_dify_proxy.translate.openai.tool_request import (
    PLAIN,
    RequestedOutput,
    read_chat_output,
    read_completion_output,
)
from openai_dify_proxy.translate.think import without_thinking
from openai_dify_proxy.translate.turn_request import (
    CONTINUE,
    FILES_ONLY,
    FileContents,
    HistoryMessage,
    RequestIdentity,
    SentFile,
    StoredHistory,
    ToolCall,
    TurnMessages,
    TurnRequest,
)
from openai_dify_proxy.wire.openai.chat import (
    ChatCompletionRequest,
    ChatMessage,
    CompletionFields,
    CompletionRequest,
    ContentPart,
    SentCall,
    SentFunction,
)
from openai_dify_proxy.wire.reading import UNREADABLE, decode_text

UNNAMED = RequestIdentity()
"""The identity of a request without identity headers."""

MAX_SESSION_ID = 256
"""Characters of a ``session_id`` that names a chat."""

CONVERSATION_HEADER = "X-Dify-Conversation-Id"

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""The role in a history of each OpenAI role."""

TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The types of content parts that hold text, and the field that holds it."""

_COUNT_WITHOUT_TEXT = ("assistant", "tool")
_CALLS = attrgetter("calls")
_CALL_ID = attrgetter("call_id")


def read_chat_request(request: ChatCompletionRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a chat completion request as a turn. Raises InvalidRequest."""
    if request.n is not None:
        reject_several_answers(request.n)
    if request.messages is UNSET:
        raise missing_parameter("messages")
    if not request.messages:
        raise empty_value("messages", request.messages)
    files = FileReader()
    messages = split_messages(chat_messages(request.messages, files), param="messages", files=files)
    return make_turn(request, messages, identity, requested=read_chat_output(request))


def read_completion_request(request: CompletionRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a legacy completion request as a turn. Raises InvalidRequest."""
    if request.n is not None:
        reject_several_answers(request.n)
    if request.best_of is not None and request.best_of > 1:
        raise InvalidRequest(
            "Unsupported value: 'best_of' must be 1. A Dify app answers once.",
            param="best_of",
            code="unsupported_parameter",
        )
    messages = split_messages([HistoryMessage("user", _single_prompt(request.prompt))], param="prompt")
    turn = make_turn(request, messages, identity, requested=read_completion_output(request))
    return structs.replace(turn, form_mode="text")  # this endpoint has no calls


def split_messages(messages: Sequence[HistoryMessage], *, param: str, files: FileReader | None = None) -> TurnMessages:
    """Split messages, oldest first, into system prompt, history and question.

    ``param`` is the field that holds them, ``files`` the reader of their files. Raises InvalidRequest.
    """
    contents = None if files is None else files.contents
    if len(messages) == 1 and messages[0].role == "user" and messages[0].text:  # a new conversation
        asked = tuple(messages)
        return TurnMessages(asked[0].text, asked, param=param, contents=contents)
    relevant = [message for message in messages if message.text or message.files or message.role in _COUNT_WITHOUT_TEXT]
    system = "\n\n".join(message.text for message in relevant if message.role == "system")
    dialogue = [message for message in relevant if message.role != "system"]
    while dialogue and _is_empty(dialogue[-1]):
        dialogue.pop()
    if not dialogue and not system:
        raise InvalidRequest(
            f"No message in '{param}' contains text or a file. Write the question into the last user message.",
            param=param,
        )
    if not dialogue:
        return TurnMessages(system, (HistoryMessage("user", system),), param=param, contents=contents)
    has_calls = any(map(_CALLS, dialogue)) or any(map(_CALL_ID, dialogue))
    if dialogue[-1].role == "assistant":
        return continuing(system, tuple(dialogue), has_calls=has_calls, param=param, contents=contents)
    begin = len(dialogue)
    while begin and dialogue[begin - 1].role != "assistant":
        begin -= 1
    asked, history = tuple(dialogue[begin:]), tuple(dialogue[:begin])
    question = question_of(asked, last_calls(history) if has_calls else ()) or FILES_ONLY
    return TurnMessages(question, asked, system, history, has_calls, param, contents)


def continuing(
    system: str = "",
    history: tuple[HistoryMessage, ...] = (),
    *,
    has_calls: bool = False,
    param: str,
    contents: FileContents | None = None,
) -> TurnMessages:
    """Return the messages of a request to continue after ``history``; ``contents`` holds the files of its messages."""
    return TurnMessages(CONTINUE, (HistoryMessage("user", CONTINUE),), system, history, has_calls, param, contents)


def make_turn(
    request: CompletionFields,
    messages: TurnMessages,
    identity: RequestIdentity = UNNAMED,
    stored: StoredHistory | None = None,
    requested: RequestedOutput = PLAIN,
) -> TurnRequest:
    """Return the turn of a request, which may continue a ``stored`` history. Raises InvalidRequest.

    Calls must have results, and results must have calls, in the request or at the end of the stored history.
    """
    metadata = request.metadata or {}
    conversation_id, conversation_param = request.conversation_id or None, "conversation_id"
    if metadata or identity.conversation_id:
        conversation_id, conversation_param = _named_conversation(request, metadata, identity)
    forms = NO_FORMS
    if messages.has_calls or request.human_input is not None:  # the result of a call may answer a form
        forms = read_form_fields(request, messages.asked, messages.param)
    may_be_side_call = stored is None and forms.answer is None
    side_call = detect_side_call(messages, named=conversation_id is not None) if may_be_side_call else None
    system, question = messages.system, messages.question
    calls = () if stored is None else stored.calls
    if messages.has_calls or calls:
        dialogue = [*messages.history, *messages.asked]
        check_calls(dialogue, calls, param=messages.param, named=conversation_id is not None)
    if stored is not None:
        if calls and not last_calls(messages.history):
            question = question_of(messages.asked, calls) or FILES_ONLY
        system = "\n\n".join(filter(None, (stored.system, system)))
        conversation_id = stored.conversation_id or conversation_id
    files = read_dify_files(request.files) if request.files else ()
    return TurnRequest(
        question=question,
        system=system,
        history=messages.history,
        inputs={**metadata_inputs(metadata), **(request.inputs or {})} if metadata or request.inputs else {},
        conversation_id=conversation_id,
        conversation_param=conversation_param,
        end_user=end_user_of(request, identity),
        stop=_stop_sequences(request.stop) if request.stop else (),
        asked=messages.asked,
        chat_id=identity.chat_id or (_session_of(request.session_id) if request.session_id else None),
        stored_history=stored,
        side_call=side_call,
        stateless=side_call is not None or identity.stateless,
        output=requested.output,
        unsupported=requested.unsupported,
        files=files,
        contents=FileContents() if files and messages.contents is None else messages.contents,
        form_mode=forms.mode,
        form_answer=forms.answer,
    )


def _named_conversation(
    request: CompletionFields, metadata: dict[str, Any], identity: RequestIdentity
) -> tuple[str | None, str]:
    """Return the Dify conversation that a request names, and where. Raises InvalidRequest."""
    in_metadata = metadata.get("conversation_id") if metadata and not request.conversation_id else None
    if in_metadata is not None and not isinstance(in_metadata, str):
        raise invalid_type("metadata.conversation_id", ("str",), type_of(in_metadata))
    if identity.conversation_id:
        return identity.conversation_id, CONVERSATION_HEADER
    if in_metadata:
        return in_metadata, "metadata.conversation_id"
    return request.conversation_id or None, "conversation_id"


def _session_of(session: Any) -> str | None:
    """Return a ``session_id`` that names a chat; clients that mean something else by this field send other types."""
    return session if isinstance(session, str) and len(session) <= MAX_SESSION_ID else None


def _stop_sequences(stop: str | list[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(filter(None, stop))


def end_user_of(request: CompletionFields, identity: RequestIdentity) -> str | None:
    """Return the end user of a request. Headers and the client's key take precedence over the body."""
    return identity.end_user or request.safety_identifier or request.user or None


def reject_several_answers(n: int) -> None:
    """Raise InvalidRequest for more than one answer."""
    if n != 1:
        raise InvalidRequest(
            "Unsupported value: 'n' must be 1. A Dify app answers once.", param="n", code="unsupported_parameter"
        )


def chat_messages(messages: Sequence[ChatMessage], files: FileReader) -> list[HistoryMessage]:
    """Return the messages of a chat with their texts, files, calls and results. Raises InvalidRequest."""
    read = []
    for index, message in enumerate(messages):
        text = message.content
        if message.role == "user" and type(text) is str:
            read.append(HistoryMessage("user", text))  # the usual case
        else:
            read.append(_history_message(message, index, files))
    return read


def read_content(
    role: str, content: str | list[ContentPart] | None, param: str, files: FileReader
) -> tuple[str, tuple[SentFile, ...]]:
    """Return all text of a message's content, and its files. Raises InvalidRequest for any other part."""
    if content is None:
        return "", ()
    if isinstance(content, str):
        return without_thinking(content) if role == "assistant" else content, ()
    texts = []
    found = []
    for index, part in enumerate(content):
        text = part.text if part.text is not None else part.refusal
        if text is not None:
            texts.append(text)
        elif role in ("user", "tool") and part.type in FILE_PARTS:
            found.append(files.read(part, f"{param}[{index}]"))
        elif role != "assistant":  # an assistant's other parts are its reasoning and its calls
            raise _unsupported_part(part, f"{param}[{index}]")
    joined = "\n".join(texts)
    return without_thinking(joined) if role == "assistant" else joined, tuple(found)


def metadata_inputs(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the app inputs in ``metadata``: its keys, and the JSON object in the string ``dify_inputs``.

    Raises InvalidRequest if ``dify_inputs`` is not a JSON object.
    """
    packed = metadata.get("dify_inputs")
    plain = {key: value for key, value in metadata.items() if key not in ("dify_inputs", "conversation_id")}
    if packed is None:
        return plain
    try:
        unpacked = decode_text(packed) if isinstance(packed, str) else packed
    except UNREADABLE:
        unpacked = None
    if not isinstance(unpacked, dict):
        raise InvalidRequest(
            "Invalid value for 'metadata.dify_inputs'. Send a JSON object, encoded as a string.",
            param="metadata.dify_inputs",
            code="invalid_value",
        )
    return {**plain, **unpacked}


def _history_message(message: ChatMessage, index: int, files: FileReader) -> HistoryMessage:
    role, content = ROLES[message.role], message.content
    sent: tuple[SentFile, ...] = ()
    if isinstance(content, str):
        text = without_thinking(content) if role == "assistant" else content
    else:
        text, sent = read_content(role, content, f"messages[{index}].content", files)
    if role == "tool":
        return HistoryMessage(role, text, call_id=message.tool_call_id or "", files=sent)
    if role == "assistant" and (message.tool_calls or message.function_call):
        return HistoryMessage(role, text, _calls(message, f"messages[{index}]"))
    return HistoryMessage(role, text, files=sent)


def _calls(message: ChatMessage, param: str) -> tuple[ToolCall, ...]:
    """Return the calls of an assistant's message. A legacy call has an empty id, as its result does."""
    if not message.tool_calls:
        assert message.function_call is not None
        return (_function_call("", message.function_call),)
    return tuple(_call(call, f"{param}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls))


def _call(call: SentCall, param: str) -> ToolCall:
    if call.function is not None:
        return _function_call(call.id or "", call.function)
    if call.custom is not None:
        return ToolCall(call.id or "", call.custom.name, call.custom.input, custom=True)
    raise missing_parameter(f"{param}.function")


def _function_call(call_id: str, function: SentFunction) -> ToolCall:
    arguments = function.arguments
    return ToolCall(
        call_id, function.name, arguments if isinstance(arguments, str) else json.encode(arguments).decode()
    )


def _is_empty(message: HistoryMessage) -> bool:
    return not message.text and not message.files and not message.calls and message.role != "tool"


def _single_prompt(prompt: Any) -> str:
    if prompt is None:
        raise missing_parameter("prompt")
    if isinstance(prompt, list) and not prompt:
        raise empty_value("prompt", prompt)
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, list):
        raise InvalidRequest(
            "Unsupported value: 'prompt' is an array of several prompts or of tokens. Send one string.",
            param="prompt",
            code="unsupported_parameter",
        )
    if not isinstance(prompt, str):
        raise invalid_type("prompt", ("str",), type_of(prompt))
    if not prompt:
        raise empty_value("prompt", prompt)
    return prompt


def _unsupported_part(part: ContentPart, param: str) -> InvalidRequest:
    if not part.type:
        return missing_parameter(f"{param}.type")
    if part.type in TEXT_PARTS:
        return missing_parameter(f"{param}.{TEXT_PARTS[part.type]}")
    if part.type in FILE_PARTS:
        return InvalidRequest(
            f"Unsupported content: '{param}' is of type '{part.type}'. Send files in messages of the user.",
            param=param,
            code="unsupported_content",
        )
    return invalid_value(f"{param}.type", part.type, (*TEXT_PARTS, *sorted(FILE_PARTS)))
