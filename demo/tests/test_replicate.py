"""The API of the scripted Replicate: validation, statuses, errors, files and faults."""

from __future__ import annotations

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from demo.tests.replicate_caller import VERSIONS, ReplicateCaller, opened
from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoReplicate, ReplicateTiming

SCHNELL = "black-forest-labs/flux-schnell"
SDXL = "stability-ai/sdxl"
KONTEXT = "black-forest-labs/flux-kontext-pro"
GATEWAY_ERRORS = (500, 502, 503)


def input_schema(replicate: ReplicateCaller, model: str) -> dict[str, Any]:
    body = replicate.get(f"/models/{model}").json()
    schemas: dict[str, Any] = body["latest_version"]["openapi_schema"]["components"]["schemas"]
    return schemas


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "You did not pass an authentication token"),
        ({"Authorization": "Bearer r8_other"}, "You did not pass a valid authentication token"),
        ({"Authorization": "Basic r8_demo"}, "You did not pass a valid authentication token"),
    ],
)
def test_requests_without_the_token_are_rejected(
    replicate: ReplicateCaller, headers: dict[str, str], detail: str
) -> None:
    for method, path in (("POST", "/predictions"), ("GET", f"/models/{SDXL}"), ("GET", "/files/1")):
        answer = replicate.http.request(method, replicate.server.url + path, headers=headers)
        assert answer.status_code == 401
        assert answer.json() == {"title": "Unauthenticated", "detail": detail, "status": 401}
        assert answer.headers["content-type"] == "application/problem+json"
    assert not any(call.authorized for call in replicate.server.log.calls)


def test_older_authorization_scheme_is_accepted(replicate: ReplicateCaller) -> None:
    headers = {"Authorization": f"Token {replicate.server.token}"}
    assert replicate.http.get(f"{replicate.server.url}/account", headers=headers).status_code == 200


@pytest.mark.parametrize("model", [model.name for model in DEMO_MODELS])
def test_every_model_has_a_schema(replicate: ReplicateCaller, model: str) -> None:
    body = replicate.get(f"/models/{model}").json()
    assert f"{body['owner']}/{body['name']}" == model
    version = body["latest_version"]
    assert replicate.get(f"/models/{model}/versions/{version['id']}").json() == version
    assert version["openapi_schema"]["openapi"] == "3.0.2"
    schemas = version["openapi_schema"]["components"]["schemas"]
    properties = schemas["Input"]["properties"]
    assert sorted(entry["x-order"] for entry in properties.values()) == list(range(len(properties)))
    for name, entry in properties.items():
        if "allOf" in entry:
            assert entry["allOf"] == [{"$ref": f"#/components/schemas/{name}"}]
            assert entry["default"] in schemas[name]["enum"]
            assert {"type", "title"} <= schemas[name].keys()
        else:
            assert entry["type"] in ("string", "integer", "number", "boolean", "array")


def test_schema_has_the_format_of_cog(replicate: ReplicateCaller) -> None:
    schemas = input_schema(replicate, SDXL)
    properties = schemas["Input"]["properties"]
    assert "required" not in schemas["Input"]
    assert properties["num_inference_steps"] == {
        "type": "integer",
        "title": "Num Inference Steps",
        "default": 50,
        "maximum": 500,
        "minimum": 1,
        "x-order": 8,
        "description": "Number of denoising steps",
    }
    assert properties["scheduler"] == {
        "allOf": [{"$ref": "#/components/schemas/scheduler"}],
        "default": "K_EULER",
        "x-order": 7,
        "description": "scheduler",
    }
    assert schemas["scheduler"] == {
        "enum": ["DDIM", "DPMSolverMultistep", "HeunDiscrete", "KarrasDPM", "K_EULER_ANCESTRAL", "K_EULER", "PNDM"],
        "type": "string",
        "title": "scheduler",
        "description": "An enumeration.",
    }
    assert properties["image"] == {
        "type": "string",
        "title": "Image",
        "format": "uri",
        "x-order": 2,
        "description": "Input image for img2img or inpaint mode",
    }
    assert schemas["Output"] == {"type": "array", "items": {"type": "string", "format": "uri"}, "title": "Output"}
    newer = input_schema(replicate, KONTEXT)
    assert newer["Input"]["required"] == ["prompt"]
    assert newer["Input"]["properties"]["seed"]["nullable"] is True
    assert newer["Output"] == {"type": "string", "format": "uri", "title": "Output"}


