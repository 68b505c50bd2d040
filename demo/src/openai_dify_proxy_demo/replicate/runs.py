"""Execution of one prediction, from `starting` to its end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any

from openai_dify_proxy_demo.replicate.downloads import with_scripted_content
from openai_dify_proxy_demo.replicate.log import Status
from openai_dify_proxy_demo.replicate.rendering import (
    PredictionFailedError,
    Sources,
    enhanced_prompt,
    picture_count,
    render,
    source_uris,
    with_defaults,
)
from openai_dify_proxy_demo.replicate.state import TERMINAL, Prediction, ReplicateState

NSFW_ERRORS = {
    "": "NSFW content detected. Try running it again, or try a different prompt.",
    "all": "All generated images contained NSFW content. Try running it again with a different prompt.",
    "E005": "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
}
"""The errors of `NSFW`, `NSFW:all` and `NSFW:E005`."""

FAILURES = {
    "": "CUDA out of memory. Tried to allocate 20.00 GiB (GPU 0; 39.59 GiB total capacity)",
    "PA": "Prediction interrupted; please retry (code: PA)",
    "E1000": "Unknown error. Please try again. (E1000)",
}
"""The errors of `FAIL` and its variants."""


def start(state: ReplicateState, prediction: Prediction) -> None:
    """Execute the prediction in the background, until its deadline at most."""
    prediction.task = asyncio.create_task(_execute(state, prediction))
    prediction.task.add_done_callback(lambda task: _settle(state, prediction, task))
    if prediction.deadline is not None:
        delay = prediction.deadline * state.timing.second
        asyncio.get_running_loop().call_later(delay, _expire, state, prediction)


def cancel(state: ReplicateState, prediction: Prediction) -> bool:
    """Cancel the prediction. Return False if it had already ended."""
    return _end_early(state, prediction, "canceled")


def _settle(state: ReplicateState, prediction: Prediction, task: asyncio.Task[Status]) -> None:
    """Record the result of the model. As in Cog, an exception becomes the prediction's error."""
    if task.cancelled() or prediction.status in TERMINAL:
        return
    if (error := task.exception()) is not None:
        _finish(state, prediction, "failed", str(error))
    else:
        _finish(state, prediction, task.result())


async def _execute(state: ReplicateState, prediction: Prediction) -> Status:
    script, timing = prediction.script, state.timing
    await asyncio.sleep(script.seconds("COLD", timing.start))
    if script.has("ABORT"):
        return "aborted"
    prediction.started_at = state.now()
    _set_status(state, prediction, "processing")
    sources = await asyncio.to_thread(_sources, state, prediction.inputs)
    if not script.has("PARTIAL"):
        await asyncio.sleep(script.seconds("SLOW", timing.run))
    _raise_scripted_failure(prediction)
    if script.has("CANCELED"):
        return "canceled"
    await _make_outputs(state, prediction, sources)
    prediction.complete = True
    prediction.has_outputs.set()
    await asyncio.sleep(timing.settle)
    return "succeeded"


def _sources(state: ReplicateState, inputs: Mapping[str, Any]) -> Sources:
    uris = source_uris(inputs)
    mask = inputs.get("mask")
    return Sources(state.picture(uris[0]) if uris else None, state.picture(mask) if mask else None)


def _raise_scripted_failure(prediction: Prediction) -> None:
    script = prediction.script
    if script.has("NSFW") and not prediction.inputs.get("disable_safety_checker"):
        raise PredictionFailedError(NSFW_ERRORS.get(script.words["NSFW"], NSFW_ERRORS[""]))
    if script.has("FAIL"):
        raise PredictionFailedError(FAILURES.get(script.words["FAIL"], FAILURES[""]))


async def _make_outputs(state: ReplicateState, prediction: Prediction, sources: Sources) -> None:
    script, model = prediction.script, prediction.model
    inputs = with_defaults(model, prediction.inputs)
    seed = inputs.get("seed")
    prediction.seed = secrets.randbelow(65536) if seed is None else int(seed)
    prediction.logs = f"Using seed: {prediction.seed}\nPrompt: {enhanced_prompt(inputs)}\n"
    count = picture_count(inputs)
    shown = max(1, count - 1) if script.has("NSFW_SOME") else count
    if shown < count:
        prediction.logs += f"NSFW content detected in {count - shown} of the outputs, showing the rest {shown}...\n"
    for index in range(shown):
        if script.has("PARTIAL"):
            await asyncio.sleep(script.seconds("SLOW", state.timing.run))
        rendered = await asyncio.to_thread(
            render,
            model,
            inputs,
            sources,
            prediction.seed + index,
            metadata=script.has("METADATA"),
            transparent=script.has("TRANSPARENT"),
            mislabelled=script.has("MISLABEL"),
        )
        stored = state.store_output(
            await asyncio.to_thread(with_scripted_content, script, rendered), script, f"out-{index}"
        )
        prediction.outputs.append(stored)
        state.log.change(lambda: setattr(prediction.record, "outputs", len(prediction.outputs)))
        if script.has("PARTIAL"):
            prediction.has_outputs.set()


def _expire(state: ReplicateState, prediction: Prediction) -> None:
    _end_early(state, prediction, "aborted" if prediction.status == "starting" else "canceled")


def _end_early(state: ReplicateState, prediction: Prediction, status: Status) -> bool:
    if prediction.status in TERMINAL:
        return False
    prediction.outputs.clear()
    _finish(state, prediction, status)
    if prediction.task is not None:
        prediction.task.cancel()
    return True


def _finish(state: ReplicateState, prediction: Prediction, status: Status, error: str | None = None) -> None:
    prediction.error = error
    prediction.completed_at = state.now()
    _set_status(state, prediction, status)
    prediction.has_outputs.set()
    prediction.ended.set()


def _set_status(state: ReplicateState, prediction: Prediction, status: Status) -> None:
    prediction.status = status
    record = prediction.record

    def change() -> None:
        record.status = status
        record.history.append(status)
        record.completed_at = time.monotonic() if status in TERMINAL else None

    state.log.change(change)
