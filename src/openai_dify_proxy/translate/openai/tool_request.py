"""Read what a request asks of the answer: tools, the choice among them, and the format of the text.

Tools that OpenAI hosts are left out and named in ``unsupported``, as are sampling parameters, which have no effect: an
app's model is set up in Dify.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from msgspec import Struct, json
from msgspec.structs import astuple

from openai_dify_proxy.translate.openai.parameter_errors import invalid_value, missing_parameter
from openai_dify_proxy.translate.openai.sent_tools import SentTools, decode_part, read_schema
from openai_dify_proxy.translate.openai.tool_choices import read_tool_choice
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, ToolChoice
from openai_dify_proxy.wire.openai.chat import ChatCompletionRequest, CompletionRequest
from openai_dify_proxy.wire.openai.responses import ResponsesRequest
from openai_dify_proxy.wire.openai.tools import FORMAT_KIND, SchemaFields

FORMATS = ("text", "json_object", "json_schema")

_SHARED = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_CHAT = (
    *_SHARED,
    *("audio", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "modalities", "prediction"),
    *("reasoning_effort", "seed", "top_logprobs", "verbosity", "web_search_options"),
)
_COMPLETION = (*_SHARED, "echo", "logit_bias", "logprobs", "max_tokens", "seed", "suffix")
_RESPONSE = (*_SHARED, "max_output_tokens", "max_tool_calls", "top_logprobs")
_WITHOUT_EFFECT = {
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "echo": False,
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "top_logprobs": 0,
    "suffix": "",
}
"""Values that ask for nothing."""

_CHAT_OUTPUT = ("tools", "tool_choice", "functions", "function_call", "response_format")
_RESPONSE_OUTPUT = ("tools", "tool_choice", "text", "reasoning")


class RequestedOutput(Struct, frozen=True):
    """What a request asks of the answer; ``output`` is None for a plain answer.

    ``unsupported`` names the parameters and tools that have no effect.
    """

    output: OutputRequest | None = None
    unsupported: tuple[str, ...] = ()


PLAIN = RequestedOutput()


class _Fields:
    """Some fields of a request type, for a quick test whether a request has any of them.

    ``values`` picks them out of all values of a request of this type, or of a subtype that adds fields. They equal
    ``absent`` if the request has none of them.
    """

    def __init__(self, kind: type[Struct], names: tuple[str, ...]) -> None:
        self.values = itemgetter(*map(kind.__struct_fields__.index, names))
        self.absent = (None,) * len(names)


_CHAT_FIELDS = _Fields(ChatCompletionRequest, (*_CHAT_OUTPUT, *_CHAT))
_COMPLETION_FIELDS = _Fields(CompletionRequest, _COMPLETION)
_RESPONSE_FIELDS = _Fields(ResponsesRequest, (*_RESPONSE_OUTPUT, *_RESPONSE))


def read_chat_output(request: ChatCompletionRequest) -> RequestedOutput:
    """Return what a chat completion request asks of the answer. Raises InvalidRequest."""
    if _CHAT_FIELDS.values(astuple(request)) == _CHAT_FIELDS.absent:
        return PLAIN
    legacy = not request.tools and bool(request.functions or request.function_call)
    sent = SentTools()
    if legacy:
        sent.add_all(request.functions or (), "functions")
        choice = read_tool_choice(sent, _legacy_choice(request.function_call), "function_call", "functions")
    else:
        sent.add_all(request.tools or (), "tools")
        choice = read_tool_choice(sent, request.tool_choice, "tool_choice", "tools")
    answer_format = read_answer_format(request.response_format, "response_format")
    return _requested(sent, choice, request.parallel_tool_calls, answer_format, _ignored(request, _CHAT), legacy=legacy)


def read_completion_output(request: CompletionRequest) -> RequestedOutput:
    """Return what a legacy completion request asks of the answer: plain text."""
    if _COMPLETION_FIELDS.values(astuple(request)) == _COMPLETION_FIELDS.absent:
        return PLAIN
    return RequestedOutput(unsupported=tuple(_ignored(request, _COMPLETION)))


def read_responses_output(request: ResponsesRequest) -> RequestedOutput:
    """Return what a Responses request asks of the answer. Raises InvalidRequest."""
    if _RESPONSE_FIELDS.values(astuple(request)) == _RESPONSE_FIELDS.absent:
        return PLAIN
    sent = SentTools()
    sent.add_all([json.encode(tool) for tool in request.tools or ()], "tools")
    choice = read_tool_choice(sent, request.tool_choice, "tool_choice", "tools")
    text = request.text or {}
    answer_format = read_answer_format(text.get("format"), "text.format")
    ignored = _ignored(request, _RESPONSE)
    nested = (("reasoning.effort", request.reasoning or {}), ("text.verbosity", text))
    ignored += [path for path, fields in nested if fields.get(path.partition(".")[2]) is not None]
    return _requested(sent, choice, request.parallel_tool_calls, answer_format, ignored)


def read_answer_format(value: Any, param: str) -> AnswerFormat | None:
    """Return the format of the text; None for plain text. Raises InvalidRequest."""
    if value is None:
        return None
    document = json.encode(value)
    kind = decode_part(FORMAT_KIND, document, param)
    if kind.type is None:
        raise missing_parameter(f"{param}.type")
    if kind.type not in FORMATS:
        raise invalid_value(f"{param}.type", kind.type, FORMATS)
    if kind.type == "text":
        return None
    if kind.type == "json_object":
        return AnswerFormat(param=param)
    fields: SchemaFields = kind if kind.json_schema is None else kind.json_schema
    place = f"{param}.schema" if kind.json_schema is None else f"{param}.json_schema.schema"
    schema = read_schema(fields.schema, place)
    if schema is None:
        raise missing_parameter(place)
    return AnswerFormat(schema, fields.name or "", fields.description or "", bool(fields.strict), place)


def _requested(
    sent: SentTools,
    choice: ToolChoice,
    parallel: bool | None,
    answer_format: AnswerFormat | None,
    ignored: Sequence[str],
    *,
    legacy: bool = False,
) -> RequestedOutput:
    unsupported = (*sent.others, *ignored)
    if not sent.tools and answer_format is None:
        return RequestedOutput(None, unsupported)
    tools = tuple(sent.tools.values())
    output = OutputRequest(tools, choice, parallel is not False and not legacy, answer_format, legacy)
    return RequestedOutput(output, unsupported)


def _ignored(request: Any, names: Iterable[str]) -> list[str]:
    """Return the names of the fields that ask for something that a Dify app does not do."""
    return [
        name
        for name in names
        if (value := getattr(request, name)) is not None
        and (name not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[name])
    ]


def _legacy_choice(choice: Any) -> Any:
    return {**choice, "type": "function"} if isinstance(choice, dict) else choice
