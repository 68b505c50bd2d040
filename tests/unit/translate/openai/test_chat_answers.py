"""Complete answers in the form of the OpenAI API reference."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from openai_dify_proxy.events import (
    Citation,
    Citations,
    Event,
    FileProduced,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    TurnFinished,
    TurnIds,
    Usage,
)
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_answers import (
    AnswerHead,
    encode_chat_completion,
    encode_text_completion,
    legacy_reply,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall
from tests.tool_events import PATCH, TIME, WEATHER, events_of_calls

HEAD = AnswerHead("chatcmpl-1", 1_700_000_000, "support")
IDS = TurnIds("t-1", "m-1", "c-1", "r-1")
DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def answer_of(*events: Event) -> Answer:
    answer = Answer()
    answer.add(events)
    return answer


def chat(*events: Event, ids: TurnIds = IDS) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_chat_completion(HEAD, answer_of(*events), ids))
    return body


def test_a_chat_completion_has_all_fields_of_the_reference() -> None:
    body = chat(TextDelta("Hel"), TextDelta("lo."), TurnFinished("stop", Usage(9, 2, 11, "0.0001", "USD", 0.8)))
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "support",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, **DETAILS},
        "service_tier": None,
        "dify": {
            "conversation_id": "c-1",
            "message_id": "m-1",
            "task_id": "t-1",
            "workflow_run_id": "r-1",
            "usage": {"total_price": "0.0001", "currency": "USD", "latency": 0.8},
        },
    }


def test_a_text_completion_has_all_fields_of_the_reference() -> None:
    answer = answer_of(TextDelta("Hello."), TurnFinished("length", Usage(9, 2, 11)))
    assert json.loads(encode_text_completion(HEAD, answer, TurnIds())) == {
        "id": "chatcmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "support",
        "choices": [{"text": "Hello.", "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, **DETAILS},
        "dify": {"usage": {}},
    }


@pytest.mark.parametrize("encode", [encode_chat_completion, encode_text_completion])
def test_missing_usage_is_an_estimate(encode: Any) -> None:
    head = AnswerHead("chatcmpl-1", 1_700_000_000, "support", prompt_characters=9)
    body = json.loads(encode(head, answer_of(ReasoningDelta("Hm."), TextDelta("Hello."), TurnFinished("stop")), IDS))
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6, **DETAILS}
    assert body["dify"]["usage_estimated"] is True


def test_an_empty_answer_is_a_string() -> None:
    body = chat(TurnFinished("stop"))
    assert body["choices"][0]["message"]["content"] == ""


def test_reasoning_is_separate_from_the_content() -> None:
    message = chat(ReasoningDelta("hm"), TextDelta("Hello."), TurnFinished("stop"))["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Hello.")


def test_citations_with_a_url_are_annotations_and_all_are_in_the_extension() -> None:
    raw = {"position": 1, "document_name": "Doc", "score": 0.5}
    citations = Citations((Citation("Page", "https://a.example/p", {"position": 2}), Citation("Doc", None, raw)))
    body = chat(TextDelta("Hëllo."), citations, TurnFinished("stop"))
    assert body["choices"][0]["message"]["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {"start_index": 0, "end_index": 6, "url": "https://a.example/p", "title": "Page"},
        }
    ]
    assert body["dify"]["retriever_resources"] == [{"position": 2}, raw]


def test_files_and_replacements_are_in_the_extension() -> None:
    file = FileProduced("http://dify/files/cat.png?sign=s", "image", "cat.png", "image/png", 7)
    body = chat(TextReplaced("Preset.", moderated=True), file, TurnFinished("content_filter"))
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["dify"]["replaced"] is True
    assert body["dify"]["files"] == [
        {
            "url": "http://dify/files/cat.png?sign=s",
            "type": "image",
            "filename": "cat.png",
            "mime_type": "image/png",
            "size": 7,
        }
    ]


@pytest.mark.parametrize("text", ["\u2028", "🤔", "e\u0301", '"\\\x00', "</script>"])
def test_any_text_is_valid_json(text: str) -> None:
    assert chat(TextDelta(text), TurnFinished("stop"))["choices"][0]["message"]["content"] == text


CALLED = TurnFinished("tool_calls", Usage(9, 2, 11))


def test_calls_without_text_have_no_content() -> None:
    body = chat(*events_of_calls(WEATHER, PATCH), CALLED)
    assert body["choices"][0] == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_a",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
                },
                {"id": "call_c", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH.arguments}},
            ],
            "refusal": None,
            "annotations": [],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    ChatCompletion.model_validate(body)
    assert chat(TextDelta("Hm."), *events_of_calls(TIME), CALLED)["choices"][0]["message"]["content"] == "Hm."


def test_a_legacy_function_call_is_the_first_call() -> None:
    answer = answer_of(*events_of_calls(WEATHER, TIME), CALLED)
    head = AnswerHead("chatcmpl-1", 1_700_000_000, "support", legacy_functions=True)
    body = json.loads(encode_chat_completion(head, answer, IDS))
    assert body["choices"][0]["finish_reason"] == "function_call"
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
        "refusal": None,
        "annotations": [],
    }
    ChatCompletion.model_validate(body)
    assert legacy_reply(answer.reply) == HistoryMessage(
        "assistant", "", (ToolCall("", "get_weather", '{"city": "Paris"}'),)
    )
    plain = json.loads(encode_chat_completion(head, answer_of(TurnFinished("stop")), IDS))
    assert plain["choices"][0]["finish_reason"] == "stop"


def test_a_refusal_has_no_content() -> None:
    body = chat(RefusalDelta("I cannot."), TurnFinished("content_filter", Usage(9, 2, 11)))
    message = body["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I cannot.")
