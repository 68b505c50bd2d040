"""Image generation with the official client and plain HTTP: requests, inputs of the model, and answers."""

from __future__ import annotations

import base64
import hashlib

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, DefaultHttpxClient, OpenAI

from openai_dify_proxy_demo.replicate import DemoReplicate, ReplicateLog
from tests.api.conftest import Serve
from tests.api.image_requests import SCHNELL, SDXL, Json, picture, post, sent, small
from tests.api.servers import ProxyServer

# Forms of answers.


async def test_defaults_without_parameters(image_client: AsyncOpenAI, predictions: ReplicateLog) -> None:
    answer = await image_client.images.generate(prompt="A red fox SETTLED")
    (image,) = answer.data or []
    made = picture(image.b64_json)
    assert (made.format, made.size, answer.output_format, image.url) == ("PNG", (1024, 1024), "png", None)
    (prediction,) = predictions.predictions
    assert (prediction.model, prediction.sent) == ("stability-ai/sdxl", {"prompt": "A red fox SETTLED"})
    assert made.info == {} or set(made.info) <= {"dpi", "gamma", "srgb"}, "no prompt, no workflow"


def test_generations_with_the_synchronous_client(image_proxy: ProxyServer) -> None:
    with OpenAI(base_url=image_proxy.url, api_key="x", http_client=DefaultHttpxClient(verify=False)) as client:
        answer = client.images.generate(**small("A fox"), n=2)
        assert [picture(image.b64_json).size for image in answer.data or []] == [(64, 64)] * 2


async def test_links_lead_to_the_picture(
    image_client: AsyncOpenAI, http: httpx2.AsyncClient, image_proxy: ProxyServer
) -> None:
    answer = await image_client.images.generate(**small("A fox"), extra_body={"seed": 7}, response_format="url")
    (image,) = answer.data or []
    assert image.url is not None
    assert image.b64_json is None
    assert image.url.startswith(f"{image_proxy.origin}/pictures/")
    reply = await http.get(image.url)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    assert hashlib.sha256(reply.content).hexdigest() in image.url
    again = await image_client.images.generate(**small("A fox"), extra_body={"seed": 7}, response_format="b64_json")
    (same,) = again.data or []
    assert base64.b64decode(same.b64_json or "") == reply.content


@pytest.mark.parametrize("accept", ["image/*", "image/png, */*;q=0.1", "text/html, image/webp"])
async def test_bytes_are_returned_to_clients_that_accept_images(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, accept: str
) -> None:
    reply = await post(
        http, f"{image_proxy.url}/images/generations", small("A fox"), Accept=accept, X_Output_Format="webp"
    )
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/webp")
    assert picture(reply.content).format == "WEBP"
    linked = await http.get(reply.headers["content-location"])
    assert linked.content == reply.content
    assert reply.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("model", "accept", "expected"),
    [
        (SDXL, "image/webp", "webp"),
        (SDXL, "image/jpeg", "jpeg"),
        (SDXL, "image/png;q=0.5, image/jpeg;q=0.9, image/*;q=0.1", "jpeg"),
        (SCHNELL, "image/webp", "webp"),
        (SCHNELL, "image/gif, image/jpeg;q=0.5, application/json;q=0.1", "jpeg"),
    ],
)
async def test_pictures_in_the_accepted_format(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, model: str, accept: str, expected: str
) -> None:
    more: Json = {} if model == SDXL else {"size": "1024x1024", "input": {"megapixels": "0.25"}}
    body = small("A fox TRANSPARENT") | {"model": model} | more
    reply = await post(http, f"{image_proxy.url}/images/generations", body, Accept=accept)
    assert (reply.status_code, reply.headers["content-type"]) == (200, f"image/{expected}")
    assert picture(reply.content).format == expected.upper()
    linked = await http.get(reply.headers["content-location"])
    assert (linked.headers["content-type"], linked.content) == (f"image/{expected}", reply.content)
    assert "x-unsupported-parameters" not in reply.headers


