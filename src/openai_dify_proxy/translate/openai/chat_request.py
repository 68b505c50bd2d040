"""Read chat and legacy completion requests as turns: question, history, system prompt and inputs.

The question is:

- the user messages at the end, joined by an empty line if there are several;
- the tool messages at the end, with a role line, together with the user messages after them;
- if the last message is the assistant's, a request to continue, with that message last in the history;
- if there are only system messages, the system message itself.

Messages without text are skipped. A request without any text is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import (
    empty_value,
    invalid_type,
    invalid_value,
    missing_parameter,
    type_of,
)
from openai_dify_proxy.translate.openai.side_calls import detect_side_call
from openai_dify_proxy.translate.role_lines import escape_role_lines
from openai_dify_proxy.translate.think import without_thinking
from openai_dify_proxy.translate.turn_request import (
    CONTINUE,
    HistoryMessage,
    RequestIdentity,
    StoredHistory,
    TurnMessages,
    TurnRequest,
)
from openai_dify_proxy.wire.openai.chat import (
    ChatCompletionRequest,
    ChatMessage,
    CompletionFields,
    CompletionRequest,
    ContentPart,
)
from openai_dify_proxy.wire.reading import UNREADABLE, decode_text

UNNAMED = RequestIdentity()
"""The identity of a request without identity headers."""

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

OTHER_PARTS = frozenset({"image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file"})
"""OpenAI's types of content parts that hold no text."""


def read_chat_request(request: ChatCompletionRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a chat completion request as a turn. Raises InvalidRequest."""
    reject_several_answers(request)
    if forces_tool(request.tool_choice):
        raise forced_tool("tool_choice")
    if isinstance(request.function_call, dict):
        raise forced_tool("function_call")
    if request.messages is UNSET:
        raise missing_parameter("messages")
    if not request.messages:
        raise empty_value("messages", request.messages)
    return make_turn(request, split_messages(chat_messages(request.messages), param="messages"), identity)


def read_completion_request(request: CompletionRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a legacy completion request as a turn. Raises InvalidRequest."""
    reject_several_answers(request)
    if request.best_of is not None and request.best_of > 1:
        raise InvalidRequest(
            "Unsupported value: 'best_of' must be 1. A Dify app answers once.",
            param="best_of",
            code="unsupported_parameter",
        )
    prompt = _single_prompt(request.prompt)
    return make_turn(request, split_messages([HistoryMessage("user", prompt)], param="prompt"), identity)


def split_messages(messages: Sequence[HistoryMessage], *, param: str) -> TurnMessages:
    """Split messages, oldest first, into system prompt, history and question.

    ``param`` is the field that holds them. Raises InvalidRequest.
    """
    relevant = [message for message in messages if message.text or message.role == "assistant"]
    system = "\n\n".join(message.text for message in relevant if message.role == "system")
    dialogue = [message for message in relevant if message.role != "system"]
    while dialogue and not dialogue[-1].text:
        dialogue.pop()
    if not dialogue and not system:
        raise InvalidRequest(
            f"No message in '{param}' contains text. Write the question into the last user message.", param=param
        )
    if not dialogue:
        return TurnMessages(system, (HistoryMessage("user", system),))
    if dialogue[-1].role == "assistant":
        return TurnMessages(CONTINUE, (HistoryMessage("user", CONTINUE),), system, tuple(dialogue))
    begin = len(dialogue)
    while begin and dialogue[begin - 1].role != "assistant":
        begin -= 1
    return TurnMessages(_question(dialogue[begin:]), tuple(dialogue[begin:]), system, tuple(dialogue[:begin]))


def make_turn(
    request: CompletionFields,
    messages: TurnMessages,
    identity: RequestIdentity = UNNAMED,
    stored: StoredHistory | None = None,
) -> TurnRequest:
    """Return the turn of a request, which may continue a ``stored`` history. Raises InvalidRequest."""
    metadata = request.metadata or {}
    in_body = request.conversation_id or metadata.get("conversation_id")
    if in_body is not None and not isinstance(in_body, str):
        raise invalid_type("metadata.conversation_id", ("str",), type_of(in_body))
    ids = (
        (identity.conversation_id, CONVERSATION_HEADER),
        (request.conversation_id, "conversation_id"),
        (in_body, "metadata.conversation_id"),
    )
    conversation_id, conversation_param = next((pair for pair in ids if pair[0]), (None, "conversation_id"))
    side_call = None if stored is not None else detect_side_call(messages, named=conversation_id is not None)
    system = messages.system
    if stored is not None:
        system = "\n\n".join(filter(None, (stored.system, system)))
        conversation_id = stored.conversation_id or conversation_id
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return TurnRequest(
        question=messages.question,
        system=system,
        history=messages.history,
        inputs={**metadata_inputs(metadata), **(request.inputs or {})},
        conversation_id=conversation_id,
        conversation_param=conversation_param,
        end_user=end_user_of(request, identity),
        stop=tuple(sequence for sequence in stop if sequence),
        asked=messages.asked,
        chat_id=identity.chat_id,
        stored_history=stored,
        side_call=side_call,
        stateless=side_call is not None,
    )


def end_user_of(request: CompletionFields, identity: RequestIdentity) -> str | None:
    """Return the end user of a request. Headers and the client's key take precedence over the body."""
    return identity.end_user or request.safety_identifier or request.user or None


def reject_several_answers(request: CompletionFields) -> None:
    if request.n is not None and request.n != 1:
        raise InvalidRequest(
            "Unsupported value: 'n' must be 1. A Dify app answers once.", param="n", code="unsupported_parameter"
        )


def forces_tool(choice: Any) -> bool:
    """Return whether a ``tool_choice`` permits no answer without a tool call."""
    return choice == "required" or (isinstance(choice, dict) and choice.get("type") in ("function", "custom", "tool"))


def forced_tool(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value: '{param}' forces a tool call, and a Dify app calls only its own tools. "
        f"Omit '{param}', or set it to 'auto' or 'none'.",
        param=param,
        code="unsupported_parameter",
    )


def chat_messages(messages: Sequence[ChatMessage]) -> list[HistoryMessage]:
    """Return the messages of a chat with their texts. Raises InvalidRequest for content other than text."""
    return [
        HistoryMessage(ROLES[message.role], content_text(message.role, message.content, f"messages[{index}].content"))
        for index, message in enumerate(messages)
    ]


def content_text(role: str, content: str | list[ContentPart] | None, param: str) -> str:
    """Return all text of a message's content. Raises InvalidRequest for content other than text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return without_thinking(content) if role == "assistant" else content
    texts = []
    for index, part in enumerate(content):
        text = part.text if part.text is not None else part.refusal
        if text is not None:
            texts.append(text)
        elif role != "assistant":  # an assistant's other parts are its reasoning and its calls
            raise _unsupported_part(part, f"{param}[{index}]")
    joined = "\n".join(texts)
    return without_thinking(joined) if role == "assistant" else joined


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


def _question(asked: Sequence[HistoryMessage]) -> str:
    return "\n\n".join(
        f"Tool result:\n{escape_role_lines(message.text)}" if message.role == "tool" else message.text
        for message in asked
    )


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
    if part.type in OTHER_PARTS:
        return InvalidRequest(
            f"Unsupported content: '{param}' is of type '{part.type}'. Send text parts only.",
            param=param,
            code="unsupported_content",
        )
    return invalid_value(f"{param}.type", part.type, TEXT_PARTS)