RANGES: dict[str, dict[str, tuple[float | None, float]]] = {
    "stability-ai/sdxl": {"num_inference_steps": (1, 500), "guidance_scale": (1, 50), "num_outputs": (1, 4)},
    "stability-ai/stable-diffusion": {"num_inference_steps": (1, 500), "guidance_scale": (1, 20)},
    "black-forest-labs/flux-schnell": {"num_inference_steps": (1, 4), "output_quality": (0, 100)},
    "black-forest-labs/flux-dev": {"num_inference_steps": (1, 50), "guidance": (0, 10), "prompt_strength": (0, 1)},
    "black-forest-labs/flux-pro": {"steps": (1, 50), "guidance": (2, 5)},
    "black-forest-labs/flux-kontext-pro": {"safety_tolerance": (0, 6)},
    "ideogram-ai/ideogram-v3-turbo": {"seed": (None, 2147483647)},
    "nightmareai/real-esrgan": {"scale": (0, 10)},
    "bytedance/seedream-4.5": {"max_images": (1, 15)},
    "openai/gpt-image-1": {"number_of_images": (1, 10), "output_compression": (0, 100)},
}
ABSENT = {
    "stability-ai/sdxl": {"output_format", "output_quality", "aspect_ratio"},
    "black-forest-labs/flux-schnell": {"guidance", "guidance_scale", "image", "negative_prompt", "width"},
    "black-forest-labs/flux-pro": {"num_outputs", "num_inference_steps", "guidance_scale", "image"},
    "black-forest-labs/flux-kontext-pro": {"image", "num_outputs", "output_quality", "mask"},
    "xinntao/realesrgan": {"image", "prompt"},
    "bytedance/seedream-4.5": {"seed", "num_outputs"},
    "google/imagen-4-ultra": {"seed", "safety_tolerance"},
}


def test_ranges_and_missing_inputs_match_the_real_models(replicate: ReplicateCaller) -> None:
    for model, ranges in RANGES.items():
        properties = input_schema(replicate, model)["Input"]["properties"]
        assert {name: (properties[name].get("minimum"), properties[name].get("maximum")) for name in ranges} == ranges
    for model, absent in ABSENT.items():
        assert not absent & input_schema(replicate, model)["Input"]["properties"].keys()


def test_unknown_resources_are_404(replicate: ReplicateCaller) -> None:
    for path in (
        *("/models/no/body", f"/models/{SDXL}/versions/{VERSIONS[SCHNELL]}", "/predictions/x", "/files/x"),
        *("/nothing", "/files/x/download"),
    ):
        answer = replicate.get(path)
        assert (answer.status_code, answer.json()["status"]) == (404, 404)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        (SCHNELL, True),
        (f"{SCHNELL}:{VERSIONS[SCHNELL]}", True),
        (VERSIONS[SCHNELL], True),
        (f"{SDXL}:{VERSIONS[SDXL]}", True),
        (VERSIONS[SDXL], True),
        (SDXL, False),
        (f"{SDXL}:{VERSIONS[SCHNELL]}", False),
        ("0" * 64, False),
        ("no/body", False),
        ("", False),
    ],
)
def test_a_version_comes_in_three_forms(replicate: ReplicateCaller, version: str, accepted: bool) -> None:
    answer = replicate.post("/predictions", {"version": version, "input": {"prompt": "a fox"}})
    if accepted:
        assert answer.status_code == 201
    else:
        assert (answer.status_code, answer.json()) == (
            422,
            {
                "title": "Invalid version or not permitted",
                "detail": "The specified version does not exist (or perhaps you don't have permission to use it?)",
                "status": 422,
            },
        )


