"""Decode and encode recorded answers without a socket."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from openai_dify_proxy.events import TurnFailed
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.openai.chat_answers import AnswerHead, encode_chat_completion
from openai_dify_proxy.translate.openai.chat_streams import ChatStreamEncoder
from openai_dify_proxy.wire.dify import Mode
from tests.recordings.archive import Json, Recording
from tests.recordings.sdk_answers import body_for, compact_answer, compact_chunk


def translated(recording: Recording, parts: Iterable[bytes]) -> Json:
    """Translate a recording to a stream and to a complete answer."""
    question = body_for(recording)["messages"][0]["content"]
    head = AnswerHead("chatcmpl-1", 1_700_000_000, "support", prompt_characters=len(question))
    decoder = DifyEventDecoder(cast(Mode, recording.mode), origin="http://dify.test")
    encoder = ChatStreamEncoder(head, include_usage=True)
    sent = b""
    failed: TurnFailed | None = None
    for part in (*parts, None):
        events = decoder.finish() if part is None else decoder.feed(part)
        failed = next((event for event in events if isinstance(event, TurnFailed)), failed)
        if failed is not None and not sent and events[0] is failed:  # the error sets the HTTP status
            refusal = {"status": failed.error.status, "error": error_body(encoder.encode(events, decoder.ids))}
            return {"stream": [refusal], "answer": refusal}
        sent += encoder.encode(events, decoder.ids)
    if failed is not None:
        *_, last = chunks = compact_frames(sent)
        return {"stream": chunks, "answer": last | {"status": failed.error.status}}
    whole = json.loads(encode_chat_completion(head, encoder.answer, decoder.ids))
    return {"stream": compact_frames(sent), "answer": compact_answer(ChatCompletion.construct(**whole).to_dict())}


def compact_frames(sent: bytes) -> list[Json]:
    payloads = [json.loads(frame[6:]) for frame in sent.split(b"\n\n")[:-1] if frame != b"data: [DONE]"]
    return [
        {"status": None, "error": payload["error"]}
        if "error" in payload
        else compact_chunk(ChatCompletionChunk.construct(**payload).to_dict())
        for payload in payloads
    ]


def error_body(frame: bytes) -> Any:
    return json.loads(frame.removesuffix(b"\n\n")[6:])["error"]
