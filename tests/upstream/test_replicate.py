"""Replicate's API over real sockets: the requests, their retries, and every kind of answer."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from openai_dify_proxy.errors import (
    InvalidRequest,
    ModelNotFound,
    ProxyError,
    QuotaExceeded,
    RateLimited,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamUnreachable,
)
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.upstream.replicate import GET_ATTEMPTS, ReplicateClient
from openai_dify_proxy.wire.replicate import TERMINAL
from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoReplicate
from tests.limits import PATIENCE
from tests.upstream.raw_server import (
    Answer,
    RawServer,
    Request,
    by_path,
    endless,
    in_turn,
    moved,
    raw,
    raw_server,
    reply,
)

TOKEN = "r8_onlyfortests"
SCHNELL = ModelRef("black-forest-labs/flux-schnell")
SDXL = next(model for model in DEMO_MODELS if model.name == "stability-ai/sdxl")


@pytest.fixture(scope="module")
def shared_demo() -> Iterator[DemoReplicate]:
    with DemoReplicate(faults=True) as running:
        yield running


@pytest.fixture
def demo(shared_demo: DemoReplicate) -> DemoReplicate:
    shared_demo.log.clear()
    return shared_demo


@pytest.fixture
async def replicate(demo: DemoReplicate) -> AsyncIterator[ReplicateClient]:
    """Create a client of the demo."""
    client = ReplicateClient(demo.url, demo.token, connect_timeout=PATIENCE)
    yield client
    await client.close()


@asynccontextmanager
async def scripted_replicate(answer: Answer) -> AsyncIterator[tuple[RawServer, ReplicateClient]]:
    """Start a Replicate with scripted answers; yield it and a client of it."""
    async with raw_server(answer) as server:
        client = ReplicateClient(f"{server.origin}/v1", TOKEN, connect_timeout=PATIENCE)
        try:
            yield server, client
        finally:
            await client.close()


async def create(replicate: ReplicateClient, prompt: str, ref: ModelRef = SCHNELL) -> Any:
    return await replicate.create(ref, {"prompt": prompt}, cancel_after=90)


# --- Creations


@pytest.mark.parametrize(
    ("ref", "path", "version"),
    [
        (ModelRef("a/b"), "/v1/predictions", "a/b"),
        (ModelRef("a/b", "c" * 64), "/v1/predictions", f"a/b:{'c' * 64}"),
        (ModelRef(version="c" * 64), "/v1/predictions", "c" * 64),
        (ModelRef(deployment="a/b"), "/v1/deployments/a/b/predictions", None),
    ],
)
async def test_the_request_of_a_creation(ref: ModelRef, path: str, version: str | None) -> None:
    async with scripted_replicate(reply(201, {"id": "p1", "status": "starting"})) as (server, client):
        prediction = await client.create(ref, {"prompt": "ein Füchslein 🦊", "seed": 1}, cancel_after=310.4)
    assert (prediction.id, prediction.status) == ("p1", "starting")
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", path)
    wanted: dict[str, Any] = {"input": {"prompt": "ein Füchslein 🦊", "seed": 1}}
    assert request.json == (wanted if version is None else wanted | {"version": version})
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["prefer"] == "wait=5"
    assert request.headers["cancel-after"] == "310s"
    assert not {"cookie", "referer"} & set(request.headers)


async def test_replicate_accepts_no_deadline_below_five_seconds(
    demo: DemoReplicate, replicate: ReplicateClient
) -> None:
    await replicate.create(SCHNELL, {"prompt": "a fox"}, cancel_after=0.2)
    assert demo.log.predictions[0].cancel_after == "5s"


@pytest.mark.parametrize(
    "ref",
    [
        SCHNELL,
        ModelRef(SDXL.name, SDXL.version),
        ModelRef(version=SDXL.version),
        ModelRef(deployment="demo/sdxl"),
    ],
)
async def test_every_form_of_a_model_name_is_accepted(
    demo: DemoReplicate, replicate: ReplicateClient, ref: ModelRef
) -> None:
    prediction = await create(replicate, "a fox SETTLED", ref)
    assert prediction.status == "succeeded"
    assert prediction.output[0].startswith(demo.output_origin)
    assert demo.log.creations() == demo.log.attempts() == 1


@pytest.mark.parametrize(
    ("words", "error", "created"),
    [
        ("CREDIT", QuotaExceeded, 0),
        ("THROTTLE:header:7", RateLimited, 0),
        ("CRASH_BEFORE", UpstreamFailed, 0),
        ("CRASH_BEFORE:502", UpstreamFailed, 0),
        ("CRASH_BEFORE:503", UpstreamFailed, 0),
        ("CRASH_AFTER", UpstreamFailed, 1),
        ("CRASH_AFTER:504", UpstreamFailed, 1),
        ("DROP", UpstreamFailed, 1),
        ("BADJSON", UpstreamFailed, 1),
    ],
)
async def test_a_creation_is_sent_once_with_any_outcome(
    demo: DemoReplicate, replicate: ReplicateClient, words: str, error: type[ProxyError], created: int
) -> None:
    """The error states whether the prediction may have started, so that callers do not retry it."""
    with pytest.raises(error) as caught:
        await create(replicate, f"a fox {words}")
    assert caught.value.started is (error is UpstreamFailed)
    assert demo.log.attempts() == 1
    assert demo.log.creations() == created


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw(), id="hung up"),
        pytest.param(raw(b"HTTP/1.1 201 Created\r\nContent-Le"), id="cut head"),
        pytest.param(raw(b'HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"id":'), id="cut body"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), id="no HTTP"),
        pytest.param(reply(201, b"<!doctype html>"), id="a web page"),
        pytest.param(reply(201, b""), id="nothing"),
        pytest.param(reply(201, b"[]"), id="a list"),
        pytest.param(reply(201, b'{"id": 7, "status": "starting"}'), id="an id of another type"),
        pytest.param(reply(201, b'{"id": "p\xff", "status": "starting"}'), id="no UTF-8"),
        pytest.param(reply(201, b'{"id": "p", "output": ' + b"[" * 100_000), id="endless nesting"),
        pytest.param(reply(500, b"\xff"), id="500"),
        pytest.param(reply(502, b"<html>Bad gateway</html>"), id="502"),
        pytest.param(reply(529, {"detail": "overloaded"}), id="529"),
    ],
)
async def test_a_creation_is_not_repeated_after_a_malformed_answer(answer: Answer) -> None:
    async with scripted_replicate(answer) as (server, client):
        with pytest.raises(UpstreamFailed) as caught:
            await create(client, "a fox")
    assert caught.value.started
    assert len(server.requests) == 1
    assert TOKEN not in f"{caught.value.message}{caught.value.log}"


async def test_a_creation_is_not_repeated_after_an_idle_connection_died() -> None:
    """The second creation reuses the connection of the first one, which the server has closed by then."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 11\r\n\r\n{"id":"p1"}')
        else:
            writer.close()

    async with scripted_replicate(answer) as (server, client):
        assert (await create(client, "one")).id == "p1"
        with pytest.raises(UpstreamFailed) as caught:
            await create(client, "two")
    assert caught.value.started
    assert [request.json["input"]["prompt"] for request in server.requests] == ["one", "two"]