def test_only_official_models_have_their_own_route(replicate: ReplicateCaller) -> None:
    official = replicate.post(f"/models/{SCHNELL}/predictions", {"input": {"prompt": "a fox"}})
    assert (official.status_code, official.json()["model"], official.json()["version"]) == (201, SCHNELL, "hidden")
    assert replicate.post(f"/models/{SDXL}/predictions", {"input": {"prompt": "a fox"}}).status_code == 404
    deployed = replicate.post("/deployments/demo/sdxl/predictions", {"input": {"prompt": "a fox"}}).json()
    assert (deployed["model"], deployed["deployment"], deployed["version"][:3]) == (SDXL, "demo/sdxl", "dp-")
    assert replicate.post("/deployments/demo/none/predictions", {"input": {}}).status_code == 404


def test_invalid_value_is_reported_with_its_field(replicate: ReplicateCaller) -> None:
    answer = replicate.create(KONTEXT, prompt="a fox", output_format="webp")
    assert answer.status_code == 422
    description = 'output_format must be one of the following: "jpg", "png"'
    assert answer.json() == {
        "detail": f"- input.output_format: {description}\n",
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [{"type": "enum", "field": "input.output_format", "description": description}],
    }


def test_missing_input_is_reported(replicate: ReplicateCaller) -> None:
    answer = replicate.create(SCHNELL, seed=1).json()
    assert answer["invalid_fields"] == [{"type": "required", "field": "input", "description": "prompt is required"}]
    assert answer["detail"] == "- input: prompt is required\n"


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"num_outputs": 5}, ["number_lte input.num_outputs: Must be less than or equal to 4"]),
        ({"num_outputs": 0}, ["number_gte input.num_outputs: Must be greater than or equal to 1"]),
        ({"num_outputs": "2"}, ["invalid_type input.num_outputs: Invalid type. Expected: integer, given: string"]),
        ({"num_outputs": 1.5}, ["invalid_type input.num_outputs: Invalid type. Expected: integer, given: number"]),
        ({"num_outputs": True}, ["invalid_type input.num_outputs: Invalid type. Expected: integer, given: boolean"]),
        ({"seed": [1]}, ["invalid_type input.seed: Invalid type. Expected: integer, given: array"]),
        ({"go_fast": "no"}, ["invalid_type input.go_fast: Invalid type. Expected: boolean, given: string"]),
        ({"prompt": None}, ["invalid_type input.prompt: Invalid type. Expected: string, given: null"]),
        (
            {"num_outputs": 9, "num_inference_steps": 28},
            [
                "number_lte input.num_outputs: Must be less than or equal to 4",
                "number_lte input.num_inference_steps: Must be less than or equal to 4",
            ],
        ),
    ],
)
def test_every_fault_is_listed(replicate: ReplicateCaller, inputs: dict[str, Any], expected: list[str]) -> None:
    answer = replicate.create(SCHNELL, **{"prompt": "a fox", **inputs}).json()
    reported = [f"{entry['type']} {entry['field']}: {entry['description']}" for entry in answer["invalid_fields"]]
    assert reported == expected
    assert answer["detail"] == "".join(f"- {line.partition(' ')[2]}\n" for line in expected)


def test_null_and_whole_floats_pass_where_the_schema_allows_them(replicate: ReplicateCaller) -> None:
    assert replicate.create(SCHNELL, prompt="a fox", seed=None, num_outputs=1.0).status_code == 201
    assert replicate.create(SDXL, prompt="a fox", seed=None).status_code == 422


