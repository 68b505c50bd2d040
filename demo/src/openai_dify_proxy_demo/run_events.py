"""The events of a graph that another request has started (Dify 1.14 and later)."""

from __future__ import annotations

import asyncio
import json

from starlette.responses import HTMLResponse, Response

from openai_dify_proxy_demo.calls import SCRIPTED_ERRORS, Call, is_uuid
from openai_dify_proxy_demo.forms import running_snapshot, snapshot
from openai_dify_proxy_demo.replies import ApiError, EventStream, version_headers
from openai_dify_proxy_demo.runs import PING, Frame, Mark, Run

FRAMES_BEFORE_BREAK = 3
"""How many frames precede the end of an attached stream that breaks off."""


async def run_events(call: Call) -> Response:
    """Stream the events of a run from now on; of a run that has ended, only the last one."""
    if not call.dialect.resumable:
        return HTMLResponse("<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n", 404)
    run_id, user = call.request.path_params["run_id"], call.user
    if not is_uuid(run_id):
        raise SCRIPTED_ERRORS["crash"]
    run = call.state.graph_run(run_id, call.app, user)
    if run is None:
        raise ApiError(404, "not_found", "Workflow run not found")
    cuts = run.form is not None and run.script.form == "cut" and not run.drops
    breaks = cuts or run.drops < run.script.drops
    run.drops += breaks
    shows_state = call.request.query_params.get("include_state_snapshot") == "true"
    if shows_state and run.form is not None:
        return _event_stream(run, _queue(PING, *snapshot(run), Mark.END), FRAMES_BEFORE_BREAK if breaks else None)
    if run.end is not None and not breaks:
        headers = {**version_headers(run.dialect), "cache-control": "no-cache"}
        return Response(f"data: {json.dumps(run.end)}\n\n", 200, headers, "text/event-stream; charset=utf-8")
    frames = run.follow()
    frames.put_nowait(PING)
    if run.end is not None:
        frames.put_nowait(run.end)
    elif shows_state:
        for event in running_snapshot(run):
            frames.put_nowait(event)
    return _event_stream(run, frames, (1 if run.end is not None else FRAMES_BEFORE_BREAK) if breaks else None)


def _queue(*frames: Frame) -> asyncio.Queue[Frame]:
    queue: asyncio.Queue[Frame] = asyncio.Queue()
    for frame in frames:
        queue.put_nowait(frame)
    return queue


def _event_stream(run: Run, frames: asyncio.Queue[Frame], breaks_after: int | None = None) -> Response:
    stream = EventStream(run, frames, breaks_after=breaks_after)
    stream.headers["cache-control"] = "no-cache"
    return stream