async def test_an_unreachable_replicate() -> None:
    client = ReplicateClient("http://127.0.0.1:9/v1", TOKEN, connect_timeout=PATIENCE)
    with pytest.raises(UpstreamUnreachable, match=r"^Replicate cannot be reached\. ") as caught:
        await create(client, "a fox")
    await client.close()
    assert not caught.value.started


async def test_an_answer_may_be_large_but_not_endless() -> None:
    """Data URIs of several pictures take tens of megabytes."""
    large = "data:image/png;base64," + "A" * 30_000_000
    async with scripted_replicate(in_turn(reply(201, {"id": "p1", "output": [large]}), endless)) as (server, client):
        assert (await create(client, "a fox")).output == [large]
        with pytest.raises(UpstreamFailed, match=r"larger than \d+ bytes") as caught:
            await create(client, "a fox")
    assert caught.value.started
    assert len(server.requests) == 2


async def test_a_redirect_is_not_followed() -> None:
    """Following it could send the token elsewhere, or repeat a creation."""
    async with (
        raw_server(reply(201, {"id": "p1"})) as elsewhere,
        scripted_replicate(moved(elsewhere.origin, 307)) as (server, client),
    ):
        with pytest.raises(UpstreamFailed, match="HTTP 307"):
            await create(client, "a fox")
        with pytest.raises(UpstreamFailed, match="HTTP 307"):
            await client.read_own(f"{server.origin}/v1/files/1", 100)
    assert elsewhere.connections == 0
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (
            401,
            {"title": "Unauthenticated", "detail": f"bad {TOKEN}"},
            UpstreamMisconfigured,
            "server's log",
        ),
        (403, {"detail": "no"}, UpstreamMisconfigured, "server's log"),
        (402, {"detail": "Go to https://replicate.com/account/billing"}, QuotaExceeded, "cannot pay"),
        (404, {"detail": "The requested resource could not be found."}, ModelNotFound, "does not have this model"),
        (
            422,
            {"title": "Invalid version or not permitted", "detail": "none"},
            ModelNotFound,
            "does not have this model",
        ),
        (422, {"title": "Input validation failed", "detail": "- input: prompt is required"}, InvalidRequest, "prompt"),
        (429, {"detail": "Request was throttled.", "retry_after": 7}, RateLimited, "rate limit"),
        (400, b"<html>", UpstreamFailed, "HTTP 400"),
    ],
)
async def test_refusals(status: int, body: Any, error: type[ProxyError], message: str) -> None:
    async with scripted_replicate(reply(status, body)) as (server, client):
        with pytest.raises(error, match=message) as caught:
            await create(client, "a fox")
    assert type(caught.value) is error
    assert not caught.value.started
    assert TOKEN not in f"{caught.value.message}{caught.value.log}"
    assert "billing" not in caught.value.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(("how", "seconds"), [("header", 7), ("body", 7), ("reset", 7), ("text", 7), ("none", 5)])