def test_picture_inputs_must_be_uris(replicate: ReplicateCaller) -> None:
    for wrong in ("fox.png", "", "ftp://host/fox.png", "/tmp/fox.png"):
        answer = replicate.create(KONTEXT, prompt="a fox", input_image=wrong).json()
        assert answer["invalid_fields"][0]["field"] == "input.input_image"
    listed = replicate.create("bytedance/seedream-4.5", prompt="a fox", image_input=["https://a.example/b", "fox"])
    assert listed.json()["invalid_fields"][0]["field"] == "input.image_input.1"


def test_unknown_inputs_are_dropped_silently(replicate: ReplicateCaller) -> None:
    ended = replicate.run(SCHNELL, prompt="a fox", guidance_scale=7.5, negative_prompt="no")
    assert ended["status"] == "succeeded"
    assert ended["input"] == {"prompt": "a fox"}
    assert replicate.server.log.predictions[-1].sent.keys() == {"prompt", "guidance_scale", "negative_prompt"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"version": SCHNELL}, [("required", "input is required")]),
        ({"input": {}}, [("required", "version is required")]),
        (
            {"version": SCHNELL, "input": {}, "model": "x", "n": 1},
            [
                ("additional_property_not_allowed", "Additional property model is not allowed"),
                ("additional_property_not_allowed", "Additional property n is not allowed"),
            ],
        ),
        ([], [("invalid_type", "Invalid type. Expected: object, given: array")]),
    ],
)
def test_the_body_itself_is_checked(replicate: ReplicateCaller, body: Any, expected: list[tuple[str, str]]) -> None:
    answer = replicate.post("/predictions", body)
    assert answer.status_code == 422
    assert [(entry["type"], entry["description"]) for entry in answer.json()["invalid_fields"]] == expected
    assert {entry["field"] for entry in answer.json()["invalid_fields"]} == {""}


def test_route_of_a_model_rejects_a_version(replicate: ReplicateCaller) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox"}}
    answer = replicate.post(f"/models/{SCHNELL}/predictions", body).json()
    assert answer["detail"] == "- Additional property version is not allowed\n"


def test_invalid_json_is_rejected(replicate: ReplicateCaller) -> None:
    headers = {**replicate.headers, "Content-Type": "application/json"}
    answer = replicate.http.post(f"{replicate.server.url}/predictions", content=b'{"input"', headers=headers)
    assert answer.status_code == 400


def test_creation_returns_immediately(replicate: ReplicateCaller) -> None:
    answer = replicate.create(SCHNELL, prompt="a fox SLOW:30")
    body = answer.json()
    assert answer.status_code == 201
    assert "preference-applied" not in answer.headers
    assert int(answer.headers["ratelimit-remaining"]) > 0
    assert int(answer.headers["ratelimit-reset"]) > 0
    assert (body["status"], body["output"], body["error"], body["logs"]) == ("starting", None, None, "")
    assert body["urls"]["get"] == f"{replicate.server.url}/predictions/{body['id']}"
    assert replicate.http.post(body["urls"]["cancel"], headers=replicate.headers).status_code == 200


def test_a_prediction_goes_from_starting_to_its_end(http: httpx2.Client) -> None:
    with DemoReplicate(timing=ReplicateTiming(start=0.05, run=0.05, settle=0.02)) as server:
        replicate = ReplicateCaller(server, http)
        identifier = replicate.create(SDXL, prompt="a fox", seed=7, width=64, height=64).json()["id"]
        body = replicate.ended(identifier)
        assert server.log.predictions[-1].history == ["starting", "processing", "succeeded"]
    assert body["logs"].startswith("Using seed: 7\n")
    assert body["created_at"] < body["started_at"] < body["completed_at"]
    assert body["metrics"]["predict_time"] >= 0.05
    assert body["output"][0].startswith(f"{server.output_origin}/")
    assert body["version"] == VERSIONS[SDXL]


