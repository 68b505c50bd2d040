"""HTTP responses in Dify's format: JSON bodies, errors and event streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openai_dify_proxy_demo.dialects import Dialect
from openai_dify_proxy_demo.events import Event
from openai_dify_proxy_demo.runs import PING, Frame, Mark, Run


class ApiError(Exception):
    """Raised to respond with an error in Dify's format."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> dict[str, Any]:
        if self.code == "unknown":
            return {"message": self.message, "code": self.code, "status": self.status}
        return {"code": self.code, "message": self.message, "status": self.status}


def version_headers(dialect: Dialect) -> dict[str, str]:
    """Return the headers that every response of a version has."""
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "X-Env, X-Trace-Id, X-Version",
        "X-Version": dialect.server_version,
        "X-Env": "PRODUCTION",
    }
    if dialect.gunicorn_headers:
        return {"Server": "gunicorn", "Connection": "keep-alive", **headers}
    return {**headers, "Vary": "Cookie"}


def json_reply(body: Any, dialect: Dialect, status: int = 200) -> Response:
    """Return a compact JSON body with escaped slashes, the format of all routes but the generating ones."""
    text = json.dumps(body, separators=(",", ":")).replace("/", "\\/")
    return Response(text + "\n", status, version_headers(dialect), "application/json")


def generated_reply(body: Any, dialect: Dialect) -> Response:
    """Return the body of a blocking run, the output of `json.dumps`."""
    return Response(json.dumps(body), 200, version_headers(dialect), "application/json")


def error_response(error: ApiError, dialect: Dialect) -> Response:
    response = json_reply(error.body(), dialect, error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="api"'
    return response


def frame_bytes(frame: Event | bytes, dialect: Dialect) -> bytes:
    """Encode one SSE frame. Newer versions escape only quotes, backslashes and control characters."""
    if isinstance(frame, bytes):
        return frame
    if not dialect.compact_json:
        return f"data: {json.dumps(frame)}\n\n".encode()
    return b"data: " + msgspec.json.encode(frame) + b"\n\n"


class EventStream(Response):
    """The event stream of a run. Headers are sent with the first frame; the run continues if the client disconnects."""

    media_type = "text/event-stream; charset=utf-8"

    def __init__(
        self, run: Run, frames: asyncio.Queue[Frame] | None = None, *, breaks_after: int | None = None
    ) -> None:
        """`frames` are those of a later reader; `breaks_after` is the number after which the connection is aborted."""
        super().__init__(None, 200, version_headers(run.dialect))
        del self.headers["content-length"]
        self.run = run
        self.frames = run.frames if frames is None else frames
        self.breaks_after = breaks_after
        self.next_ping = run.started + run.timing.ping
        self.started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(self._watch(receive))
        try:
            await self._pump(send)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _pump(self, send: Send) -> None:
        while True:
            frame = await self._next_frame()
            if frame is Mark.DISCONNECTED:
                return self._record_disconnect()
            if frame is Mark.CUT or self.breaks_after == 0:
                return None
            if self.breaks_after is not None:
                self.breaks_after -= 1
            await self._begin(send)
            if frame is Mark.END:
                return await send({"type": "http.response.body", "body": b""})
            assert not isinstance(frame, Mark)
            body = frame_bytes(frame, self.run.dialect)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            if self.run.record.first_event_at is None and isinstance(frame, dict):
                self.run.log.change(self._record_first_event)

    async def _next_frame(self) -> Frame:
        frames = self.frames
        while True:
            if not frames.empty():
                return frames.get_nowait()
            try:
                async with asyncio.timeout(max(0.0, self.next_ping - time.monotonic())):
                    return await frames.get()
            except TimeoutError:
                self.next_ping += self.run.timing.ping
                if self.run.pings and frames.empty():
                    return PING

    async def _begin(self, send: Send) -> None:
        if not self.started:
            self.started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        self.frames.put_nowait(Mark.DISCONNECTED)

    def _record_disconnect(self) -> None:
        if self.run.record.state != "running":
            return
        self.run.log.change(lambda: setattr(self.run.record, "disconnected_at", time.monotonic()))

    def _record_first_event(self) -> None:
        self.run.record.first_event_at = time.monotonic()