async def test_retry_after_of_replicate(replicate: ReplicateClient, how: str, seconds: int) -> None:
    with pytest.raises(RateLimited) as caught:
        await create(replicate, f"{how} THROTTLE:{how}:7")
    assert caught.value.retry_after == seconds


# --- Reading


@pytest.mark.parametrize("words", ["POLLCRASH:2", "BADPOLL:2"])
async def test_reads_are_retried(demo: DemoReplicate, replicate: ReplicateClient, words: str) -> None:
    assert GET_ATTEMPTS == 3
    created = await create(replicate, f"a fox {words}")
    prediction = created
    while prediction.status not in TERMINAL:
        prediction = await replicate.prediction(created.id)
    assert prediction.status == "succeeded"
    assert demo.log.creations() == demo.log.attempts() == 1


async def test_retries_of_reads_are_limited() -> None:
    cases: list[tuple[Answer, type[ProxyError]]] = [
        (reply(500), UpstreamFailed),
        (reply(503, b"<html>"), UpstreamFailed),
        (reply(429, {}, "Retry-After: 0"), RateLimited),
        (reply(200, b"{"), UpstreamFailed),
        (raw(), UpstreamFailed),
    ]

    async def ask(answer: Answer, error: type[ProxyError]) -> int:
        async with scripted_replicate(answer) as (server, client):
            with pytest.raises(error):
                await client.prediction("p1")
        return len(server.requests)

    times = await asyncio.gather(*(ask(*case) for case in cases))
    assert times[:4] == [GET_ATTEMPTS] * 4
    assert times[4] <= 2 * GET_ATTEMPTS, "the HTTP library also retries a GET whose connection broke off"


@pytest.mark.parametrize(("status", "error"), [(401, UpstreamMisconfigured), (404, ModelNotFound)])
async def test_permanent_errors_of_reads_are_not_retried(status: int, error: type[ProxyError]) -> None:
    async with scripted_replicate(reply(status, {})) as (server, client):
        with pytest.raises(error):
            await client.schema(ModelRef("a/b"))
    assert len(server.requests) == 1


async def test_a_lost_prediction_is_not_a_missing_model() -> None:
    """After a missing model another name is tried, and a second prediction would be paid for."""
    async with scripted_replicate(reply(404, {"detail": "Not found"})) as (server, client):
        with pytest.raises(UpstreamFailed, match="lost the prediction") as caught:
            await client.prediction("p1")
    assert caught.value.started
    assert [request.target for request in server.requests] == ["/v1/predictions/p1"]


async def test_ids_cannot_change_the_path() -> None:
    async with scripted_replicate(reply(200, {"id": "x"})) as (server, client):
        await client.prediction("../account?x#y")
        await client.cancel("../../a b")
        await client.delete_file("../1")
    assert [request.target for request in server.requests] == [
        "/v1/predictions/..%2Faccount%3Fx%23y",
        "/v1/predictions/..%2F..%2Fa%20b/cancel",
        "/v1/files/..%2F1",
    ]


async def test_predictions_can_be_cancelled(demo: DemoReplicate, replicate: ReplicateClient) -> None:
    created = await create(replicate, "a fox PARTIAL")
    await replicate.cancel(created.id)
    assert [cancel.prediction_id for cancel in demo.log.cancels] == [created.id]
    with pytest.raises(ModelNotFound):
        await replicate.cancel("none")


# --- Schemas


@pytest.mark.parametrize(
    "ref", [ModelRef(SDXL.name), ModelRef(SDXL.name, SDXL.version), ModelRef(deployment="demo/sdxl")]
)
async def test_the_schema_of_a_model(replicate: ReplicateClient, ref: ModelRef) -> None:
    version, schema = await replicate.schema(ref)
    assert version == SDXL.version
    assert "num_inference_steps" in schema["components"]["schemas"]["Input"]["properties"]


