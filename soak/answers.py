"""Reads the answers of the proxy strictly: whatever is not a complete answer is a failure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bench.client import Answer

_BACKGROUND_FAILURES = {
    "The server process that ran": "worker_died",
    "The server was shut down": "shutting_down",
}

_FRAME = re.compile(rb"^data: (.*)$", re.MULTILINE)


class Failed(Exception):
    """An answer that names its failure, or a connection that broke off."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Wrong(Exception):
    """An answer that claims to be complete, and is not the one that was asked for. ``text`` is its text."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text[:300]}")
        self.text = text


def envelope(answer: Answer) -> Failed:
    """Return the error of an answer with another status than 200. Raises Wrong if it has no envelope of the proxy."""
    try:
        error = msgspec.json.decode(answer.body)["error"]
        return Failed(error["code"] or error["type"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        if b"nginx" in answer.body:  # no replica has answered
            return Failed(f"balancer_{answer.status}")
        raise Wrong(f"status {answer.status} without an error", answer.body.decode(errors="replace")) from None


def failed_response(response: dict[str, Any]) -> Failed:
    """Return the failure of a background response. Its code is ``server_error`` for most; the message says more."""
    error = response["error"] or {"code": response["status"], "message": ""}
    for beginning, code in _BACKGROUND_FAILURES.items():
        if error["message"].startswith(beginning):
            return Failed(code)
    return Failed(error["code"])


def chat_stream(answer: Answer) -> str:
    """Return the text of a complete stream of chunks."""
    frames = _frames(answer)
    if not frames or frames[-1] != b"[DONE]":
        raise Failed("stream_cut")
    text, reasons = "", []
    for frame in frames[:-1]:
        for choice in msgspec.json.decode(frame)["choices"]:
            text += choice["delta"].get("content") or ""
            reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
    if reasons != ["stop"]:
        raise Wrong(f"finish reasons {reasons}", text)
    return text


def response_stream(answer: Answer) -> str:
    """Return the text of a complete stream of response events."""
    frames = [frame for frame in _frames(answer) if frame != b"[DONE]"]
    last: dict[str, Any] = msgspec.json.decode(frames[-1]) if frames else {"type": ""}
    if last["type"] == "response.failed":
        raise Failed(last["response"]["error"]["code"])
    if last["type"] != "response.completed":
        raise Failed("stream_cut")
    return text_of_response(last["response"])


def text_of_chat(answer: Answer) -> str:
    """Return the text of a whole chat completion."""
    if answer.status != 200:
        raise envelope(answer)
    choice = msgspec.json.decode(answer.body)["choices"][0]
    text: str = choice["message"]["content"]
    if choice["finish_reason"] != "stop":
        raise Wrong(f"finish reason {choice['finish_reason']}", text)
    return text


def text_of_response(response: dict[str, Any]) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


def _frames(answer: Answer) -> list[bytes]:
    """Return the frames of a stream. Raises Failed for an error, before the stream or in it."""
    if answer.status != 200:
        raise envelope(answer)
    frames = _FRAME.findall(answer.body)
    if frames and b'"error":{' in frames[-1] and b'"type":"response.' not in frames[-1]:
        error = msgspec.json.decode(frames[-1])["error"]
        raise Failed(error["code"] or error["type"])
    return frames
