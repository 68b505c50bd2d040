"""What apps were recorded to say of themselves decides how they are asked."""

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
"""Version, app, and a stream of that app."""


def descriptions(folder: str, app: str) -> dict[str, Recording]:
    names = {"/info": f"meta-info-{app}", "/parameters": f"meta-parameters-{app}"}
    return {path: named(folder, name) for path, name in names.items() if has(folder, name)}


@pytest.mark.parametrize(("folder", "app", "name"), APPS)
async def test_an_app_is_asked_as_it_describes_itself(folder: str, app: str, name: str) -> None:
    stream = named(folder, name)
    recorded = descriptions(folder, app)
    async with replaying([stream], descriptions=recorded) as replay:
        (answer,) = (await replay.read_json(read_answer, [stream])).values()
        async with replay.proxy.client() as client:
            model = (await client.models.retrieve(stream.label)).to_dict()
    assert answer == stream.expected()["answer"]
    path, body = replay.dify.asked[stream.label]
    assert path == stream.request["path"]
    if "/parameters" in recorded:
        assert body["inputs"].items() >= stream.asked["inputs"].items()
    told = model["dify"]
    assert isinstance(told, dict)
    assert told["mode"] == stream.mode
    if "/info" in recorded:
        assert recorded["/info"].json() == {"tags": [], **{key: told[key] for key in told if key != "inputs"}}
    if "/parameters" in recorded:
        form = [field for item in recorded["/parameters"].json()["user_input_form"] for field in item.values()]
        assert [(field["name"], field["required"]) for field in told.get("inputs", [])] == [
            (field["variable"], field["required"]) for field in form
        ]


@pytest.mark.parametrize("folder", [OLD, LATER, LATEST])
async def test_a_required_input_that_is_missing_never_reaches_dify(folder: str) -> None:
    """Its name is the one that Dify would have complained of."""
    refusal = named(folder, "err-chat-required-input-missing")
    async with replaying([refusal], descriptions=descriptions(folder, "chat-required-input")) as replay:
        (chunks,) = (await replay.read_json(read_stream, [refusal])).values()
    assert chunks[0]["status"] == 400
    assert chunks[0]["error"]["param"] == "inputs.topic"
    assert chunks[0]["error"]["param"] == refusal.expected()["answer"]["error"]["param"]
    assert not replay.dify.asked


@pytest.mark.parametrize("folder", [OLD, LATER, LATEST])
@pytest.mark.parametrize("name", ["err-auth-badkey-info", "err-auth-datasetkey"])
async def test_a_wrong_key_is_the_fault_of_whoever_brought_it(folder: str, name: str) -> None:
    stream = named(folder, "completion-stream")
    async with replaying([stream], descriptions={"/info": named(folder, name)}) as replay:
        (ours,) = (await replay.read_json(read_answer, [stream])).values()
        async with httpx2.AsyncClient(base_url=replay.proxy.url) as http:
            theirs = await http.post(
                "chat/completions",
                headers={"Authorization": f"Bearer {stream.key}"},
                json={"model": "any", "messages": [{"role": "user", "content": "hello"}]},
            )
    assert (ours["status"], ours["error"]["code"]) == (502, "upstream_misconfigured")
    assert (theirs.status_code, theirs.json()["error"]["code"]) == (401, "invalid_api_key")
    assert stream.key not in theirs.text + str(ours)
    assert not replay.dify.asked


async def test_a_lost_conversation_is_told_where_dify_would_hang() -> None:
    """1.13 answers a chatflow's turn in one with a ping and silence, but its list of messages knows."""
    stream = named(LATER, "chatflow-llm-stream-2")
    assert stream.asked["conversation_id"]
    async with replaying([stream], descriptions={"/messages": named(LATER, "list-messages-otheruser")}) as replay:
        (answer,) = (await replay.read_json(read_answer, [stream])).values()
    assert (answer["status"], answer["error"]["code"]) == (404, "conversation_not_found")
    assert not replay.dify.asked
