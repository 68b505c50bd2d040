"""Recorded app descriptions decide which requests the proxy sends to an app."""

from __future__ import annotations

import httpx2
import pytest

from tests.recordings.archive import Recording, has, named
from tests.recordings.replay import replaying
from tests.recordings.sdk_answers import read_answer, read_stream

OLD, LATER, LATEST, MAIN = "dify-1.11.2", "dify-1.13.0", "dify-1.16.1", "dify-1.16.1-main"

APPS = [
    *((folder, "chat", "chat-inputs-1") for folder in (OLD, LATER, LATEST)),
    *((folder, "chatflow", "chatflow-llm-stream-1") for folder in (OLD, LATER, LATEST)),
    *((folder, "completion", "completion-stream") for folder in (OLD, LATER, LATEST)),
    *((folder, "agent", "agent-stream-plain") for folder in (OLD, LATER, LATEST)),
    (LATEST, "agent-new", "newagent-stream-plain"),
    (LATEST, "workflow-json", "workflow-json-object-stream"),
    (MAIN, "agent-new-full", "newagent-full-file-local-image"),
]
"""Version, app, and the name of one of its streams."""


def descriptions(folder: str, app: str) -> dict[str, Recording]:
    names = {"/info": f"meta-info-{app}", "/parameters": f"meta-parameters-{app}"}
    return {path: named(folder, name) for path, name in names.items() if has(folder, name)}


@pytest.mark.parametrize(("folder", "app", "name"), APPS)
async def test_a_request_follows_the_description_of_its_app(folder: str, app: str, name: str) -> None:
    stream = named(folder, name)
    recorded = descriptions(folder, app)
    async with replaying([stream], descriptions=recorded) as replay:
        (answer,) = (await replay.read_json(read_answer, [stream])).values()
        async with replay.proxy.client() as client:
            model = (await client.models.retrieve(stream.label)).to_dict()
    assert answer == stream.expected()["answer"]
    path, body = replay.dify.requests[stream.label]
    assert path == stream.request["path"]
    if "/parameters" in recorded:
        assert body["inputs"].items() >= stream.request_json["inputs"].items()
    extension = model["dify"]
    assert isinstance(extension, dict)
    assert extension["mode"] == stream.mode
    if "/info" in recorded:
        described = {"tags": [], **extension}
        assert {key: described.get(key) for key in recorded["/info"].json()} == recorded["/info"].json()
    if "/parameters" in recorded:
        parameters = recorded["/parameters"].json()
        assert extension.get("opening_statement", "") == (parameters["opening_statement"] or "")
        assert extension.get("suggested_questions", []) == (parameters["suggested_questions"] or [])
        form = [field for item in parameters["user_input_form"] for field in item.values()]
        assert [(field["name"], field["required"]) for field in extension.get("inputs", [])] == [
            (field["variable"], field["required"]) for field in form
        ]


@pytest.mark.parametrize("folder", [OLD, LATER, LATEST])
async def test_a_required_input_that_is_missing_never_reaches_dify(folder: str) -> None:
    """The error names the same input as Dify's own error."""
    refusal = named(folder, "err-chat-required-input-missing")
    async with replaying([refusal], descriptions=descriptions(folder, "chat-required-input")) as replay:
        (chunks,) = (await replay.read_json(read_stream, [refusal])).values()
    assert chunks[0]["status"] == 400
    assert chunks[0]["error"]["param"] == "inputs.topic"
    assert chunks[0]["error"]["param"] == refusal.expected()["answer"]["error"]["param"]
    assert not replay.dify.requests


@pytest.mark.parametrize("folder", [OLD, LATER, LATEST])
@pytest.mark.parametrize("name", ["err-auth-badkey-info", "err-auth-datasetkey"])
async def test_a_wrong_key_is_blamed_on_its_owner(folder: str, name: str) -> None:
    stream = named(folder, "completion-stream")
    async with replaying([stream], descriptions={"/info": named(folder, name)}) as replay:
        (server_key,) = (await replay.read_json(read_answer, [stream])).values()
        async with httpx2.AsyncClient(base_url=replay.proxy.url) as http:
            caller_key = await http.post(
                "chat/completions",
                headers={"Authorization": f"Bearer {stream.key}"},
                json={"model": "any", "messages": [{"role": "user", "content": "hello"}]},
            )
    assert (server_key["status"], server_key["error"]["code"]) == (502, "upstream_misconfigured")
    assert (caller_key.status_code, caller_key.json()["error"]["code"]) == (401, "invalid_api_key")
    assert stream.key not in caller_key.text + str(server_key)
    assert not replay.dify.requests


async def test_a_lost_conversation_is_reported_where_dify_would_hang() -> None:
    """1.13 answers a chatflow turn in a lost conversation with a ping and silence, but its message list reports it."""
    stream = named(LATER, "chatflow-llm-stream-2")
    assert stream.request_json["conversation_id"]
    async with replaying([stream], descriptions={"/messages": named(LATER, "list-messages-otheruser")}) as replay:
        (answer,) = (await replay.read_json(read_answer, [stream])).values()
    assert (answer["status"], answer["error"]["code"]) == (404, "conversation_not_found")
    assert not replay.dify.requests