def test_waiting_returns_early_with_inline_files(replicate: ReplicateCaller) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox", "seed": 1}}
    answer = replicate.post("/predictions", body, Prefer="wait=60")
    prediction = answer.json()
    assert answer.headers["preference-applied"] == "wait=60"
    assert (prediction["status"], "completed_at" in prediction) == ("processing", False)
    head, _, payload = prediction["output"][0].partition(",")
    assert head == "data:image/webp;base64"
    later = replicate.ended(prediction["id"])
    assert later["status"] == "succeeded"
    assert replicate.http.get(later["output"][0]).content == base64.b64decode(payload)


def test_waiting_can_return_at_the_end_with_links(replicate: ReplicateCaller) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox SETTLED"}}
    prediction = replicate.post("/predictions", body, Prefer="wait").json()
    assert prediction["status"] == "succeeded"
    assert prediction["output"][0].startswith(replicate.server.output_origin)


def test_wait_that_times_out_returns_a_starting_prediction(replicate: ReplicateCaller) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox SLOW:30"}}
    answer = replicate.post("/predictions", body, Prefer="wait=1")
    assert (answer.json()["status"], answer.json()["output"]) == ("starting", None)
    assert answer.headers["preference-applied"] == "wait=1"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=x", "respond-async"])
def test_other_preferences_are_not_applied(replicate: ReplicateCaller, prefer: str) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox SLOW:30"}}
    answer = replicate.post("/predictions", body, Prefer=prefer)
    assert (answer.status_code, "preference-applied" in answer.headers) == (201, False)


def test_a_failure_ends_the_wait(replicate: ReplicateCaller) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox NSFW"}}
    prediction = replicate.post("/predictions", body, Prefer="wait").json()
    error = "NSFW content detected. Try running it again, or try a different prompt."
    assert (prediction["status"], prediction["error"]) == ("failed", error)


def test_cancelling_ends_a_prediction_once(replicate: ReplicateCaller) -> None:
    created = replicate.create(SCHNELL, prompt="a fox SLOW:30").json()
    replicate.server.log.wait(lambda log: log.predictions[-1].status == "processing")
    first = replicate.http.post(created["urls"]["cancel"], headers=replicate.headers)
    assert (first.status_code, first.json()["status"], first.json()["output"]) == (200, "canceled", None)
    assert first.json()["metrics"]["predict_time"] >= 0
    second = replicate.http.post(created["urls"]["cancel"], headers=replicate.headers)
    assert (second.status_code, second.json()["status"]) == (200, "canceled")
    assert [cancel.effective for cancel in replicate.server.log.cancels] == [True, False]
    assert {cancel.prediction_id for cancel in replicate.server.log.cancels} == {created["id"]}


@pytest.mark.parametrize(("word", "status"), [("COLD:30", "aborted"), ("SLOW:30", "canceled")])
def test_a_deadline_aborts_or_cancels(replicate: ReplicateCaller, word: str, status: str) -> None:
    body = {"version": SCHNELL, "input": {"prompt": f"a fox {word}"}}
    created = replicate.post("/predictions", body, **{"Cancel-After": "5s"}).json()
    assert created["deadline"] > created["created_at"]
    assert replicate.ended(created["id"])["status"] == status
    assert replicate.server.log.predictions[-1].cancel_after == "5s"


@pytest.mark.parametrize(("duration", "accepted"), [("90s", True), ("2m", True), ("1h30m", True), ("300", True)])
def test_accepted_durations(replicate: ReplicateCaller, duration: str, accepted: bool) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox"}}
    assert (replicate.post("/predictions", body, **{"Cancel-After": duration}).status_code == 201) is accepted


@pytest.mark.parametrize("duration", ["4s", "25h", "soon", "", "1.5s"])
def test_rejected_durations(replicate: ReplicateCaller, duration: str) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "a fox"}}
    assert replicate.post("/predictions", body, **{"Cancel-After": duration}).status_code == 422
    assert replicate.server.log.creations() == 0


