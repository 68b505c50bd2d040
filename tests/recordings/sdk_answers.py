"""Read the proxy's answers with the official Python client, in a compact form that can be stored and compared.

A stream is a list of its chunks without the fields that all chunks share: the delta's fields, ``finish_reason`` and the
``dify`` object on the last one, and ``usage`` as a separate chunk. An error replaces the missing rest; its ``status``
is None inside a stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import httpx2
from openai import APIError, APIStatusError, AsyncOpenAI, LengthFinishReasonError

from tests.recordings.archive import Json, Recording


async def read_stream(client: AsyncOpenAI, recording: Recording) -> list[Json]:
    """Read ``POST /v1/chat/completions``, streaming."""
    chunks: list[Json] = []
    try:
        stream = await client.chat.completions.create(
            **body_for(recording), stream=True, stream_options={"include_usage": True}
        )
        async for piece in stream:
            chunks.append(compact_chunk(piece.to_dict()))  # noqa: PERF401 - the chunks before an error count
    except APIError as error:
        chunks.append(compact_error(error))
    return chunks


async def read_answer(client: AsyncOpenAI, recording: Recording) -> Json:
    """Read ``POST /v1/chat/completions``, not streaming."""
    try:
        completion = await client.chat.completions.create(**body_for(recording))
    except APIError as error:
        return compact_error(error)
    return compact_answer(completion.to_dict())


async def read_helper(client: AsyncOpenAI, recording: Recording) -> Json:
    """Read a stream through the client's helper, which joins the deltas."""
    body = body_for(recording)
    try:
        async with client.chat.completions.stream(**body) as stream:
            (choice,) = (await stream.get_final_completion()).choices
    except APIError as error:
        return compact_error(error)
    except LengthFinishReasonError as error:  # the helper raises it for every truncated answer
        return {"content": error.completion.choices[0].message.content, "finish_reason": "length"}
    return {"content": choice.message.content, "finish_reason": choice.finish_reason}


async def read_text(client: AsyncOpenAI, recording: Recording) -> Json:
    """Read the legacy ``POST /v1/completions``, streaming: the whole text and its finish reason."""
    body = body_for(recording)
    text = []
    finish_reason: str | None = None
    try:
        stream = await client.completions.create(
            model=body["model"], prompt=body["messages"][0]["content"], extra_body=body["extra_body"], stream=True
        )
        async for piece in stream:
            text.append(piece.choices[0].text)
            if piece.choices[0].finish_reason is not None:
                finish_reason = piece.choices[0].finish_reason
    except APIError as error:
        return compact_error(error)
    return {"content": "".join(text), "finish_reason": finish_reason}


async def read_bytes(http: httpx2.AsyncClient, recording: Recording, *, usage: bool) -> httpx2.Response:
    """Read the raw bytes of a streaming answer with a plain HTTP client."""
    body = body_for(recording)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    return await http.post(
        "chat/completions",
        json={"model": body["model"], "messages": body["messages"], "stream": True} | options | body["extra_body"],
    )


def body_for(recording: Recording) -> Json:
    """Return an OpenAI request equivalent to the recorded one."""
    recorded = recording.request_json
    query = recorded.get("query")
    extra = {}
    if isinstance(recorded.get("inputs"), dict):
        extra["inputs"] = recorded["inputs"]
    if files := uploaded_files(recording):
        extra["files"] = files
    if recording.is_stream and is_uuid(recorded.get("conversation_id")):
        extra["conversation_id"] = recorded["conversation_id"]
    question = query if recording.is_stream and isinstance(query, str) else "hello"
    return {"model": recording.label, "messages": [{"role": "user", "content": question}], "extra_body": extra}


def uploaded_files(recording: Recording) -> list[Json]:
    """Return the files of a recorded turn if they are uploads, in an app whose model receives files."""
    files = recording.request_json.get("files")
    if not recording.is_stream or recording.mode == "agent" or not isinstance(files, list):
        return []
    uploads = [file for file in files if isinstance(file, dict) and file.get("transfer_method") == "local_file"]
    return uploads if len(uploads) == len(files) and all(file.get("upload_file_id") for file in uploads) else []


def is_uuid(text: Any) -> bool:
    try:
        return bool(UUID(text))
    except (TypeError, ValueError, AttributeError):
        return False


def compact_answer(whole: Json) -> Json:
    (choice,) = whole["choices"]
    message = {name: value for name, value in choice["message"].items() if value not in (None, [], "assistant")}
    return {
        **message,
        "finish_reason": choice["finish_reason"],
        "usage": compact_usage(whole.get("usage")),
        "dify": whole["dify"],
    }


def compact_chunk(chunk: Json) -> Json:
    assert chunk["object"] == "chat.completion.chunk"
    if not chunk["choices"]:
        return {"usage": compact_usage(chunk["usage"])}
    (choice,) = chunk["choices"]
    compact: Json = dict(choice["delta"])
    if choice["finish_reason"] is not None:
        compact["finish_reason"] = choice["finish_reason"]
    if "dify" in chunk:
        compact["dify"] = chunk["dify"]
    return compact


def compact_usage(usage: Json | None) -> list[int] | None:
    """Return prompt, completion and total tokens."""
    return None if usage is None else [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]]


def compact_error(error: APIError) -> Json:
    status = error.status_code if isinstance(error, APIStatusError) else None
    return {"status": status, "error": error.body}


def text_of(chunks: Iterable[Json]) -> str:
    """Join the deltas of a stream."""
    return "".join(chunk.get("content") or "" for chunk in chunks)


def differences(got: dict[str, Any], expected: dict[str, Any]) -> str:
    """Describe the differences between two results by label; empty if they are equal."""
    lines = [
        f"{label}\n  got:      {json.dumps(got[label], ensure_ascii=False)}"
        f"\n  expected: {json.dumps(expected[label], ensure_ascii=False)}"
        for label in sorted(got)
        if got[label] != expected[label]
    ]
    return "\n".join(lines)
