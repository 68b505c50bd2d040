"""``GET /openapi.json``, and the answers of every route compared with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from PIL import Image

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.replicate import DemoReplicate, ReplicateLog
from tests.api.audio_requests import wav
from tests.api.chat_requests import Json
from tests.api.conftest import Serve
from tests.api.described import Described
from tests.api.image_requests import image_settings, png, small
from tests.api.servers import ProxyServer, demo_apps

CHAT = {"model": "demo-chat", "messages": [{"role": "user", "content": "Hello CITE FILE"}]}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def running(
    demo: DemoServer, replicate: DemoReplicate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyServer]:
    images = image_settings(replicate, tmp_path_factory.mktemp("pictures"))
    settings = Settings(
        dify_api_url=demo.url,
        apps=demo_apps(demo.url),
        state_url=SecretStr("memory://"),
        dify_max_concurrent="off",
        ipfs_upload_url="http://127.0.0.1:9",  # pictures stay pending
        **images,
    )
    with ProxyServer(settings) as proxy:
        yield proxy


class Caller:
    """Sends requests whose answers must be as described."""

    def __init__(self, http: httpx2.AsyncClient, origin: str, described: Described) -> None:
        self._http = http
        self._origin = origin
        self.described = described

    async def __call__(self, route: str, *names: str, status: int = 200, **options: Any) -> httpx2.Response:
        """Send a request for ``route``; ``names`` are the values of its path parameters."""
        method, path = route.split(" ")
        for name in names:
            before, _, after = path.partition("{")
            path = f"{before}{name}{after.partition('}')[2]}"
        reply = await self._http.request(method, self._origin + path, **options)
        assert reply.status_code == status, reply.text
        self.described.check(route, reply.status_code, reply.headers.get("content-type", ""), reply.content)
        return reply


@pytest.fixture
async def described(http: httpx2.AsyncClient, running: ProxyServer) -> Described:
    return Described((await http.get(f"{running.origin}/openapi.json")).json())


@pytest.fixture
def call(http: httpx2.AsyncClient, running: ProxyServer, described: Described) -> Caller:
    return Caller(http, running.origin, described)


async def test_the_document_needs_no_key_and_is_cached(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(api_keys=(SecretStr("sk-one"),))
    reply = await http.get(f"{proxy.origin}/openapi.json")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    etag = reply.headers["etag"]
    for sent in (etag, f'"other", W/{etag}', "*"):
        cached = await http.get(f"{proxy.origin}/openapi.json", headers={"If-None-Match": sent})
        assert (cached.status_code, cached.content, cached.headers["etag"]) == (304, b"", etag)
    fresh = await http.get(f"{proxy.origin}/openapi.json", headers={"If-None-Match": '"other"'})
    assert fresh.content == reply.content


async def test_the_document_reveals_nothing_of_the_configuration(serve: Serve, http: httpx2.AsyncClient) -> None:
    one, other = serve(), serve(api_keys=(SecretStr("sk-secret"),), public_url="https://proxy.example")
    documents = [await http.get(f"{proxy.origin}/openapi.json") for proxy in (one, other)]
    assert documents[0].content == documents[1].content


async def test_every_route_answers_as_described(
    call: Caller, running: ProxyServer, log: DemoLog, predictions: ReplicateLog
) -> None:
    await _server(call)
    await _chats(call)
    await _responses(call)
    await _conversations(call)
    await _files(call)
    await _images(call)
    await _audio(call)
    answered = {route for route, status, _ in call.described.seen if status < 300}
    assert call.described.routes == answered
    streams = {route for route, _, kind in call.described.seen if kind == "text/event-stream"}
    assert streams == {
        f"{method.upper()} {path}"
        for path, methods in call.described.document["paths"].items()
        for method, operation in methods.items()
        if "text/event-stream" in operation["responses"]["200"].get("content", {})
    } - {"POST /v1/images/variations"}


async def _server(call: Caller) -> None:
    for route in ("GET /health", "GET /ready", "GET /metrics", "GET /openapi.json", "GET /v1/models", "GET /v1/usage"):
        await call(route)
    for model in ("demo-chat", "stability-ai/sdxl"):
        await call("GET /v1/models/{model}", model)
    await call("GET /v1/models/{model}", "unknown", status=404)
    await call("GET /v1/usage", params={"by": "week"}, status=400)


async def _chats(call: Caller) -> None:
    chat = "POST /v1/chat/completions"
    answer = (await call(chat, json=CHAT)).json()
    await call(chat, json={**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    question = [{"role": "user", "content": "weather(city=Rome)"}]
    for stream in (False, True):
        await call(chat, json={**CHAT, "messages": question, "tools": [TOOL], "stream": stream})
    cut = [{"role": "user", "content": "CUT"}]
    await call(chat, json={**CHAT, "messages": cut}, status=502)
    await call(chat, json={**CHAT, "messages": cut, "stream": True})
    await call(chat, json={**CHAT, "messages": "?"}, status=400)
    await call(chat, content="{}", headers={"Content-Type": "text/plain"}, status=415)
    for stream in (False, True):
        await call("POST /v1/completions", json={"model": "demo-chat", "prompt": "Hello", "stream": stream})
    link = answer["dify"]["files"][0]["url"]
    await call("GET /artifacts/{name}", link.rpartition("/artifacts/")[2])
    rating = {"model": "demo-chat", "message_id": answer["dify"]["message_id"], "rating": "like"}
    await call("POST /v1/feedback", json=rating)
    drawn = (await call(chat, json={**CHAT, "messages": [{"role": "user", "content": "DRAW"}]})).json()
    name = drawn["dify"]["files"][0]["url"].rpartition("/")[2]
    file = await call("GET /artifacts/{name}", name)
    await call("GET /artifacts/{name}", name, headers={"Range": "bytes=0-9"}, status=206)
    await call("GET /artifacts/{name}", name, headers={"If-None-Match": file.headers["etag"]}, status=304)


async def _responses(call: Caller) -> None:
    create = "POST /v1/responses"
    body: Json = {"model": "demo-chat", "input": "Hello THINK CITE"}
    first = (await call(create, json=body)).json()["id"]
    for more in ({}, {"tools": [TOOL], "input": "weather(city=Rome)"}):
        await call(create, json={**body, **more, "stream": True})
    background = (await call(create, json={**body, "background": True})).json()["id"]
    await call("GET /v1/responses/{response_id}", first)
    await call("GET /v1/responses/{response_id}", background, params={"stream": "true"})
    await call("GET /v1/responses/{response_id}/input_items", first)
    slow = (await call(create, json={**body, "input": "SLOW:600x100", "background": True})).json()["id"]
    await call("POST /v1/responses/{response_id}/cancel", slow, json={})
    await call("POST /v1/responses/{response_id}/cancel", first, json={}, status=400)
    await call("DELETE /v1/responses/{response_id}", first)
    await call("GET /v1/responses/{response_id}", first, status=404)
    await call("POST /v1/responses/input_tokens", json=body)


async def _conversations(call: Caller) -> None:
    item = {"role": "user", "content": "Hello"}
    name = (await call("POST /v1/conversations", json={"items": [item], "metadata": {"a": "b"}})).json()["id"]
    await call("POST /v1/responses", json={"model": "demo-chat", "input": "Hello", "conversation": name})
    await call("GET /v1/conversations/{conversation_id}", name)
    await call("POST /v1/conversations/{conversation_id}", name, json={"metadata": {}})
    added = await call("POST /v1/conversations/{conversation_id}/items", name, json={"items": [item]})
    items = await call("GET /v1/conversations/{conversation_id}/items", name)
    assert len(items.json()["data"]) == 4
    one = added.json()["first_id"]
    await call("GET /v1/conversations/{conversation_id}/items/{item_id}", name, one)
    await call("DELETE /v1/conversations/{conversation_id}/items/{item_id}", name, one)
    await call("DELETE /v1/conversations/{conversation_id}", name)
    await call("GET /v1/conversations/{conversation_id}", name, status=404)


async def _files(call: Caller) -> None:
    name = (await call("POST /v1/files", files={"file": ("a.txt", b"Hello")})).json()["id"]
    await call("POST /v1/files", files={"other": ("a.txt", b"Hello")}, status=400)
    await call("GET /v1/files")
    await call("GET /v1/files/{file_id}", name)
    await call("GET /v1/files/{file_id}/content", name)
    await call("DELETE /v1/files/{file_id}", name)
    await call("GET /v1/files/{file_id}", name, status=404)


async def _images(call: Caller) -> None:
    generate = "POST /v1/images/generations"
    made = (await call(generate, json=small("A fox", response_format="url"))).json()
    await call(generate, json=small("A fox", stream=True, partial_images=1))
    await call(generate, json=small("A fox"), headers={"Accept": "image/webp"})
    await call(generate, json={}, status=400)
    form = {name: str(value) for name, value in small("A fox").items()}
    picture_file = {"image": png(Image.linear_gradient("L"))}
    await call("POST /v1/images/edits", data=form, files=picture_file)
    await call("POST /v1/images/edits", data={**form, "stream": "true"}, files=picture_file)
    await call("POST /v1/images/variations", data=form, files=picture_file)
    name = made["data"][0]["url"].rpartition("/")[2]
    picture = await call("GET /pictures/{name}", name)
    await call("GET /pictures/{name}", name, headers={"Range": "bytes=0-9"}, status=206)
    await call("GET /pictures/{name}", name, headers={"Range": "bytes=99999999-"}, status=416)
    await call("GET /pictures/{name}", name, headers={"If-None-Match": picture.headers["etag"]}, status=304)
    await call("GET /v1/stored_pictures")
    await call("POST /v1/stored_pictures/{name}/upload", name)
    await call("DELETE /v1/stored_pictures/{name}", name)


async def _audio(call: Caller) -> None:
    for answer_format in ("json", "text", "verbose_json"):
        form = {"model": "demo-chat", "response_format": answer_format}
        await call("POST /v1/audio/transcriptions", data=form, files={"file": wav()})
    form = {"model": "demo-chat", "stream": "true"}
    await call("POST /v1/audio/transcriptions", data=form, files={"file": wav()})
    speech = {"model": "demo-chat", "input": "Hello"}
    await call("POST /v1/audio/speech", json=speech)
    await call("POST /v1/audio/speech", json={**speech, "stream_format": "sse"})
    await call("GET /v1/audio/models")
    await call("GET /v1/audio/voices")
