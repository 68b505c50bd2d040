"""The routes of paused graphs (Dify 1.14 and later): the form, its answer, and the state of a run."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import HTMLResponse, Response

from openai_dify_proxy_demo.calls import Call, validation_error
from openai_dify_proxy_demo.forms import ACTIONS, Form
from openai_dify_proxy_demo.replies import ApiError
from openai_dify_proxy_demo.script import HUMAN_INPUT_QUESTION

NOT_FOUND = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n"


async def show_form(call: Call) -> Response:
    """Return the form of a paused run."""
    form = _open_form(call)
    if isinstance(form, Response):
        return form
    return call.reply(
        {
            "form_content": f"{HUMAN_INPUT_QUESTION} {{{{#$output.note#}}}}",
            "inputs": form.inputs(),
            "resolved_default_values": {},
            "user_actions": ACTIONS,
            "expiration_time": form.expires_at,
        }
    )


async def submit_form(call: Call) -> Response:
    """Answer the form of a paused run, for any `user` of the app. Its run goes on."""
    body: dict[str, Any] = call.body if isinstance(call.body, dict) else {}
    for name in ("inputs", "action", "user"):
        if name not in body:
            raise validation_error("HumanInputFormSubmitPayload", name, "Field required")
    form = _open_form(call)
    if isinstance(form, Response):
        return form
    action = next((action for action in ACTIONS if action["id"] == body["action"]), None)
    if action is None:
        raise ApiError(400, "invalid_form_data", f"Invalid action: {body['action']}")
    if missing := [
        each["output_variable_name"] for each in form.inputs() if each["output_variable_name"] not in body["inputs"]
    ]:
        raise ApiError(400, "invalid_form_data", f"Missing required inputs: {', '.join(missing)}")
    form.submitted = True
    call.state.resume(form, action, body["inputs"])
    return call.reply({})


async def show_run(call: Call) -> Response:
    """Return the state of a run of the app, of any user."""
    run = call.state.any_graph_run(call.request.path_params["run_id"], call.app)
    if run is None:
        raise ApiError(404, "not_found", "Workflow run not found")
    envelope, finished = run.envelope, (run.end or {}).get("data", {})
    return call.reply(
        {
            "id": envelope.workflow_run_id,
            "workflow_id": envelope.workflow_id,
            "status": "paused" if run.form is not None else finished.get("status", "running"),
            "inputs": json.dumps({"sys.query": run.question}),
            "outputs": finished.get("outputs") or {},
            "error": finished.get("error"),
            "total_steps": finished.get("total_steps", 3),
            "total_tokens": finished.get("total_tokens", 0),
            "created_at": envelope.created_at,
            "finished_at": finished.get("finished_at"),
            "elapsed_time": finished.get("elapsed_time", 0.0),
        }
    )


def _open_form(call: Call) -> Form | Response:
    """Return the form of the path. Raise ApiError if it is closed or not the app's."""
    if not call.dialect.resumable:
        return HTMLResponse(NOT_FOUND, 404)
    token = call.request.path_params["token"]
    form = call.state.forms.get(token)
    if form is None or form.run.app.name != call.app.name:
        path = f"/v1/form/human_input/{token}"
        raise ApiError(
            404,
            "not_found",
            f"Form not found. You have requested this URI [{path}] but did you mean "
            "/v1/form/human_input/<string:form_token> ?",
        )
    if form.submitted:
        raise ApiError(
            412,
            "human_input_form_submitted",
            f"This form has already been submitted by another user, form_id={form.id}",
        )
    if form.expired:
        raise ApiError(412, "human_input_form_expired", f"This form has expired, form_id={form.id}")
    return form
