"""Silent, truncated and malformed streams of Dify, with and without streaming to the client."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.errors import SEE_LOG
from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import MODELS, Json, chat_body, chunks_of, error_of, failure_of
from tests.api.conftest import Serve
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    demo_apps,
    frame,
    http_answer,
    message_frame,
    raw_dify,
    scripted,
)
from tests.limits import PATIENCE

both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
EARLY = {"first_event_grace": 0.05}
"""With this short grace the status line is sent before the failure."""


async def failing(http: httpx2.AsyncClient, proxy: ProxyServer, text: str, model: str, *, stream: bool) -> Json:
    """Return the error of a turn that fails, with its status, after checking the response or the last frame."""
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body(text, model, stream=stream))
    if reply.status_code == 200:
        assert stream, reply.text
        return {"status": 200, **failure_of(reply.text)}
    if reply.status_code >= 500:
        assert reply.headers["x-should-retry"] == "false"
    return {"status": reply.status_code, **error_of(reply)}


# Silence


@both_ways
@pytest.mark.parametrize("model", ["demo-chat@1.11", "demo-workflow@1.13", "demo-agent@1.16"])
async def test_a_silent_dify_is_a_timeout(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, model: str, stream: bool
) -> None:
    proxy = serve(silence_timeout=0.3)
    error = await failing(http, proxy, "SILENCE", model, stream=stream)
    assert (error["status"], error["code"]) == (504, "upstream_timeout")


@both_ways
async def test_silence_after_the_status_line_is_an_error_frame(
    serve: Serve, http: httpx2.AsyncClient, stream: bool
) -> None:
    error = await failing(http, serve(silence_timeout=0.4, **EARLY), "SILENCE", "demo-chat", stream=stream)
    assert (error["status"], error["code"]) == (200 if stream else 504, "upstream_timeout")


@both_ways
async def test_a_turn_of_pings_ends_only_at_the_turn_timeout(
    pinging_demo: DemoServer, http: httpx2.AsyncClient, stream: bool
) -> None:
    """Pings reset the silence timeout, so that a queued turn is not cancelled."""
    settings = Settings(
        dify_api_url=pinging_demo.url,
        apps=demo_apps(pinging_demo.url),
        silence_timeout=2,
        turn_timeout=4,
        first_event_grace=PATIENCE,
    )
    with ProxyServer(settings) as proxy:
        error = await failing(http, proxy, "PINGS", "demo-chat", stream=stream)
        assert (error["status"], error["code"]) == (504, "turn_timeout")
    pinging_demo.log.wait(lambda log: log.open_requests == 0)


@both_ways
async def test_a_turn_above_the_turn_timeout_is_stopped_in_dify(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    error = await failing(http, serve(turn_timeout=3), "SLOW:1000x100", "demo-workflow", stream=stream)
    assert (error["status"], error["code"]) == (200 if stream else 504, "turn_timeout")
    await log.wait_for(lambda log: log.runs[0].state == "stopped")
    assert log.stops[0].user == log.runs[0].user


# Truncated streams


@both_ways
@pytest.mark.parametrize("word", ["CUT", "EOF"])
@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_without_a_terminal_event_is_incomplete(
    proxy: ProxyServer, http: httpx2.AsyncClient, model: str, word: str, stream: bool
) -> None:
    error = await failing(http, proxy, f"one two three four five {word}", model, stream=stream)
    assert (error["status"], error["code"]) == (200 if stream else 502, "upstream_incomplete")


# Malformed events


@both_ways
@pytest.mark.parametrize("word", ["GARBAGE", "BADUTF8"])
@pytest.mark.parametrize("model", ["demo-chat", "demo-advanced-chat", "demo-workflow"])
async def test_malformed_events_are_errors(
    proxy: ProxyServer, http: httpx2.AsyncClient, model: str, word: str, stream: bool
) -> None:
    error = await failing(http, proxy, f"one two three four five {word}", model, stream=stream)
    assert (error["status"], error["type"]) == (200 if stream else 502, "api_error")


@both_ways
async def test_an_event_below_the_size_limit_is_forwarded_completely(
    proxy: ProxyServer, http: httpx2.AsyncClient, stream: bool
) -> None:
    reply = await http.post(
        f"{proxy.url}/chat/completions", json=chat_body("SAY<<ab>> OVERSIZE:3000000", stream=stream)
    )
    text = (
        "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks_of(reply.text))
        if stream
        else reply.json()["choices"][0]["message"]["content"]
    )
    assert text.count("x") == 3_000_000


@both_ways
async def test_an_event_above_the_size_limit_is_an_error(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    error = await failing(http, proxy, "one two three OVERSIZE:40000000", "demo-chat", stream=stream)
    assert (error["status"], error["type"]) == (200 if stream else 502, "api_error")
    await log.wait_for(lambda log: log.open_requests == 0)


STRANGE: dict[str, tuple[bytes, ...]] = {
    "answer is a number": (frame("message", answer=5), END),
    "answer is an object": (frame("message", answer={"a": 1}), END),
    "event is a number": (b'data: {"event": 7}\n\n', END),
    "event is missing": (b'data: {"answer": "x"}\n\n', END),
    "metadata is a list": (message_frame("x"), frame("message_end", metadata=[1])),
    "usage is text": (message_frame("x"), frame("message_end", metadata={"usage": "many"})),
    "tokens are text": (message_frame("x"), frame("message_end", metadata={"usage": {"prompt_tokens": "many"}})),
    "a list": (b"data: [1, 2]\n\n", END),
    "null": (b"data: null\n\n", END),
    "text": (b'data: "hi"\n\n', END),
    "nothing": (b"data:\n\n", b"data: \n\n", END),
    "a lone surrogate": (b'data: {"event": "message", "answer": "\\ud800"}\n\n', END),
    "nested too deeply": (b'data: {"event":"message","x":' + b"[" * 100_000 + b"\n\n", END),
    "ids are numbers": (b'data: {"event":"message","answer":"x","task_id":5,"conversation_id":{}}\n\n', END),
    "an unknown event": (frame("quantum_leap", data={"a": 1}), message_frame("x"), END),
    "data of an unknown shape": (frame("node_finished", data=[1]), message_frame("x"), END),
    "resources are text": (message_frame("x"), frame("message_end", metadata={"retriever_resources": "none"})),
    "an error without a message": (frame("error", code=5, status="bad", message=None),),
    "files are text": (message_frame("x"), frame("message_end", metadata={}, files="none")),
}


@both_ways
@pytest.mark.parametrize("case", STRANGE)
async def test_strange_events_end_in_an_answer_or_in_a_clear_error(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, case: str, stream: bool
) -> None:
    """Never in an internal error, and never in a client that waits forever."""
    async with raw_dify(scripted([SSE_HEAD, chunk(*STRANGE[case]), LAST_CHUNK]), at=raw_socket):
        reply = await http.post(f"{raw_proxy.url}/chat/completions", json=chat_body("hi", "raw-chat", stream=stream))
    if reply.status_code != 200:
        error = error_of(reply)
    elif stream and "[DONE]" not in reply.text:
        error = failure_of(reply.text)
    else:
        assert case not in ("nested too deeply", "an error without a message", "a list")
        assert json.loads(reply.text)["choices"] if not stream else chunks_of(reply.text)
        return
    assert error["type"] in ("api_error", "invalid_request_error")
    assert error["code"] != "internal_error"


# Responses that are not event streams


NO_STREAM: dict[str, tuple[bytes, int, str]] = {
    "502 of a balancer": (http_answer(502, b"<html>Bad Gateway</html>", "text/html"), 502, "upstream_error"),
    "503 of a balancer": (http_answer(503, b"<html>busy</html>", "text/html"), 503, "upstream_unreachable"),
    "504 of a balancer": (http_answer(504, b"<html>Timeout</html>", "text/html"), 504, "upstream_timeout"),
    "404 of another server": (http_answer(404, b"<html>Not Found</html>", "text/html"), 502, "upstream_misconfigured"),
    "413 of a balancer": (http_answer(413, b"<html>Too large</html>", "text/html"), 413, "request_too_large"),
    "429 of a balancer": (http_answer(429, b"slow down", "text/plain"), 429, "rate_limit_exceeded"),
    "an empty 500": (http_answer(500, b""), 502, "upstream_error"),
    "a redirection": (
        http_answer(308, b"", "text/html", "Location: https://elsewhere.example/v1/chat-messages"),
        502,
        "upstream_misconfigured",
    ),
    "a page with status 200": (http_answer(200, b"<html>Welcome</html>", "text/html"), 502, "upstream_error"),
    "JSON with status 200": (http_answer(200, b'{"answer": "blocking"}'), 502, "upstream_error"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 502, "upstream_error"),
    "no HTTP": (b"220 smtp.example.com ESMTP\r\n", 502, "upstream_incomplete"),
    "half a status line": (b"HTTP/1.1 20", 502, "upstream_incomplete"),
    "headers only": (SSE_HEAD, 502, "upstream_incomplete"),
    "a wrong length": (
        b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
        502,
        "upstream_error",
    ),
    "a chunk without a size": (SSE_HEAD + b"zzz\r\n", 502, "upstream_incomplete"),
}


@both_ways
@pytest.mark.parametrize("case", NO_STREAM)
async def test_responses_that_are_not_event_streams_are_errors(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, case: str, stream: bool
) -> None:
    answer, status, code = NO_STREAM[case]
    async with raw_dify(scripted([answer]), at=raw_socket) as dify:
        error = await failing(http, raw_proxy, "hi", "raw-chat", stream=stream)
        assert len(dify.turns) == 1, "the turn was sent more than once"
    assert (error["status"], error["code"]) == (status, code)
    assert "elsewhere" not in error["message"]


# The reason in the log

NOT_READY = frame("error", status=400, code="provider_not_initialize", message="No model is set.")
REASON = "Dify cannot run the app (provider_not_initialize): No model is set."


def reasons(logs: list[Any]) -> list[str]:
    return [entry["detail"] for entry in logs if entry.get("detail")]


@both_ways
@pytest.mark.parametrize("text", [b"", message_frame("one")], ids=["at once", "after text"])
async def test_the_log_has_the_reason_that_a_message_refers_to(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, text: bytes, stream: bool
) -> None:
    async with raw_dify(scripted([SSE_HEAD, chunk(text + NOT_READY), LAST_CHUNK]), at=raw_socket):
        with capture_logs() as logs:
            error = await failing(http, raw_proxy, "hi", "raw-chat", stream=stream)
    assert error["message"].endswith(SEE_LOG)
    assert reasons(logs) == [REASON]


async def test_the_log_has_the_reason_of_a_failed_background_response(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient
) -> None:
    body = {"model": "raw-chat", "input": "hi", "background": True, "stream": True}
    async with raw_dify(scripted([SSE_HEAD, chunk(NOT_READY), LAST_CHUNK]), at=raw_socket):
        with capture_logs() as logs:
            reply = await http.post(f"{raw_proxy.url}/responses", json=body)
    assert SEE_LOG in reply.text
    assert reasons(logs) == [REASON]


async def test_the_log_has_the_reason_of_a_failure_after_the_status_line(
    serve: Serve, http: httpx2.AsyncClient
) -> None:
    async def answer(request: RawRequest, writer: Any) -> None:
        await asyncio.sleep(4 * EARLY["first_event_grace"])
        writer.write(http_answer(404, b"<html>", "text/html"))

    async with raw_dify(answer) as dify:
        proxy = serve(dify_api_url=dify.url, apps={"raw": app_settings("raw", "app-raw", dify.url)}, **EARLY)
        with capture_logs() as logs:
            error = await failing(http, proxy, "hi", "raw", stream=True)
    assert (error["status"], error["code"]) == (200, "upstream_misconfigured")
    assert error["message"].endswith(SEE_LOG)
    assert [reason for reason in reasons(logs) if dify.url in reason] == reasons(logs) != []


# Unusual but valid streams


async def read_answer(http: httpx2.AsyncClient, proxy: ProxyServer, model: str = "raw-chat") -> str:
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", model))
    assert reply.status_code == 200, reply.text
    content = reply.json()["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


WHOLE = message_frame("Hällo \u2028") + b"event: ping\n\n" + message_frame("世界") + END
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

VALID: dict[str, list[bytes]] = {
    "one byte at a time": [
        SSE_HEAD,
        *(chunk(WHOLE[at : at + 1]) for at in range(len(WHOLE))),
        LAST_CHUNK,
    ],
    "until the connection's end": [PLAIN_HEAD + b"Connection: close\r\n\r\n", WHOLE],
    "with a length": [PLAIN_HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE), WHOLE],
    "CR LF": [SSE_HEAD, chunk(WHOLE.replace(b"\n", b"\r\n")), LAST_CHUNK],
    "after informational answers": [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        SSE_HEAD + chunk(WHOLE) + LAST_CHUNK,
    ],
    "everything at once": [SSE_HEAD + chunk(WHOLE) + LAST_CHUNK],
    "comments and other fields": [SSE_HEAD, chunk(b": hi\n\nid: 7\nretry: 5\n\n", WHOLE), LAST_CHUNK],
    "no last chunk after the end": [SSE_HEAD, chunk(WHOLE)],
}


@pytest.mark.parametrize("case", VALID)
async def test_a_valid_stream_is_read_however_it_is_framed(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, case: str
) -> None:
    async with raw_dify(scripted(VALID[case]), at=raw_socket) as dify:
        assert await read_answer(http, raw_proxy) == "Hällo \u2028世界"
        assert not dify.stops


async def test_a_stream_that_stays_open_after_its_end_does_not_delay_the_answer(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient
) -> None:
    done = asyncio.Event()

    async def answer(request: RawRequest, writer: Any) -> None:
        writer.write(SSE_HEAD + chunk(WHOLE))
        await done.wait()

    async with raw_dify(answer, at=raw_socket):
        assert await read_answer(http, raw_proxy) == "Hällo \u2028世界"
        done.set()


@pytest.mark.parametrize("first", ["message_end", "workflow_finished"])
async def test_the_wait_for_a_chatflows_second_terminal_event_is_short(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient, first: str
) -> None:
    done = asyncio.Event()
    endings = {"message_end": END, "workflow_finished": frame("workflow_finished", data={"status": "succeeded"})}

    async def answer(request: RawRequest, writer: Any) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one"), endings[first]))
        await done.wait()

    async with raw_dify(answer, "advanced-chat", at=raw_socket):
        assert await read_answer(http, raw_proxy, "raw-advanced-chat") == "one"
        done.set()