def test_files_expire_after_a_day(http: httpx2.Client) -> None:
    with DemoReplicate() as server:
        replicate = ReplicateCaller(server, http)
        content = bytes(range(256)) * 3 + b"\r\n--not-a-boundary\r\n\r\n\n"
        answer = http.post(
            f"{server.url}/files",
            headers=replicate.headers,
            files={"content": ("fox.png", content, "image/png")},
            data={"metadata": json.dumps({"by": "me"})},
        )
        body = answer.json()
        assert answer.status_code == 201
        assert (body["name"], body["content_type"], body["size"]) == ("fox.png", "image/png", len(content))
        assert body["checksums"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert body["metadata"] == {"by": "me"}
        assert body["urls"]["get"] == f"{server.url}/files/{body['id']}"
        assert replicate.get(f"/files/{body['id']}").json() == body
        assert replicate.get(f"/files/{body['id']}/download").content == content
        server.skip(24 * 3600)
        assert replicate.get(f"/files/{body['id']}").status_code == 404


def test_files_can_be_deleted(replicate: ReplicateCaller) -> None:
    files = {"content": ("fox.png", b"fox", "image/png")}
    uploaded = replicate.http.post(f"{replicate.server.url}/files", headers=replicate.headers, files=files).json()
    path = f"{replicate.server.url}/files/{uploaded['id']}"
    assert replicate.http.delete(path).status_code == 401
    assert replicate.http.delete(path, headers=replicate.headers).status_code == 204
    assert replicate.http.get(path, headers=replicate.headers).status_code == 404
    assert [file.deleted for file in replicate.server.log.files] == [True]
    missing = replicate.http.post(
        f"{replicate.server.url}/files", headers=replicate.headers, files={"file": ("fox.png", b"fox")}
    )
    assert missing.json()["detail"] == "- content is required\n"


def test_inputs_and_outputs_expire_after_an_hour(http: httpx2.Client) -> None:
    with DemoReplicate() as server:
        replicate = ReplicateCaller(server, http)
        before = replicate.run(SCHNELL, prompt="a fox")
        assert before["data_removed"] is False
        server.skip(3600)
        after = replicate.get(f"/predictions/{before['id']}").json()
        assert (after["status"], after["data_removed"], after["output"], after["input"], after["logs"]) == (
            *("succeeded", True, None),
            *({}, ""),
        )
        assert http.get(before["output"][0]).status_code == 404


def test_token_sent_to_the_output_origin_is_logged(replicate: ReplicateCaller) -> None:
    uri = replicate.run(SCHNELL, prompt="a fox")["output"][0]
    assert replicate.http.get(uri).status_code == 200
    assert not replicate.server.log.leaked_tokens
    replicate.http.get(uri, headers=replicate.headers)
    assert [leak.authorization for leak in replicate.server.log.leaked_tokens] == ["Bearer r8_demo"]
    assert len(replicate.server.log.downloads) == 2


@pytest.mark.parametrize(
    ("prompt", "status"), [("CRASH_BEFORE", 500), ("CRASH_BEFORE:502", 502), ("CREDIT", 402), ("THROTTLE", 429)]
)
def test_rejected_creations_create_nothing(replicate: ReplicateCaller, prompt: str, status: int) -> None:
    assert replicate.create(SCHNELL, prompt=f"a hare {prompt} {status}").status_code == status
    assert (replicate.server.log.attempts("a hare"), replicate.server.log.creations("a hare")) == (1, 0)


def test_crashes_after_acceptance_are_creations(replicate: ReplicateCaller) -> None:
    assert replicate.create(SCHNELL, prompt="CRASH_AFTER:503").status_code == 503
    with pytest.raises(httpx2.RemoteProtocolError):
        replicate.create(SCHNELL, prompt="DROP")
    broken = replicate.create(SCHNELL, prompt="BADJSON")
    assert broken.status_code == 201
    with pytest.raises(json.JSONDecodeError):
        broken.json()
    assert replicate.server.log.creations() == 3


def test_error_for_missing_credit_has_a_link(replicate: ReplicateCaller) -> None:
    body = replicate.create(SCHNELL, prompt="CREDIT").json()
    assert (body["title"], body["status"]) == ("Insufficient credit", 402)
    assert body["detail"].startswith(
        "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing "
    )


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("header", {"header": "3"}),
        ("body", {"body": 3}),
        ("reset", {"reset": "3"}),
        ("text", {"text": "resets in ~3s."}),
        ("none", {}),
    ],
)
def test_throttling_reports_its_delay_in_several_ways(
    replicate: ReplicateCaller, how: str, expected: dict[str, object]
) -> None:
    prompt = f"a fox THROTTLE:{how}:3x2"
    answers = [replicate.create(SCHNELL, prompt=prompt) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 201]
    assert answers[0].json()["detail"].startswith("Request was throttled.")
    ways = {
        "header": answers[0].headers.get("retry-after"),
        "body": answers[0].json().get("retry_after"),
        "reset": answers[0].headers.get("ratelimit-reset"),
        "text": "resets in ~3s." if "resets in ~3s." in answers[0].text else None,
    }
    assert {way: delay for way, delay in ways.items() if delay is not None} == expected
    assert replicate.server.log.creations(prompt) == 1


