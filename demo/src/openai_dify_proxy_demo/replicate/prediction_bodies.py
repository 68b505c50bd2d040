"""Predictions as JSON bodies of the API."""

from __future__ import annotations

import base64
from typing import Any, Literal

from openai_dify_proxy_demo.replicate.errors import not_found
from openai_dify_proxy_demo.replicate.state import (
    Prediction,
    ReplicateState,
    StoredFile,
    StoredOutput,
    new_identifier,
    timestamp,
)

FOREIGN_ORIGIN = "https://pictures.example"
"""The origin of the output links with `FOREIGN`."""

View = Literal["now", "early", "starting"]
"""How to present a prediction: as it is, as `processing` with inline outputs, or as `starting`."""


def prediction_body(state: ReplicateState, prediction: Prediction, view: View = "now") -> dict[str, Any]:
    removed = state.data_removed(prediction)
    status = {"now": prediction.status, "early": "processing", "starting": "starting"}[view]
    shown = view != "starting" and not removed
    body: dict[str, Any] = {
        "id": prediction.id,
        "model": prediction.model.name,
        "version": prediction.reported_version,
        "input": {} if removed else prediction.inputs,
        "logs": prediction.logs if shown else "",
        "output": _output(state, prediction, inline=view == "early") if shown else None,
        "data_removed": removed,
        "error": prediction.error,
        "source": "api",
        "status": status,
        "created_at": timestamp(prediction.created_at),
        "urls": _urls(prediction),
    }
    if prediction.deployment:
        body["deployment"] = prediction.deployment
    if prediction.deadline is not None:
        body["deadline"] = timestamp(prediction.created_at + prediction.deadline)
    return body | _times(prediction, view)


def _times(prediction: Prediction, view: View) -> dict[str, Any]:
    started, completed = prediction.started_at, prediction.completed_at
    times: dict[str, Any] = {}
    if started is not None and view != "starting":
        times["started_at"] = timestamp(started)
    if completed is not None and view == "now":
        times["completed_at"] = timestamp(completed)
        times["metrics"] = {"total_time": completed - prediction.created_at}
        if started is not None:
            times["metrics"] |= {"predict_time": completed - started, "image_count": len(prediction.outputs)}
    return times


def _urls(prediction: Prediction) -> dict[str, str]:
    api = f"{prediction.base_url}/predictions/{prediction.id}"
    return {"cancel": f"{api}/cancel", "get": api, "web": f"https://replicate.com/p/{prediction.id}"}


def _output(state: ReplicateState, prediction: Prediction, *, inline: bool) -> Any:
    script = prediction.script
    if prediction.complete and script.has("NULL"):
        return None
    if prediction.complete and script.has("EMPTY"):
        return []
    uris = [_uri(state, prediction, stored, inline=inline) for stored in prediction.outputs]
    if not uris:
        return None
    if script.has("OBJECT"):
        pictures: dict[str, Any] = {"images": uris} if len(uris) > 1 else {"image": uris[0]}
        return {**pictures, "seed": prediction.seed, "caption": prediction.record.prompt}
    return uris if prediction.model.output == "list" else uris[0]


def _uri(state: ReplicateState, prediction: Prediction, stored: StoredOutput, *, inline: bool) -> str:
    script, rendered = prediction.script, stored.rendered
    if script.has("FOREIGN"):
        return FOREIGN_ORIGIN + stored.path
    if script.has("FILE"):
        return f"{prediction.base_url}/files/{_as_file(state, stored).id}/download"
    if inline or script.has("DATAURI"):
        return f"data:{rendered.media_type};base64,{base64.b64encode(rendered.data).decode()}"
    return state.output_origin + stored.path


def _as_file(state: ReplicateState, stored: StoredOutput) -> StoredFile:
    name = stored.path.rpartition("/")[2]
    for file in state.files.values():
        if file.data is stored.rendered.data:
            return file
    file = StoredFile(new_identifier(), name, stored.rendered.media_type, stored.rendered.data, {}, state.now())
    state.store_file(file)
    return file


def require_prediction(state: ReplicateState, identifier: str) -> Prediction:
    """Return the prediction with this id. Raise ProblemError (404) if there is none."""
    prediction = state.predictions.get(identifier)
    if prediction is None:
        raise not_found()
    return prediction
