"""Paused graphs of the demo, beside the recordings of Dify 1.16.1."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from demo.tests.conftest import Caller
from demo.tests.recorded import order, read_events, recording

FLOW, WORKFLOW = "demo-advanced-chat@1.16", "demo-workflow@1.16"
USER = "u1"


def pause(demo: Caller, app: str, question: str = "SAY<<Draft.>> PAUSE") -> dict[str, Any]:
    """Return the event `workflow_paused`."""
    event = read_events(demo.ask(app, question, user=USER).content)[-1]
    assert event["event"] == "workflow_paused"
    return event


def form_path(event: dict[str, Any]) -> str:
    return f"/form/human_input/{event['data']['reasons'][0]['form_token']}"


def test_a_form_has_the_recorded_fields(demo: Caller) -> None:
    found = demo.get(form_path(pause(demo, FLOW)), FLOW)
    assert set(found.json()) == set(recording("1.16.1", "human-form-get").json())


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"inputs": {}, "action": "yes", "user": USER}, "human-form-post-missinginput"),
        ({"inputs": {"note": "fine"}, "user": USER}, "human-form-post-noaction"),
    ],
)
def test_wrong_answers_are_rejected_as_recorded(demo: Caller, body: dict[str, Any], name: str) -> None:
    path = form_path(pause(demo, FLOW))
    rejected = demo.post(path, FLOW, body)
    recorded = recording("1.16.1", name)
    assert (rejected.status_code, rejected.json()["code"]) == (recorded.status, recorded.json()["code"])
    assert rejected.json()["message"].split("[")[0] == recorded.json()["message"].split("[")[0]
    assert demo.post(path, FLOW, {"inputs": {"note": "x"}, "action": "maybe", "user": USER}).status_code == 400
    assert demo.post(path, FLOW, {"inputs": {"note": "x"}, "action": "no", "user": "u2"}).json() == {}


def test_an_answered_form_is_closed_as_recorded(demo: Caller) -> None:
    path = form_path(pause(demo, FLOW))
    answer = {"inputs": {"note": "LGTM"}, "action": "yes", "user": USER}
    assert demo.post(path, FLOW, answer).json() == recording("1.16.1", "human-form-post").json()
    for again, name in (
        (demo.post(path, FLOW, answer), "human-form-get-submitted"),
        (demo.get(path, FLOW), "human-form-get-submitted"),
        (demo.get("/form/human_input/nope", FLOW), "human-form-get-unknown"),
        (demo.get(path, "demo-workflow@1.16"), "human-form-get-unknown"),
    ):
        recorded = recording("1.16.1", name)
        assert (again.status_code, again.json()["code"]) == (recorded.status, recorded.json()["code"])
        assert re.split("form_id|You have", again.json()["message"])[0] in recorded.json()["message"]


def test_forms_that_expire_and_forms_without_a_token(demo: Caller) -> None:
    path = form_path(pause(demo, FLOW, "PAUSE:expired"))
    assert (demo.get(path, FLOW).status_code, demo.get(path, FLOW).json()["code"]) == (412, "human_input_form_expired")
    (reason,) = pause(demo, FLOW, "PAUSE:email")["data"]["reasons"]
    assert (reason["form_token"], reason["approval_channels"]) == (None, ["email"])


@pytest.mark.parametrize("app", [FLOW, WORKFLOW])
def test_a_snapshot_shows_the_form_again(demo: Caller, app: str) -> None:
    paused = pause(demo, app)
    run = paused["workflow_run_id"]
    recorded = recording("1.16.1", "human-events-snapshot-paused").events()
    events = read_events(demo.get(f"/workflow/{run}/events", app, user=USER, include_state_snapshot="true").content)
    assert order(events)[:2] == order(recorded)[:2]
    assert order(events)[-4:] == order(recorded)[-4:]
    assert ("message_replace" in order(events)) == (app == FLOW)
    assert events[-1]["data"]["reasons"] == paused["data"]["reasons"]
    if app == FLOW:
        assert set(events[-1]["data"]) == set(recorded[-1]["data"])
        assert events[-1]["data"]["outputs"]["answer"] == "Draft."


@pytest.mark.parametrize("app", [FLOW, WORKFLOW])
def test_the_state_of_a_run(demo: Caller, app: str) -> None:
    run = pause(demo, app)["workflow_run_id"]
    found = demo.get(f"/workflows/run/{run}", app)
    recorded = recording("1.16.1", "human-run-get-paused").json()
    assert (set(found.json()), found.json()["status"]) == (set(recorded), recorded["status"])
    assert demo.get("/workflows/run/11111111-1111-4111-8111-111111111111", app).status_code == 404


def test_a_run_that_has_ended_before_it_is_read(demo: Caller) -> None:
    paused = pause(demo, FLOW)
    demo.post(form_path(paused), FLOW, {"inputs": {"note": "LGTM"}, "action": "yes", "user": USER})
    demo.log.wait(lambda log: not log.active)
    events = read_events(demo.get(f"/workflow/{paused['workflow_run_id']}/events", FLOW, user=USER).content)
    assert order(events) == order(recording("1.16.1", "human-events-finished").events())
    assert events[-1]["data"]["outputs"]["answer"] == "Draft. Yes: LGTM"
    assert demo.get(f"/workflows/run/{paused['workflow_run_id']}", FLOW).json()["status"] == "succeeded"


def test_the_rest_of_a_run_has_the_recorded_order(demo: Caller) -> None:
    paused = pause(demo, FLOW)
    demo.log.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(demo.get, f"/workflow/{paused['workflow_run_id']}/events", FLOW, user=USER)
        demo.log.wait(lambda log: any(request.path.endswith("/events") for request in log.requests))
        demo.post(form_path(paused), FLOW, {"inputs": {"note": "x"}, "action": "yes", "user": USER})
        events = read_events(reading.result().content)
    recorded = recording("1.16.1", "resume-single-2-resume").events()
    assert order(events) == order(recorded)
    assert set(events[1]["data"]) == set(recorded[1]["data"])
    assert events[1]["data"]["reason"] == recorded[1]["data"]["reason"] == "resumption"


def test_old_versions_have_no_forms(demo: Caller) -> None:
    app = "demo-advanced-chat@1.13"
    assert demo.get(form_path(pause(demo, app)), app).status_code == 404