async def test_a_bare_version_has_no_schema(demo: DemoReplicate, replicate: ReplicateClient) -> None:
    """Replicate has no route from a version to its model."""
    assert await replicate.schema(ModelRef(version=SDXL.version)) == (None, {})
    assert not demo.log.calls


@pytest.mark.parametrize("ref", [ModelRef("no/body"), ModelRef(SDXL.name, "0" * 64), ModelRef(deployment="demo/none")])
async def test_missing_models(replicate: ReplicateClient, ref: ModelRef) -> None:
    with pytest.raises(ModelNotFound):
        await replicate.schema(ref)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"latest_version": None},
        {"latest_version": {"id": "v1"}},
        {"latest_version": {"id": "v1", "openapi_schema": None}, "more": 1},
    ],
)
async def test_models_without_a_schema(body: Any) -> None:
    async with scripted_replicate(reply(200, body)) as (_, client):
        _, schema = await client.schema(ModelRef("a/b"))
    assert schema == {}


async def test_a_deployment_without_a_release() -> None:
    async with scripted_replicate(by_path({"/v1/deployments/a/b": reply(200, {"current_release": None})})) as (
        _,
        client,
    ):
        assert await client.schema(ModelRef(deployment="a/b")) == (None, {})


async def test_the_token_check(demo: DemoReplicate, replicate: ReplicateClient) -> None:
    await replicate.account()
    other = ReplicateClient(demo.url, TOKEN, connect_timeout=PATIENCE)
    with pytest.raises(UpstreamMisconfigured) as caught:
        await other.account()
    await other.close()
    assert "REPLICATE_API_TOKEN" in (caught.value.log or "")


# --- Files


async def test_uploads_and_deletions_of_files(demo: DemoReplicate, replicate: ReplicateClient) -> None:
    data = os.urandom(300_000)
    file = await replicate.upload(data, "image/png", "input.png")
    assert file.urls["get"].startswith(demo.url)
    (logged,) = demo.log.files
    assert (logged.name, logged.content_type, logged.size) == ("input.png", "image/png", len(data))
    assert logged.sha256 == hashlib.sha256(data).hexdigest()
    assert await replicate.read_own(f"{file.urls['get']}/download", len(data)) == data
    await replicate.delete_file(file.id)
    assert logged.deleted
    with pytest.raises(UpstreamFailed, match="HTTP 404"):
        await replicate.read_own(f"{file.urls['get']}/download", len(data))


async def test_a_rejected_upload() -> None:
    async with scripted_replicate(reply(402, {"detail": "billing"})) as (server, client):
        with pytest.raises(QuotaExceeded):
            await client.upload(b"abc", "image/png", "input.png")
    (request,) = server.requests
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="content"; filename="input.png"' in request.body


async def test_file_outputs_require_the_token(demo: DemoReplicate, replicate: ReplicateClient) -> None:
    prediction = await create(replicate, "a fox FILE SETTLED")
    url = prediction.output[0]
    assert replicate.owns(url)
    assert (await replicate.read_own(url, 1_000_000))[:4] in (b"RIFF", b"\x89PNG", b"\xff\xd8\xff\xe0")
    with pytest.raises(UpstreamFailed, match=r"larger than \d+ bytes"):
        await replicate.read_own(url, 100)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (endless, r"larger than \d+ bytes"),
        (raw(), "could not be read"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc"), "could not be read|broke off"),
        (reply(500), "HTTP 500"),
    ],
)
async def test_failed_reads_of_files(answer: Answer, message: str) -> None:
    async with scripted_replicate(answer) as (server, client):
        with pytest.raises(UpstreamFailed, match=message) as caught:
            await client.read_own(f"{server.origin}/v1/files/1", 100)
    assert caught.value.started


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.replicate.com/v1/files/abc", True),
        ("https://API.replicate.com:443/v1/files/abc", True),
        ("http://api.replicate.com/v1/files/abc", False),
        ("https://api.replicate.com:8443/v1/files/abc", False),
        ("https://replicate.com/v1/files/abc", False),
        ("https://api.replicate.com.evil.com/x", False),
        ("https://api.replicate.com@evil.com/x", False),
        ("https://evil.com\\@api.replicate.com/x", False),
        ("https://me@api.replicate.com/x", False),
        ("https://:secret@api.replicate.com/x", False),
        ("https://api.replicate.com:x/", False),
        ("https://[/", False),
        ("https://xn--localhost-/", False),
        ("//api.replicate.com/x", False),
        ("/v1/files/abc", False),
        ("data:image/png;base64,AAAA", False),
        ("", False),
    ],
)
async def test_the_token_is_sent_only_to_the_origin_of_the_api(url: str, own: bool) -> None:
    client = ReplicateClient("https://api.replicate.com/v1", TOKEN, connect_timeout=PATIENCE)
    assert client.owns(url) is own
    await client.close()
