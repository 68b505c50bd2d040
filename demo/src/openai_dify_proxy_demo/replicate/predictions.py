"""The routes that create, return and cancel predictions."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from starlette.responses import Response

from openai_dify_proxy_demo.replicate import runs
from openai_dify_proxy_demo.replicate.calls import CREATION_RATE_LIMIT, ConnectionDropped, ReplicateCall, json_response
from openai_dify_proxy_demo.replicate.errors import (
    ProblemError,
    crashed,
    insufficient_credit,
    invalid_version,
    not_found,
    throttled,
)
from openai_dify_proxy_demo.replicate.log import LoggedCancel, LoggedPrediction
from openai_dify_proxy_demo.replicate.models import DEMO_DEPLOYMENTS, DemoModel, find_model, find_version
from openai_dify_proxy_demo.replicate.prediction_bodies import View, prediction_body, require_prediction
from openai_dify_proxy_demo.replicate.rendering import source_uris, with_defaults
from openai_dify_proxy_demo.replicate.script import ReplicateScript, read_prompt
from openai_dify_proxy_demo.replicate.state import TERMINAL, Prediction, ReplicateState, new_identifier
from openai_dify_proxy_demo.replicate.validation import validate_body, validate_inputs

MAX_WAIT = 60
BROKEN_JSON = b'{"id":"gm3qorzdhgbfurvjtvhg6dckhu","status":"succ'
_DURATION = re.compile(r"(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


async def create(call: ReplicateCall) -> Response:
    body = validate_body(call.body, versioned=True)
    model = find_version(body["version"])
    if model is None:
        raise invalid_version()
    return await _create(call, model, body["input"])


async def create_by_model(call: ReplicateCall) -> Response:
    model = find_model(f"{call.path['owner']}/{call.path['name']}")
    if model is None or not model.official:
        raise not_found()
    return await _create(call, model, validate_body(call.body, versioned=False)["input"])


async def create_by_deployment(call: ReplicateCall) -> Response:
    name = f"{call.path['owner']}/{call.path['name']}"
    model = DEMO_DEPLOYMENTS.get(name)
    if model is None:
        raise not_found()
    return await _create(call, model, validate_body(call.body, versioned=False)["input"], deployment=name)


async def get(call: ReplicateCall) -> Response:
    prediction = require_prediction(call.state, call.path["id"])
    prediction.polls += 1
    if prediction.polls <= _times(prediction.script, "POLLCRASH"):
        return crashed(503)
    if prediction.polls <= _times(prediction.script, "BADPOLL"):
        return Response(BROKEN_JSON, media_type="application/json")
    return json_response(prediction_body(call.state, prediction))


async def cancel(call: ReplicateCall) -> Response:
    prediction = require_prediction(call.state, call.path["id"])
    effective = runs.cancel(call.state, prediction)
    entry = LoggedCancel(prediction.id, effective, time.monotonic())
    call.state.log.change(lambda: call.state.log.cancels.append(entry))
    return json_response(prediction_body(call.state, prediction))


async def _create(
    call: ReplicateCall, model: DemoModel, sent: dict[str, Any], deployment: str | None = None
) -> Response:
    state, headers = call.state, call.request.headers
    inputs = validate_inputs(model, sent)
    deadline = _deadline(headers.get("cancel-after"))
    prompt = str(inputs.get("prompt", ""))
    script = read_prompt(" ".join([prompt, *map(state.follow_up, source_uris(inputs)[:1])]), faults=state.faults)
    _raise_scripted_rejection(state, script, prompt)
    if script.has("CRASH_BEFORE"):
        return crashed(int(script.number("CRASH_BEFORE", 500)))
    prediction = Prediction(
        id=new_identifier(),
        model=model,
        reported_version=f"dp-{model.version[:32]}" if deployment else "hidden" if model.official else model.version,
        inputs=inputs,
        script=script,
        base_url=call.base_url,
        created_at=state.now(),
        record=_record(call, model, sent, inputs, deployment),
        deployment=deployment,
        deadline=deadline,
    )
    prediction.record.id = prediction.id
    state.store(prediction)
    state.log.change(lambda: state.log.predictions.append(prediction.record))
    runs.start(state, prediction)
    return await _answer(state, prediction, _wait_seconds(headers.get("prefer")), headers.get("prefer"))


async def _answer(state: ReplicateState, prediction: Prediction, wait: int | None, prefer: str | None) -> Response:
    script = prediction.script
    if script.has("DROP"):
        raise ConnectionDropped
    if script.has("CRASH_AFTER"):
        return crashed(int(script.number("CRASH_AFTER", 500)))
    await asyncio.sleep(script.number("HOLD", 0))
    if script.has("BADJSON"):
        return Response(BROKEN_JSON, 201, media_type="application/json")
    view: View = "starting" if wait is None else await _wait_for_view(state, prediction, wait)
    headers = {**CREATION_RATE_LIMIT, **({"preference-applied": prefer} if wait and prefer else {})}
    return json_response(prediction_body(state, prediction, view), 201, headers)


async def _wait_for_view(state: ReplicateState, prediction: Prediction, seconds: int) -> View:
    """Wait for outputs, and return how to present the prediction.

    As in Replicate, it is `processing` with inline files as soon as it has outputs, and `starting` after a timeout.
    """
    settled = prediction.script.has("SETTLED")
    try:
        async with asyncio.timeout(seconds * state.timing.second):
            await (prediction.ended if settled else prediction.has_outputs).wait()
    except TimeoutError:
        return "starting"
    if settled or prediction.status in TERMINAL - {"succeeded"}:
        return "now"
    return "early"


def _raise_scripted_rejection(state: ReplicateState, script: ReplicateScript, prompt: str) -> None:
    if script.has("CREDIT"):
        raise insufficient_credit()
    if (throttle := script.throttle) and state.count_throttled(prompt, throttle):
        raise throttled(throttle)


def _record(
    call: ReplicateCall, model: DemoModel, sent: dict[str, Any], inputs: dict[str, Any], deployment: str | None
) -> LoggedPrediction:
    return LoggedPrediction(
        id="",
        model=model.name,
        prompt=str(inputs.get("prompt", "")),
        sent=sent,
        inputs=with_defaults(model, inputs),
        deployment=deployment,
        prefer=call.request.headers.get("prefer"),
        cancel_after=call.request.headers.get("cancel-after"),
        created_at=time.monotonic(),
    )


def _wait_seconds(prefer: str | None) -> int | None:
    """Return the seconds of `Prefer: wait` or `wait=N`, or None without it or outside 1 to 60."""
    found = re.fullmatch(r"wait(?:=(\d+))?", (prefer or "").strip())
    if found is None:
        return None
    seconds = int(found.group(1) or MAX_WAIT)
    return seconds if 1 <= seconds <= MAX_WAIT else None


def _deadline(cancel_after: str | None) -> int | None:
    """Return the seconds of `Cancel-After`, such as `90s`, `2m` or `1h30m`. Raise ProblemError outside 5 s to 24 h."""
    if cancel_after is None:
        return None
    found = _DURATION.fullmatch(cancel_after.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if not 5 <= total <= 24 * 3600:
        raise ProblemError(422, "Cancel-After must be a duration from 5s to 24h", "Invalid Cancel-After header")
    return total


def _times(script: ReplicateScript, word: str) -> int:
    return int(script.number(word, 1)) if script.has(word) else 0
