"""Reads OpenAI's chat and completion requests as turns: question, history, system prompt and inputs.

Which message is the question:

- the user's messages at the end, joined by an empty line if there are several;
- a tool's messages at the end, with a role line, together with the user's that follow them;
- if the last message is the assistant's, a request to go on, with that message as the last of the history;
- if there are only system messages, the system message itself;
- messages without any text are passed over, and if no text is left the request is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import json

from openai_dify_proxy.errors import InvalidRequest
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

UNNAMED = RequestIdentity()
"""The identity of a request whose headers name nothing."""

MAX_MODEL_NAME = 256
MAX_STOPS = 4
MAX_STOP_LENGTH = 256


def read_chat_request(request: ChatCompletionRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a chat completion request as a turn. Raises InvalidRequest."""
    refuse_unhonourable(request)
    if forces_tool(request.tool_choice):
        raise forced_tool("tool_choice")
    if isinstance(request.function_call, dict):
        raise forced_tool("function_call")
    if not request.messages:
        raise InvalidRequest("messages must hold at least one message.", param="messages")
    return make_turn(request, split_messages(chat_messages(request.messages), param="messages"), identity)


def read_completion_request(request: CompletionRequest, identity: RequestIdentity = UNNAMED) -> TurnRequest:
    """Return a legacy completion request as a turn. Raises InvalidRequest."""
    refuse_unhonourable(request)
    if request.best_of is not None and request.best_of > 1:
        raise InvalidRequest(
            "best_of must be 1: a Dify app answers once.", param="best_of", code="unsupported_parameter"
        )
    prompt = request.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidRequest(
            "prompt must be one string: several prompts and token ids cannot be put to a Dify app.", param="prompt"
        )
    if not prompt:
        raise InvalidRequest("prompt must not be empty.", param="prompt")
    return make_turn(request, split_messages([HistoryMessage("user", prompt)], param="prompt"), identity)


def split_messages(messages: Sequence[HistoryMessage], *, param: str) -> TurnMessages:
    """Take messages apart, oldest first. Raises InvalidRequest; ``param`` is where they come from."""
    said = [message for message in messages if message.text or message.role == "assistant"]
    system = "\n\n".join(message.text for message in said if message.role == "system")
    spoken = [message for message in said if message.role != "system"]
    while spoken and not spoken[-1].text:
        spoken.pop()
    if not spoken and not system:
        raise InvalidRequest("No message holds any text. Write the question into the last user message.", param=param)
    if not spoken:
        return TurnMessages(system, (HistoryMessage("user", system),))
    if spoken[-1].role == "assistant":
        return TurnMessages(CONTINUE, (HistoryMessage("user", CONTINUE),), system, tuple(spoken))
    begin = len(spoken)
    while begin and spoken[begin - 1].role != "assistant":
        begin -= 1
    return TurnMessages(_question(spoken[begin:]), tuple(spoken[begin:]), system, tuple(spoken[:begin]))


def make_turn(
    request: CompletionFields,
    messages: TurnMessages,
    identity: RequestIdentity = UNNAMED,
    stored: StoredHistory | None = None,
) -> TurnRequest:
    """Return the turn that a request asks for, which may continue a ``stored`` history. Raises InvalidRequest."""
    metadata = request.metadata or {}
    in_body = request.conversation_id or metadata.get("conversation_id")
    if in_body is not None and not isinstance(in_body, str):
        raise InvalidRequest("metadata.conversation_id must be a string.", param="metadata.conversation_id")
    conversation_id = identity.conversation_id or in_body or None
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
        end_user=end_user_of(request, identity),
        stop=tuple(sequence for sequence in stop if sequence),
        asked=messages.asked,
        chat_id=identity.chat_id,
        stored_history=stored,
        side_call=side_call,
        stateless=side_call is not None,
    )


def end_user_of(request: CompletionFields, identity: RequestIdentity) -> str | None:
    """Return the end user of a request; headers and the client's key win over the body."""
    return identity.end_user or request.safety_identifier or request.user or None


def refuse_unhonourable(request: CompletionFields) -> None:
    if request.model is not None and len(request.model) > MAX_MODEL_NAME:
        raise InvalidRequest(f"A model's name has at most {MAX_MODEL_NAME} characters.", param="model")
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stop) > MAX_STOPS or any(len(sequence) > MAX_STOP_LENGTH for sequence in stop):
        raise InvalidRequest(
            f"stop takes at most {MAX_STOPS} sequences of at most {MAX_STOP_LENGTH} characters.", param="stop"
        )
    if request.n is not None and request.n != 1:
        raise InvalidRequest("n must be 1: a Dify app answers once.", param="n", code="unsupported_parameter")


def forces_tool(choice: Any) -> bool:
    """Whether a ``tool_choice`` leaves no answer without a call."""
    return choice == "required" or (isinstance(choice, dict) and choice.get("type") in ("function", "custom", "tool"))


def forced_tool(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"A Dify app cannot be made to call your tools: it runs its own. Leave {param} out, or set it to 'auto' or "
        "'none'.",
        param=param,
        code="unsupported_parameter",
    )


def chat_messages(messages: Sequence[ChatMessage]) -> list[HistoryMessage]:
    """The messages of a chat with their texts. Raises InvalidRequest for parts that hold something else."""
    return [
        HistoryMessage(ROLES[message.role], content_text(message.role, message.content, f"messages[{index}].content"))
        for index, message in enumerate(messages)
    ]


def content_text(role: str, content: str | list[ContentPart] | None, param: str) -> str:
    """All text of a message's content. Raises InvalidRequest for parts that hold something else."""
    if content is None:
        return ""
    if isinstance(content, str):
        return without_thinking(content) if role == "assistant" else content
    texts = []
    for index, part in enumerate(content):
        text = part.text if part.text is not None else part.refusal
        if text is None and role == "assistant":
            continue  # its own thinking, or what it called: not a part of what it said
        if text is None:
            raise InvalidRequest(
                f"Content of type '{part.type}' is not passed on to Dify yet; only text is.",
                param=f"{param}[{index}]",
                code="unsupported_content",
            )
        texts.append(text)
    joined = "\n".join(texts)
    return without_thinking(joined) if role == "assistant" else joined


def _question(asked: Sequence[HistoryMessage]) -> str:
    return "\n\n".join(
        f"Tool result:\n{escape_role_lines(message.text)}" if message.role == "tool" else message.text
        for message in asked
    )


def metadata_inputs(metadata: dict[str, Any]) -> dict[str, Any]:
    """The app's inputs in ``metadata``: each key by its name, and all of ``dify_inputs``, a JSON object in a string.

    Raises InvalidRequest if that is no JSON object.
    """
    packed = metadata.get("dify_inputs")
    plain = {key: value for key, value in metadata.items() if key not in ("dify_inputs", "conversation_id")}
    if packed is None:
        return plain
    try:
        unpacked = json.decode(packed) if isinstance(packed, str) else packed
    except (ValueError, RecursionError):
        unpacked = None
    if not isinstance(unpacked, dict):
        raise InvalidRequest("metadata.dify_inputs must be a JSON object in a string.", param="metadata.dify_inputs")
    return {**plain, **unpacked}


ROLES = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""OpenAI's roles as those of a history."""