async def test_the_accept_header_overrides_an_unaccepted_format(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    body = small("CREDIT") | {"model": SCHNELL, "size": "auto"}
    url = f"{image_proxy.url}/images/generations"
    await post(http, url, body, Accept="image/jpeg")
    await post(http, url, body, Accept="image/jpeg", X_Output_Format="webp")
    await post(http, url, body, Accept="image/jpeg;q=0.5, image/webp;q=0.1", X_Output_Format="webp")
    assert [inputs["output_format"] for inputs in sent(predictions)] == ["jpg", "jpg", "webp"]


@pytest.mark.parametrize("accept", ["application/json", "*/*", "image/png;q=0.1, application/json"])
async def test_json_is_returned_to_clients_that_prefer_it(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, accept: str
) -> None:
    reply = await post(http, f"{image_proxy.url}/images/generations", small("A fox"), Accept=accept)
    assert (reply.status_code, reply.headers["content-type"], reply.headers["vary"]) == (
        200,
        "application/json",
        "Accept",
    )


async def test_unsupported_media_types_are_not_acceptable(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    url = f"{image_proxy.url}/images/generations"
    reply = await post(http, url, small("A fox"), Accept="image/tiff")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (406, "not_acceptable", "Accept")
    assert "image/tiff" in error["message"]
    assert "image/webp" in error["message"]
    assert predictions.attempts() == 0
    streamed = await post(http, url, small("A fox", stream=True), Accept="image/tiff")
    assert (streamed.status_code, streamed.headers["content-type"][:17]) == (200, "text/event-stream")


@pytest.mark.parametrize("path", ["/v1/images/generations", "/images/generations"])
async def test_paths_with_and_without_the_version(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, path: str
) -> None:
    reply = await post(http, image_proxy.origin + path, small("A fox"))
    body = reply.json()
    assert (reply.status_code, set(body), set(body["data"][0])) == (
        200,
        {"created", "data", "output_format"},
        {"b64_json", "prediction_id"},
    )
    assert "x-unsupported-parameters" not in reply.headers


async def test_the_answer_has_seed_and_prediction_id(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    reply = await post(http, f"{image_proxy.url}/images/generations", small("A fox", seed=5))
    (image,) = reply.json()["data"]
    assert (image["seed"], image["prediction_id"]) == (5, predictions.predictions[0].id)


async def test_ipfs_without_configuration_is_an_error(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    reply = await post(http, f"{image_proxy.url}/images/generations", small("A fox", return_ipfs=True))
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "ipfs_not_configured")
    assert predictions.attempts() == 0


# Streams.


@pytest.mark.parametrize("prompt", ["A fox", "A fox PARTIAL SLOW:0.2"])
async def test_a_stream_has_one_event_per_picture(image_client: AsyncOpenAI, prompt: str) -> None:
    body = small(prompt) | {"prompt": prompt}
    stream = await image_client.images.generate(**body, n=2, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert [picture(event.b64_json).size for event in events] == [(64, 64)] * 2
    assert {(event.output_format, event.size) for event in events} == {("png", "64x64")}


async def test_a_stream_sends_pictures_as_they_arrive(image_client: AsyncOpenAI) -> None:
    body = small("A fox") | {"prompt": "A fox PARTIAL SLOW:0.4"}
    stream = await image_client.images.generate(**body, n=3, stream=True, partial_images=3)
    events = [event async for event in stream]
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds[-3:] == ["completed"] * 3
    assert kinds[:-3]
    assert set(kinds[:-3]) == {"partial_image"}
    partial = [event.b64_json for event in events if event.type == "image_generation.partial_image"]
    whole = [event.b64_json for event in events if event.type == "image_generation.completed"]
    assert partial == whole[: len(partial)]


async def test_streams_have_heartbeats(http: httpx2.AsyncClient, serve_images: Serve) -> None:
    proxy = serve_images(first_event_grace=0.1, heartbeat_interval=0.1)
    body = {**small("A fox SLOW:2"), "stream": True}
    reply = await post(http, f"{proxy.url}/images/generations", body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    frames = reply.text.split("\n\n")
    assert [frame.startswith(":") for frame in frames[:3]] == [True] * 3
    assert frames[-2].startswith("event: image_generation.completed\ndata: {")


async def test_failures_of_streams_are_errors(image_client: AsyncOpenAI, serve_images: Serve) -> None:
    with pytest.raises(APIStatusError) as early:
        await image_client.images.generate(**small("FAIL"), stream=True)
    assert (early.value.status_code, early.value.code) == (502, "prediction_failed")
    proxy = serve_images(first_event_grace=0)
    async with proxy.client() as client:
        stream = await client.images.generate(**small("FAIL SLOW:0.2"), stream=True)
        with pytest.raises(Exception, match="The model failed") as late:
            [event async for event in stream]
    assert "CUDA out of memory" in str(late.value)


# Formats.


@pytest.mark.parametrize(
    ("model", "header", "body", "expected"),
    [
        (SDXL, "webp", None, "webp"),
        (SDXL, "jpg", None, "jpeg"),
        (SDXL, None, "jpeg", "jpeg"),
        (SDXL, "jpg", "jpeg", "jpeg"),
        (SCHNELL, None, None, "png"),
        (SCHNELL, "webp", None, "webp"),
        (SCHNELL, None, "webp", "webp"),
    ],
)
async def test_the_format_in_the_answer_is_that_of_the_bytes(
    image_client: AsyncOpenAI, model: str, header: str | None, body: str | None, expected: str
) -> None:
    more: Json = {"model": model, "extra_body": {} if model == SDXL else {"input": {"megapixels": "0.25"}}}
    if body is not None:
        more["output_format"] = body
    headers = {} if header is None else {"X-Output-Format": header}
    answer = await image_client.images.generate(**small("A fox") | more, extra_headers=headers)
    (image,) = answer.data or []
    assert (picture(image.b64_json).format, answer.output_format) == (expected.upper(), expected)


async def test_transparency_becomes_white_in_a_jpeg(image_client: AsyncOpenAI) -> None:
    plain = await image_client.images.generate(**small("A fox TRANSPARENT"), extra_body={"seed": 1})
    flat = await image_client.images.generate(
        **small("A fox TRANSPARENT"), extra_body={"seed": 1}, output_format="jpeg"
    )
    ((first,), (second,)) = (plain.data or [], flat.data or [])
    clear, jpeg = picture(first.b64_json), picture(second.b64_json)
    assert clear.mode == "RGBA"
    assert min(clear.getchannel("A").tobytes()) < 9
    assert (jpeg.format, jpeg.mode) == ("JPEG", "RGB")
    assert min(jpeg.crop((0, 0, 64, 1)).convert("L").tobytes()) > 240


async def test_quality_reaches_the_encoder_or_the_model(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    sizes = []
    for quality in ("0", "100"):
        reply = await post(
            http,
            f"{image_proxy.url}/images/generations",
            small("A fox", seed=1),
            X_Output_Format="jpg",
            X_Output_Quality=quality,
            Accept="image/jpeg",
        )
        sizes.append(len(reply.content))
    assert sizes[0] * 2 < sizes[1]
    body = small("CREDIT") | {"model": SCHNELL, "output_compression": 30, "size": "auto"}
    await post(http, f"{image_proxy.url}/images/generations", body)
    del body["output_compression"]
    await post(http, f"{image_proxy.url}/images/generations", body, X_Output_Quality="40")
    assert [inputs["output_quality"] for inputs in sent(predictions)[2:]] == [30, 40]


# The body.


async def test_unsupported_fields_are_reported_in_a_header(http: httpx2.AsyncClient, image_proxy: ProxyServer) -> None:
    body = small("A fox", quality="hd", style="vivid", background="opaque", user="u1")
    reply = await post(http, f"{image_proxy.url}/images/generations", body)
    assert (reply.status_code, reply.headers["x-unsupported-parameters"]) == (200, "quality, style, background, user")


async def test_inputs_of_the_model_are_forwarded(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    url = f"{image_proxy.url}/images/generations"
    body = small("CREDIT", input={"refine": "base_image_refiner", "apply_watermark": False, "width": 72})
    assert (await post(http, url, body, X_Replicate_Seed="1")).status_code == 429
    assert sent(predictions) == [
        {
            "prompt": "CREDIT SETTLED",
            "width": 72,
            "height": 64,
            "seed": 1,
            "refine": "base_image_refiner",
            "apply_watermark": False,
        }
    ]
    for extra, code in (({"tile": 9}, "unsupported_parameter"), ({"refine": "no"}, None)):
        refused = await post(http, url, small("CREDIT", input=extra))
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (400, f"input.{next(iter(extra))}", code)


BAD_BODIES: dict[str, tuple[Json, str | None]] = {
    "no prompt": ({}, "prompt"),
    "an empty prompt": ({"prompt": ""}, "prompt"),
    "no pictures": ({"prompt": "x", "n": 0}, "n"),
    "too many pictures": ({"prompt": "x", "n": 11}, "n"),
    "an unknown response format": ({"prompt": "x", "response_format": "jpeg"}, "response_format"),
    "a wrong type": ({"prompt": 7}, "prompt"),
    "a malformed input": ({"prompt": "x", "input": "y"}, "input"),
    "a picture by a file URL": ({"prompt": "x", "image": "file:///etc/passwd"}, "image"),
    "a malformed data URI": ({"prompt": "x", "image": "data:image/png;base64,A"}, "image"),
    "a data URI of HTML": ({"prompt": "x", "image": "data:image/png;base64,PGh0bWw+"}, "image"),
    "a file by its id": ({"prompt": "x", "images": [{"file_id": "f"}]}, "images[0]"),
    "a mask without a picture": ({"prompt": "x", "mask": "https://example.org/m.png"}, "mask"),
    "bare base64": ({"prompt": "x", "image": "aGVsbG8="}, "image"),
    "an unknown size": ({"prompt": "x", "size": "huge"}, "size"),
    "a seed of more than 64 bits": ({"prompt": "x", "seed": 2**63}, "seed"),
    "a negative seed of more than 64 bits": ({"prompt": "x", "seed": -(2**64)}, "seed"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_invalid_bodies_are_rejected(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog, case: str
) -> None:
    body, param = BAD_BODIES[case]
    reply = await post(http, f"{image_proxy.url}/images/generations", body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert predictions.attempts() == 0


MESSAGES: dict[str, tuple[Json, dict[str, str], str]] = {
    "bare base64": (
        {"image": "aGVsbG8="},
        {},
        "image must be an http(s) URL or a data URI such as data:image/png;base64,….",
    ),
    "a count": ({"n": 11}, {}, "Invalid 'n': integer above maximum value. Expected a value <= 10, but got 11 instead."),
    "a response format": (
        {"response_format": "jpeg"},
        {},
        "Invalid value: 'jpeg'. Supported values are: 'b64_json' and 'url'.",
    ),
    "a size": ({"size": "huge"}, {}, "Invalid size 'huge'. Send \"auto\" or WIDTHxHEIGHT in pixels"),
    "a seed": ({"seed": 2**70}, {}, "seed is too large. The limit is 9223372036854775807."),
    "a seed in a header": (
        {},
        {"X-Replicate-Seed": str(2**64)},
        "X-Replicate-Seed is too large. The limit is 9223372036854775807.",
    ),
    "an image for a model without that input": (
        {"model": SCHNELL, "image": "https://example.org/a.png"},
        {},
        "This model does not support image. Its inputs are: prompt, ",
    ),
    "two images for a model that accepts one": (
        {"images": [{"image_url": "https://example.org/a.png"}, {"image_url": "https://example.org/b.png"}]},
        {},
        "This model accepts one initial image only.",
    ),
    "an app for prompts": ({}, {"X-Replicate-Enhance-Prompt": "yes"}, "This model does not support"),
    "an unknown header": ({}, {"X-Replicate-Sede": "7"}, "There is no header X-Replicate-Sede. Did you mean"),
    "a header of another name": ({}, {"X-Replicate-Width": "64"}, "There is no header X-Replicate-Width. This model's"),
    "two counts": ({"n": 3}, {"X-Replicate-Num-Outputs": "2"}, "X-Replicate-Num-Outputs is '2', but n is '3'."),
    "two pictures": (
        {"image": "https://example.org/a.png"},
        {"X-Replicate-Init-Image": "https://example.org/b.png"},
        "X-Replicate-Init-Image and image are different pictures. Send one of them.",
    ),
    "two masks": (
        {"image": "https://example.org/a.png", "mask": "https://example.org/m.png"},
        {"X-Replicate-Mask": "https://example.org/n.png"},
        "X-Replicate-Mask and mask are different pictures. Send one of them.",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
async def test_errors_have_these_messages(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog, case: str
) -> None:
    body, headers, message = MESSAGES[case]
    url = f"{image_proxy.url}/images/generations"
    reply = await http.post(url, json={"model": SDXL, "prompt": "x", **body}, headers=headers)
    error = reply.json()["error"]
    assert (reply.status_code, error["message"][: len(message)]) == (400, message)
    assert error["param"].partition("[")[0] in {*headers, *body}
    assert predictions.attempts() == 0


async def test_repeated_headers_must_be_equal(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    url = f"{image_proxy.url}/images/generations"
    same = [("X-Replicate-Seed", "7"), ("x-replicate-seed", "7")]
    assert (await http.post(url, json=small("CREDIT"), headers=same)).status_code == 429
    assert sent(predictions)[-1]["seed"] == 7
    reply = await http.post(url, json=small("CREDIT"), headers=[*same, ("X-Replicate-Seed", "8")])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "X-Replicate-Seed")


async def test_the_same_picture_in_header_and_body_is_accepted(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    url = f"{image_proxy.url}/images/generations"
    body = small("CREDIT", image="https://example.org/a.png", mask="https://example.org/m.png")
    headers = {"X-Replicate-Init-Image": body["image"], "X-Replicate-Mask": body["mask"]}
    assert (await http.post(url, json=body, headers=headers)).status_code == 429
    assert sent(predictions)[-1]["image"] == body["image"]


async def test_an_approximated_size_is_reported(http: httpx2.AsyncClient, image_proxy: ProxyServer) -> None:
    url = f"{image_proxy.url}/images/generations"
    body = small("A fox", input={"megapixels": "0.25"}) | {"model": SCHNELL}
    reply = await post(http, url, body | {"size": "1000x700"})
    assert (reply.status_code, reply.headers["x-unsupported-parameters"]) == (200, "size")
    reply = await post(http, url, body | {"size": "1024x1024"})
    assert (reply.status_code, reply.headers.get("x-unsupported-parameters")) == (200, None)


SIZES: list[tuple[str, str, Json]] = [
    (SDXL, "1536x1024", {"width": 1536, "height": 1024}),
    ("stability-ai/stable-diffusion", "512x768", {"width": 512, "height": 768}),
    (SCHNELL, "1792x1024", {"aspect_ratio": "16:9"}),
    ("black-forest-labs/flux-pro", "1024x768", {"aspect_ratio": "custom", "width": 1024, "height": 768}),
    ("bytedance/seedream-4.5", "1024x1536", {"aspect_ratio": "2:3"}),
]


@pytest.mark.parametrize(("model", "size", "inputs"), SIZES)
async def test_sizes_are_mapped_to_inputs(
    image_client: AsyncOpenAI, predictions: ReplicateLog, model: str, size: str, inputs: Json
) -> None:
    with pytest.raises(APIStatusError) as refused:
        await image_client.images.generate(prompt="CREDIT", model=model, size=size)
    assert refused.value.status_code == 429
    (reply,) = sent(predictions)[-1:]
    assert {name: value for name, value in reply.items() if name in inputs} == inputs


# Number of pictures.


async def test_more_pictures_than_the_model_allows_are_several_predictions(
    image_client: AsyncOpenAI, predictions: ReplicateLog
) -> None:
    answer = await image_client.images.generate(**small("A fox"), n=6, extra_headers={"X-Replicate-Seed": "100"})
    images = answer.data or []
    assert len({image.b64_json for image in images}) == 6
    made = sorted((entry.sent["num_outputs"], entry.sent["seed"]) for entry in predictions.predictions)
    assert made == [(2, 104), (4, 100)]
    one = await image_client.images.generate(**small("A fox"), extra_headers={"X-Replicate-Seed": "103"})
    assert (one.data or [])[0].b64_json == images[3].b64_json


async def test_concurrent_predictions_are_limited(
    serve_images: Serve, replicate: DemoReplicate, predictions: ReplicateLog
) -> None:
    proxy = serve_images(image_concurrency=2)
    pro = {"model": "black-forest-labs/flux-pro", "size": "256x256"}
    async with proxy.client() as client:
        answer = await client.images.generate(**small("A fox SLOW:0.2") | pro, n=5)
    assert len(answer.data or []) == 5
    started = sorted(entry.created_at for entry in predictions.predictions)
    ended = sorted(entry.completed_at or 0 for entry in predictions.predictions)
    assert all(ended[number] <= started[number + 2] + 0.05 for number in range(3))


async def test_the_answer_has_fewer_pictures_if_some_are_filtered(
    image_client: AsyncOpenAI, predictions: ReplicateLog
) -> None:
    answer = await image_client.images.generate(**small("NSFW_SOME"), n=4)
    assert len(answer.data or []) == 3
    assert predictions.creations() == 1
