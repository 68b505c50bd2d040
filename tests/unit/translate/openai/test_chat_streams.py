"""Streams in the form of the OpenAI API reference and of recorded answers of OpenAI."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk, ParsedChatCompletionMessage

from openai_dify_proxy.errors import RateLimited, StreamCut
from openai_dify_proxy.events import (
    Citation,
    Citations,
    Event,
    FileProduced,
    ReasoningDelta,
    RefusalDelta,
    Repairs,
    StepChanged,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFailed,
    TurnFinished,
    TurnIds,
    Usage,
)
from openai_dify_proxy.translate.openai.chat_answers import AnswerHead
from openai_dify_proxy.translate.openai.chat_streams import (
    COMMENT,
    DONE,
    ChatStreamEncoder,
    CompletionStreamEncoder,
    StreamEncoder,
    missing_text,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage
from tests.tool_events import PATCH, TIME, WEATHER, events_of_call, events_of_calls

HEAD = AnswerHead("chatcmpl-1", 1_700_000_000, "support")
IDS = TurnIds("t-1", "m-1", "c-1")
IMAGE = FileProduced("http://dify/files/cat.png", "image", "cat.png")
LINK = "![cat.png](http://dify/files/cat.png)"
FINISHED = TurnFinished("stop", Usage(9, 2, 11))


def chat(*, include_usage: bool = False) -> ChatStreamEncoder:
    return ChatStreamEncoder(HEAD, include_usage=include_usage)


def completion(*, include_usage: bool = False) -> CompletionStreamEncoder:
    return CompletionStreamEncoder(HEAD, include_usage=include_usage)


def frames(data: bytes) -> list[Any]:
    """Decode the frames; ``[DONE]`` stays a string. Each frame must be exactly ``data: …`` and an empty line."""
    assert data.endswith(b"\n\n") or not data
    found = []
    for frame in data.split(b"\n\n")[:-1]:
        assert frame.startswith(b"data: ")
        assert b"\n" not in frame
        payload = frame.removeprefix(b"data: ")
        found.append("[DONE]" if payload == b"[DONE]" else json.loads(payload))
    return found


def encoded(encoder: StreamEncoder, *events: Event) -> list[Any]:
    return frames(encoder.encode(events, IDS))


def deltas(found: list[Any]) -> list[Any]:
    return [frame["choices"][0]["delta"] for frame in found if frame != "[DONE]" and frame["choices"]]


def text_of(found: list[Any]) -> str:
    return "".join(delta.get("content", "") for delta in deltas(found))


@pytest.mark.parametrize("text", ['H"i', "\u2028", "\x00", "🤔", '"content":""'])
def test_a_chunk_has_all_fields_of_the_reference(text: str) -> None:
    assert encoded(chat(), TextDelta(text))[1] == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "support",
        "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        "service_tier": None,
    }


def test_a_model_may_have_any_name() -> None:
    encoder = ChatStreamEncoder(AnswerHead("i", 1, 'x","content":"",{'), include_usage=False)
    assert encoded(encoder, TextDelta("a"))[1]["model"] == 'x","content":"",{'


def test_a_chat_stream_from_role_to_done() -> None:
    found = encoded(chat(), TextDelta("Hel"), TextDelta("lo."), FINISHED)
    assert deltas(found) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo."},
        {},
    ]
    assert [frame["choices"][0]["finish_reason"] for frame in found[:-1]] == [None, None, None, "stop"]
    assert found[-1] == "[DONE]"
    assert all("usage" not in frame for frame in found[:-1])
    assert {(frame["id"], frame["created"], frame["model"]) for frame in found[:-1]} == {
        ("chatcmpl-1", 1_700_000_000, "support")
    }


def test_the_role_comes_first_and_once() -> None:
    encoder = chat()
    assert deltas(frames(encoder.open(IDS))) == [{"role": "assistant", "content": "", "refusal": None}]
    assert encoder.open(IDS) == encoder.open() == b""
    assert deltas(encoded(encoder, TextDelta("a"))) == [{"content": "a"}]
    assert deltas(encoded(chat(), ReasoningDelta("hm"))) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"reasoning_content": "hm"},
    ]
    assert deltas(encoded(chat(), FINISHED))[0]["role"] == "assistant"


def test_usage_comes_last_and_only_when_asked() -> None:
    found = encoded(chat(include_usage=True), TextDelta("a"), FINISHED)
    *chunks, usage, done = found
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (9, 2)
    assert usage["usage"]["total_tokens"] == 11


@pytest.mark.parametrize("kind", [ChatStreamEncoder, CompletionStreamEncoder])
def test_missing_usage_is_an_estimate_if_the_client_asks_for_usage(kind: Any) -> None:
    head = AnswerHead("chatcmpl-1", 1_700_000_000, "support", prompt_characters=9)
    *_, last, with_usage, _ = encoded(kind(head, include_usage=True), TextDelta("Hello."), TurnFinished("stop"))
    usage = with_usage["usage"]
    assert [usage[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")] == [3, 2, 5]
    assert last["dify"]["usage_estimated"] is True
    without = encoded(kind(head, include_usage=False), TextDelta("Hello."), TurnFinished("stop"))
    assert "usage_estimated" not in without[-2]["dify"]


def test_the_last_chunk_contains_the_dify_extension() -> None:
    found = encoded(chat(), TextDelta("a"), IMAGE, FINISHED)
    with_dify = [frame for frame in found[:-1] if "dify" in frame]
    first, last = with_dify
    assert first is found[0]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["dify"]["conversation_id"] == "c-1"
    assert last["dify"]["files"][0]["url"] == IMAGE.url


def test_the_first_chunk_has_difys_ids_for_clients_that_cancel() -> None:
    ids = {"conversation_id": "c-1", "message_id": "m-1", "task_id": "t-1"}
    found = encoded(chat(), TextDelta("a"), TextDelta("b"))
    assert [frame.get("dify") for frame in found] == [ids, None, None]


@pytest.mark.parametrize("before", [ChatStreamEncoder.open, ChatStreamEncoder.heartbeat])
def test_ids_that_come_later_have_a_chunk_of_their_own(before: Callable[[ChatStreamEncoder], bytes]) -> None:
    encoder = chat()
    assert all("dify" not in frame for frame in frames(before(encoder)))
    found = encoded(encoder, TextDelta("a"), TextDelta("b"))
    assert deltas(found) == [{}, {"content": "a"}, {"content": "b"}]
    assert ["dify" in frame for frame in found] == [True, False, False]


def test_a_stream_without_ids_has_none() -> None:
    found = frames(chat().encode((TextDelta("a"), TextDelta("b")), TurnIds()))
    assert deltas(found) == [{"role": "assistant", "content": "", "refusal": None}, {"content": "a"}, {"content": "b"}]
    assert not any("dify" in frame for frame in found)


@pytest.mark.parametrize("encoder", [chat(), completion()], ids=["chat", "completion"])
def test_an_error_is_the_last_frame_and_no_regular_end(encoder: StreamEncoder) -> None:
    found = encoded(encoder, TextDelta("Hel"), TurnFailed(StreamCut("It broke off.")))
    assert found[-1] == {
        "error": {"message": "It broke off.", "type": "api_error", "param": None, "code": "upstream_incomplete"}
    }
    assert "[DONE]" not in found
    assert all(frame["choices"][0]["finish_reason"] is None for frame in found[:-1])


def test_an_error_before_anything_is_the_only_frame() -> None:
    assert encoded(chat(), TurnFailed(RateLimited("Later."))) == [
        {"error": {"message": "Later.", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}}
    ]


def test_steps_are_reasoning() -> None:
    found = encoded(chat(), StepChanged("Search", "started"), TextDelta("a"))
    assert deltas(found)[1:] == [{"reasoning_content": "→ Search\n"}, {"content": "a"}]


def test_citations_with_urls_come_once_before_the_end() -> None:
    citations = Citations((Citation("Page", "https://a.example/p", {}), Citation("Doc", None, {"position": 2})))
    found = encoded(chat(), TextDelta("Hello."), citations, FINISHED)
    assert deltas(found)[2:] == [
        {
            "annotations": [
                {
                    "type": "url_citation",
                    "url_citation": {"start_index": 0, "end_index": 6, "url": "https://a.example/p", "title": "Page"},
                }
            ]
        },
        {},
    ]


# The text already sent, its replacement, and the text sent then: a stream cannot retract text.
REPLACEMENTS: dict[str, tuple[str, str, str]] = {
    "something else": ("bad words", "Preset.", "\n\nPreset."),
    "more of the same": ("bad", "bad wolf", " wolf"),
    "the same": ("bad", "bad", ""),
    "nothing": ("bad", "", ""),
    "the first words": ("", "Preset.", "Preset."),
}


@pytest.mark.parametrize(("before", "text", "sent"), REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_replacement_sends_only_the_missing_text(before: str, text: str, sent: str) -> None:
    assert missing_text(before, text) == sent
    events: list[Event] = [TextDelta(before)] if before else []
    found = encoded(chat(), *events, TextReplaced(text, moderated=True), TurnFinished("content_filter"))
    assert text_of(found) == before + sent
    assert all(delta.get("content") != "" for delta in deltas(found)[1:])
    legacy = encoded(completion(), *events, TextReplaced(text, moderated=True), TurnFinished("content_filter"))
    assert "".join(frame["choices"][0]["text"] for frame in legacy[:-1]) == before + sent


def test_files_are_linked_in_the_text() -> None:
    linked = FileProduced("http://dify/files/x", "image", linked=True)
    found = encoded(chat(), IMAGE, TextDelta(" Look."), IMAGE, linked, FINISHED)
    assert text_of(found) == f"{LINK} Look.\n\n{LINK}"
    legacy = encoded(completion(), IMAGE, TextDelta(" Look."), IMAGE, linked, FINISHED)
    assert "".join(frame["choices"][0]["text"] for frame in legacy[:-1]) == f"{LINK} Look.\n\n{LINK}"


def test_heartbeats_are_not_events() -> None:
    encoder = chat()
    assert deltas(frames(encoder.heartbeat())) == [{"role": "assistant", "content": "", "refusal": None}, {}]
    assert deltas(frames(encoder.heartbeat())) == [{}]
    encoder.encode([ReasoningDelta("hm")], IDS)
    assert encoder.heartbeat() == COMMENT
    encoder.encode([TextDelta("a")], IDS)
    assert deltas(frames(encoder.heartbeat())) == [{}]
    assert encoder.answer.text == "a"


CALLED = TurnFinished("tool_calls", Usage(9, 2, 11))


def gathered(found: list[Any]) -> ParsedChatCompletionMessage[Any]:
    """Return the message that the SDK joins from the chunks."""
    state = ChatCompletionStreamState()
    for frame in found[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(frame))
    return state.current_completion_snapshot.choices[0].message


def test_a_call_begins_with_its_name_and_continues_with_its_arguments() -> None:
    encoder = chat()
    found = encoded(encoder, *events_of_call(WEATHER, size=9), CALLED)
    assert deltas(found) == [
        {"role": "assistant", "content": None, "refusal": None},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_a",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
        {},
    ]
    assert found[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert encoder.reply == HistoryMessage("assistant", "", (WEATHER,))


def test_the_sdk_joins_parallel_calls_after_a_text() -> None:
    encoder = chat()
    found = encoded(encoder, TextDelta("Let me look."), *events_of_calls(WEATHER, TIME), CALLED)
    message = gathered(found)
    assert deltas(found)[0]["content"] == ""
    assert message.content == "Let me look."
    assert [call.model_dump(exclude={"function": {"parsed_arguments"}}) for call in message.tool_calls or ()] == [
        {
            "id": call.id,
            "type": "function",
            "index": index,
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate((WEATHER, TIME))
    ]
    assert encoder.reply == HistoryMessage("assistant", "Let me look.", (WEATHER, TIME))


def test_a_custom_call_has_its_own_form() -> None:
    found = encoded(chat(), *events_of_call(PATCH, size=99), CALLED)
    assert deltas(found)[1:3] == [
        {
            "tool_calls": [
                {"index": 0, "id": "call_c", "type": "custom", "custom": {"name": "apply_patch", "input": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "custom": {"input": PATCH.arguments}}]},
    ]


def test_a_legacy_function_call_is_the_first_call() -> None:
    head = AnswerHead("chatcmpl-1", 1_700_000_000, "support", legacy_functions=True)
    encoder = ChatStreamEncoder(head, include_usage=False)
    found = encoded(encoder, *events_of_calls(WEATHER, TIME), CALLED)
    assert deltas(found)[:2] == [
        {"role": "assistant", "content": None, "refusal": None},
        {"function_call": {"name": "get_weather", "arguments": ""}},
    ]
    call = gathered(found).function_call
    assert call is not None
    assert (call.name, call.arguments) == (WEATHER.name, WEATHER.arguments)
    assert found[-2]["choices"][0]["finish_reason"] == "function_call"
    assert not any("tool_calls" in delta for delta in deltas(found))


@pytest.mark.parametrize("text", ['"arguments":""', '"input":""', "%d", "\u2028", "\x00"])
def test_arguments_and_names_may_hold_any_text(text: str) -> None:
    events: list[Event] = [ToolCallStarted(0, text, text), ToolCallDelta(0, text), ToolCallFinished(0), CALLED]
    encoder = ChatStreamEncoder(AnswerHead(text, 1, text), include_usage=True)
    calls = gathered(encoded(encoder, *events)).tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [(text, text, text)]
    custom = encoded(chat(), ToolCallStarted(0, text, text, custom=True), ToolCallDelta(0, text), CALLED)
    assert deltas(custom)[2] == {"tool_calls": [{"index": 0, "custom": {"input": text}}]}


def test_a_refusal_replaces_the_content() -> None:
    encoder = chat()
    found = encoded(encoder, ReasoningDelta("hm"), RefusalDelta("I can"), RefusalDelta("not."), FINISHED)
    assert deltas(found)[2:4] == [{"refusal": "I can"}, {"refusal": "not."}]
    assert gathered(found).refusal == "I cannot."
    assert deltas(encoded(chat(), RefusalDelta("No."), FINISHED))[0] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
    }
    assert encoder.reply == HistoryMessage("assistant", "I cannot.")
    assert deltas(frames(encoder.heartbeat())) == [{}]


def test_repairs_are_in_the_extension() -> None:
    repaired = TurnFinished("stop", Usage(9, 2, 11), repairs=Repairs(2, Usage(4, 1, 5, "0.01", "USD", 0.5)))
    assert encoded(chat(), repaired)[-2]["dify"]["tool_emulation"] == {
        "repairs": 2,
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 1,
            "total_tokens": 5,
            "total_price": "0.01",
            "currency": "USD",
        },
    }
    unknown = TurnFinished("stop", repairs=Repairs(1))
    assert encoded(chat(), unknown)[-2]["dify"]["tool_emulation"] == {"repairs": 1}


def test_a_completion_stream() -> None:
    encoder = completion()
    assert encoder.open() == b""
    found = encoded(
        encoder,
        StepChanged("Search", "started"),
        ReasoningDelta("hm"),
        TextDelta("Hel"),
        Citations(()),
        TextDelta("lo."),
        TurnFinished("length", Usage(9, 2, 11)),
    )
    assert encoder.reply == HistoryMessage("assistant", "Hello.")
    assert found[0] == {
        "id": "chatcmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "support",
        "choices": [{"text": "Hel", "index": 0, "logprobs": None, "finish_reason": None}],
    }
    assert [frame["choices"][0]["text"] for frame in found[:-1]] == ["Hel", "lo.", ""]
    assert [frame["choices"][0]["finish_reason"] for frame in found[:-1]] == [None, None, "length"]
    assert found[-2]["dify"]["message_id"] == "m-1"
    assert found[-1] == "[DONE]"


def test_usage_of_a_completion_stream() -> None:
    *chunks, usage, done = encoded(completion(include_usage=True), TextDelta("a"), FINISHED)
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 11)


def test_heartbeats_of_a_completion_stream_are_not_events() -> None:
    assert [frame["choices"][0]["text"] for frame in frames(completion().heartbeat())] == [""]


@pytest.mark.parametrize("encoder", [chat(), completion()], ids=["chat", "completion"])
def test_the_end_is_done(encoder: StreamEncoder) -> None:
    assert encoder.encode([FINISHED], IDS).endswith(DONE)
    assert encoder.answer.finish_reason == "stop"
