"""Image models that Dify apps serve: the Images API over the picture files of an app."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import NotFoundError
from structlog.testing import capture_logs

from openai_dify_proxy.settings import ClientKeySettings, ImageModelSettings, SecretStr
from openai_dify_proxy_demo import DemoLog
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.chat_requests import turns
from tests.api.conftest import Serve
from tests.api.image_requests import picture
from tests.api.servers import ProxyServer
from tests.api.test_files import RED, digest

MODES = ("chat", "agent-chat", "advanced-chat", "completion", "workflow")


def painters() -> dict[str, ImageModelSettings]:
    models = {mode: ImageModelSettings(name=mode, app=f"demo-{mode}-painter") for mode in MODES}
    models["blind"] = ImageModelSettings(name="blind", app="demo-chat-blind")
    return {f"paint-{name}": replace(model, name=f"paint-{name}") for name, model in models.items()}


@pytest.fixture
def painting(serve: Serve, tmp_path: Path) -> ProxyServer:
    """Serve image models of Dify apps, without Replicate."""
    return serve(image_models=painters(), image_model="paint-chat", image_storage_dir=str(tmp_path))


async def test_the_console_offers_pictures(painting: ProxyServer, http: httpx2.AsyncClient) -> None:
    assert (await http.get(f"{painting.origin}/console/session")).json()["has_images"] is True


@pytest.mark.parametrize("version", ["1.11", "1.13", "1.16"])
@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_makes_pictures(serve: Serve, tmp_path: Path, log: DemoLog, mode: str, version: str) -> None:
    model = ImageModelSettings(name="poster", app=f"demo-{mode}-painter@{version}")
    proxy = serve(image_models={"poster": model}, image_storage_dir=str(tmp_path))
    async with proxy.client() as client:
        answer = await client.images.generate(model="poster", prompt="A red fox", response_format="b64_json")
    (made,) = answer.data or []
    assert picture(made.b64_json).size == (256, 256)
    (turn,) = turns(log)
    assert "A red fox" in (turn.body.get("query"), turn.body["inputs"].get("prompt"))


async def test_answers_have_the_forms_of_other_models(painting: ProxyServer, http: httpx2.AsyncClient) -> None:
    url = f"{painting.url}/images/generations"
    linked = (await http.post(url, json={"prompt": "A fox", "response_format": "url"})).json()
    reply = await http.get(linked["data"][0]["url"])
    assert picture(reply.content).format == "PNG"
    raw = await http.post(url, json={"prompt": "A fox"}, headers={"Accept": "image/webp"})
    assert (raw.headers["content-type"], picture(raw.content).format) == ("image/webp", "WEBP")
    assert "/pictures/" in raw.headers["content-location"]
    jpeg = await http.post(url, json={"prompt": "A fox"}, headers={"X-Output-Format": "jpg", "Accept": "image/*"})
    assert picture(jpeg.content).format == "JPEG"
    assert "seed" not in linked["data"][0]
    assert "prediction_id" not in linked["data"][0]


async def test_an_openai_name_that_is_configured_is_not_the_default_model(
    serve_images: Serve, log: DemoLog, predictions: ReplicateLog, http: httpx2.AsyncClient
) -> None:
    models = {
        "poster": ImageModelSettings(name="poster", app="demo-chat-painter"),
        "dall-e-3": ImageModelSettings(name="dall-e-3", model="stability-ai/sdxl"),
    }
    proxy = serve_images(image_models=models, image_model="poster")
    for model in ("dall-e-3", "dall-e-2"):
        body = {"model": model, "prompt": "A fox SETTLED", "size": "64x64"}
        reply = await http.post(f"{proxy.url}/images/generations", json=body)
        assert reply.status_code == 200, reply.text
    assert (len(predictions.predictions), len(turns(log))) == (1, 1)


async def test_n_pictures_are_n_runs(painting: ProxyServer, log: DemoLog) -> None:
    async with painting.client() as client:
        answer = await client.images.generate(model="paint-chat", prompt="Three hills", n=3)
    contents = {made.b64_json for made in answer.data or []}
    assert len(contents) == len(turns(log)) == 3


async def test_a_stream_has_an_event_for_each_picture(painting: ProxyServer, http: httpx2.AsyncClient) -> None:
    body = {"model": "paint-chat", "prompt": "Two lakes", "n": 2, "stream": True}
    reply = await http.post(f"{painting.url}/images/generations", json=body)
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["image_generation.completed"] * 2


async def test_size_and_inputs_reach_an_app_that_has_them(painting: ProxyServer, http: httpx2.AsyncClient) -> None:
    url = f"{painting.url}/images/generations"
    body = {"model": "paint-workflow", "prompt": "A fox", "size": "64x32", "quality": "high"}
    reply = await http.post(url, json=body, headers={"Accept": "image/png"})
    assert picture(reply.content).size == (64, 32)
    assert reply.headers["x-unsupported-parameters"] == "quality"
    reply = await http.post(url, json={"model": "paint-chat", "prompt": "A fox", "size": "64x32"})
    assert reply.headers["x-unsupported-parameters"] == "size"
    more = {"model": "paint-workflow", "prompt": "A fox", "input": {"size": "32x16"}}
    assert picture((await http.post(url, json=more, headers={"Accept": "image/png"})).content).size == (32, 16)


async def test_edits_show_the_image_to_the_app(painting: ProxyServer, log: DemoLog) -> None:
    async with painting.client() as client:
        answer = await client.images.edit(model="paint-chat", image=("a.png", RED), prompt="The same in blue", n=2)
        assert len(answer.data or []) == 2
        answer = await client.images.edit(model="paint-workflow", image=("a.png", RED), prompt="x")
    assert picture((answer.data or [])[0].b64_json).size == (256, 256)
    files = [turn.body.get("files") or turn.body["inputs"].get("pics") for turn in turns(log)]
    assert [len(sent) for sent in files] == [1, 1, 1]
    assert all(f"sha {digest(RED)}" in run.answer for run in log.runs)


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, str], str, str]] = {
    "a header of Replicate": (
        "generations",
        {"prompt": "x"},
        {"X-Replicate-Seed": "7"},
        "X-Replicate-Seed",
        "unsupported_parameter",
    ),
    "an unknown header": (
        "generations",
        {"prompt": "x"},
        {"X-Replicate-Sede": "7"},
        "X-Replicate-Sede",
        "unsupported_parameter",
    ),
    "an unknown input": ("generations", {"prompt": "x", "input": {"a": 1}}, {}, "input.a", "unsupported_parameter"),
    "an image for an app without files": (
        "edits",
        {"model": "paint-blind", "prompt": "x", "image": "https://example.org/a.png"},
        {},
        "image",
        "files_not_enabled",
    ),
    "a mask": (
        "edits",
        {"prompt": "x", "image": "https://example.org/a.png", "mask": "https://example.org/b.png"},
        {},
        "mask",
        "unsupported_parameter",
    ),
    "a variation": ("variations", {"image": "https://example.org/a.png"}, {}, "prompt", "missing_required_parameter"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_request_that_the_app_cannot_answer_is_an_error(
    painting: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, case: str
) -> None:
    operation, body, headers, param, code = REFUSED[case]
    reply = await http.post(f"{painting.url}/images/{operation}", json={"model": "paint-chat"} | body, headers=headers)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)
    assert turns(log) == []


@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [
        ("DRAW:html", 502, "no_picture"),
        ("DRAW:svg", 502, "no_picture"),
        ("DRAW:lying", 502, "no_picture"),
        ("DRAW:gone", 502, None),
        ("ERROR:rate", 429, None),
    ],
)
async def test_what_is_no_picture_is_an_error(
    painting: ProxyServer, http: httpx2.AsyncClient, prompt: str, status: int, code: str | None
) -> None:
    reply = await http.post(f"{painting.url}/images/generations", json={"prompt": prompt})
    assert reply.status_code == status
    assert code is None or reply.json()["error"]["code"] == code


async def test_an_answer_without_a_picture_is_shown_and_not_logged(
    painting: ProxyServer, http: httpx2.AsyncClient
) -> None:
    body = {"model": "paint-blind", "prompt": "SAY<<I may not draw that.>>"}
    with capture_logs() as logs:
        reply = await http.post(f"{painting.url}/images/generations", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (502, "no_picture")
    assert error["message"] == "The app returned no picture: “I may not draw that.” Change the prompt."
    (line,) = [entry for entry in logs if entry["event"] == "request_finished"]
    assert line["reason"] == "The app returned no picture."
    assert "draw" not in str(logs)


async def test_the_models_are_listed_as_those_of_dify(painting: ProxyServer) -> None:
    async with painting.client() as client:
        models = {model.id: model.owned_by async for model in client.models.list()}
        assert {models[f"paint-{mode}"] for mode in MODES} == {"dify"}
        with pytest.raises(NotFoundError, match="is an image model and does not chat"):
            await client.chat.completions.create(model="paint-chat", messages=[{"role": "user", "content": "hi"}])


async def test_a_key_may_be_limited_to_some_image_models(
    serve: Serve, tmp_path: Path, http: httpx2.AsyncClient
) -> None:
    """The key needs the image model, and not the app behind it."""
    key = ClientKeySettings(name="anna", key=SecretStr("sk-" + "a" * 40), models=("paint-chat",))
    proxy = serve(image_models=painters(), keys={"anna": key}, image_storage_dir=str(tmp_path))
    authorized = {"Authorization": f"Bearer {'sk-' + 'a' * 40}"}
    url = f"{proxy.url}/images/generations"
    for model, status in (("paint-chat", 200), ("paint-workflow", 403)):
        reply = await http.post(url, json={"model": model, "prompt": "A fox"}, headers=authorized)
        assert reply.status_code == status
    listed = (await http.get(f"{proxy.url}/models", headers=authorized)).json()["data"]
    assert [model["id"] for model in listed] == ["paint-chat"]