@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [
        ("NSFW:all", "failed", "All generated images contained NSFW content."),
        (
            "NSFW:E005",
            "failed",
            "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
        ),
        ("FAIL", "failed", "CUDA out of memory."),
        ("FAIL:PA", "failed", "Prediction interrupted; please retry (code: PA)"),
        ("ABORT", "aborted", ""),
        ("CANCELED", "canceled", ""),
    ],
)
def test_prompt_selects_the_final_status(replicate: ReplicateCaller, prompt: str, status: str, error: str) -> None:
    body = replicate.run(SCHNELL, prompt=f"a fox, {prompt}")
    assert (body["status"], body["output"]) == (status, None)
    assert (body["error"] or "").startswith(error)


def test_disabled_safety_checker_lets_pictures_pass(replicate: ReplicateCaller) -> None:
    assert replicate.run(SCHNELL, prompt="NSFW", disable_safety_checker=True)["status"] == "succeeded"


def test_outputs_come_in_many_shapes(replicate: ReplicateCaller) -> None:
    origin = replicate.server.output_origin
    assert isinstance(replicate.run(KONTEXT, prompt="a fox")["output"], str)
    assert len(replicate.run(SCHNELL, prompt="a fox", num_outputs=3)["output"]) == 3
    fewer = replicate.run(SCHNELL, prompt="a fox NSFW_SOME", num_outputs=3)
    assert (fewer["status"], len(fewer["output"])) == ("succeeded", 2)
    assert "showing the rest 2" in fewer["logs"]
    assert replicate.run(SCHNELL, prompt="NULL")["output"] is None
    assert replicate.run(SCHNELL, prompt="EMPTY")["output"] == []
    assert replicate.run(SCHNELL, prompt="OBJECT")["output"]["image"].startswith(origin)
    assert len(replicate.run(SCHNELL, prompt="OBJECT", num_outputs=2)["output"]["images"]) == 2
    assert replicate.run(SCHNELL, prompt="DATAURI")["output"][0].startswith("data:image/webp;base64,")
    assert replicate.run(SCHNELL, prompt="FOREIGN")["output"][0].startswith("https://pictures.example/")


def test_file_output_requires_the_token(replicate: ReplicateCaller) -> None:
    ended = replicate.run(SCHNELL, prompt="FILE")
    uri = ended["output"][0]
    assert uri.startswith(f"{replicate.server.url}/files/")
    assert replicate.get(f"/predictions/{ended['id']}").json()["output"] == [uri]
    assert replicate.http.get(uri).status_code == 401
    assert opened(replicate.http.get(uri, headers=replicate.headers).content).format == "WEBP"


def test_partial_outputs_grow(replicate: ReplicateCaller) -> None:
    body = {"version": SCHNELL, "input": {"prompt": "PARTIAL SLOW:0.2", "num_outputs": 2}}
    early = replicate.post("/predictions", body, Prefer="wait").json()
    assert (early["status"], len(early["output"])) == ("processing", 1)
    assert len(replicate.ended(early["id"])["output"]) == 2


@pytest.mark.parametrize("word", ["POLLCRASH:2", "BADPOLL:2"])
def test_polls_can_fail_before_they_work(replicate: ReplicateCaller, word: str) -> None:
    identifier = replicate.create(SCHNELL, prompt=word).json()["id"]
    answers = [replicate.get(f"/predictions/{identifier}") for _ in range(3)]
    broken = [answer.status_code in GATEWAY_ERRORS or not answer.text.endswith("}\n") for answer in answers]
    assert broken == [True, True, False]


@pytest.mark.parametrize(
    ("word", "status", "media_type"),
    [("GONE", 404, "text/plain"), ("NOTAPICTURE", 200, "text/html"), ("SVG", 200, "image/svg+xml")],
)
def test_outputs_that_are_not_pictures(replicate: ReplicateCaller, word: str, status: int, media_type: str) -> None:
    answer = replicate.http.get(replicate.run(SCHNELL, prompt=word)["output"][0])
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (status, media_type)


def test_outputs_behind_redirects(replicate: ReplicateCaller) -> None:
    private = replicate.http.get(replicate.run(SCHNELL, prompt="REDIRECT_PRIVATE")["output"][0])
    assert (private.status_code, private.headers["location"][:14]) == (302, "http://10.0.0.")
    near = replicate.run(SCHNELL, prompt="REDIRECT")["output"][0]
    assert replicate.http.get(near).status_code == 302
    assert opened(replicate.http.get(near, follow_redirects=True).content).format == "WEBP"
    with pytest.raises(httpx2.TooManyRedirects):
        replicate.http.get(replicate.run(SCHNELL, prompt="REDIRECT_LOOP")["output"][0], follow_redirects=True)


def test_outputs_that_are_too_large(replicate: ReplicateCaller) -> None:
    huge = replicate.run(SCHNELL, prompt="HUGE:3000000")["output"][0]
    assert len(replicate.http.get(huge).content) == 3_000_000
    seen = 0
    endless = replicate.run(SCHNELL, prompt="ENDLESS")["output"][0]
    with replicate.http.stream("GET", endless) as answer:
        assert "content-length" not in answer.headers
        for chunk in answer.iter_bytes():
            seen += len(chunk)
            if seen > 2_000_000:
                break
    replicate.server.log.wait(lambda log: log.open_requests == 0)


def test_download_that_ends_early(replicate: ReplicateCaller) -> None:
    uri = replicate.run(SCHNELL, prompt="CUTBODY")["output"][0]
    with pytest.raises(httpx2.RemoteProtocolError):
        replicate.http.get(uri)


def test_faults_are_off_by_default(http: httpx2.Client) -> None:
    prompt = "DROP BADJSON CRASH_BEFORE NULL OBJECT FOREIGN MISLABEL GONE SVG BOMB CUTBODY HUGE ENDLESS REDIRECT_LOOP"
    with DemoReplicate() as server:
        [data] = ReplicateCaller(server, http).bytes_of(SCHNELL, prompt=prompt)
    assert opened(data).format == "WEBP"


def test_concurrent_creations_are_all_counted(replicate: ReplicateCaller) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda seed: replicate.create(SDXL, prompt="herd", seed=seed, width=64, height=64), range(24))
        )
    assert {answer.status_code for answer in answers} == {201}
    replicate.server.log.wait(lambda log: all(entry.status == "succeeded" for entry in log.predictions))
    assert replicate.server.log.creations("herd") == 24
