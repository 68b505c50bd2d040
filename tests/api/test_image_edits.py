"""Image edits and variations: initial images, masks, and uploads to Replicate."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, DefaultHttpxClient, OpenAI
from PIL import Image, ImageChops, ImageOps

from openai_dify_proxy_demo.replicate import DemoReplicate, ReplicateLog
from tests.api.conftest import Serve
from tests.api.image_requests import SDXL, VERSIONS, Json, picture, png, post, sent
from tests.api.servers import ProxyServer

SIDE = 128
OLD = "stability-ai/stable-diffusion:" + VERSIONS["stability-ai/stable-diffusion"]
IDEOGRAM = "ideogram-ai/ideogram-v3-turbo"
KONTEXT = "black-forest-labs/flux-kontext-pro"

SOURCE = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
"""The initial image. It is grey, unlike pictures of the demo."""

NOISE = png(Image.frombytes("RGB", (300, 300), secrets.token_bytes(300 * 300 * 3)))
"""A picture above 256 kB, which is uploaded."""


def left_half(inside: Any, outside: Any, mode: str) -> Image.Image:
    """Return a mask that marks the left half for repainting."""
    mask = Image.new(mode, (SIDE, SIDE), outside)
    mask.paste(inside, (0, 0, SIDE // 2, SIDE))
    return mask


MASKS = {
    "alpha, as for OpenAI": png(left_half((0, 0, 0, 0), (0, 0, 0, 255), "RGBA")),
    "alpha over a picture": png(left_half((255, 255, 255, 0), (255, 255, 255, 255), "RGBA")),
    "white on black": png(left_half(255, 0, "L")),
    "white on black in colours": png(left_half((255, 255, 255), (0, 0, 0), "RGB")),
}


def repainted(result: Image.Image, source: Image.Image) -> tuple[bool, bool]:
    """Return whether the left and the right half of a picture differ from the source, except at their border."""
    same = ImageChops.difference(result.convert("RGB"), source.resize(result.size)).convert("L")
    width, height = result.size
    left = same.crop((0, 0, width // 2 - 8, height))
    right = same.crop((width // 2 + 8, 0, width, height))
    return max(left.tobytes()) > 24, max(right.tobytes()) > 24


def body(model: str, **more: Any) -> Json:
    size = f"{SIDE}x{SIDE}" if model != IDEOGRAM else "auto"
    return {"model": model, "prompt": "A fox SETTLED", "size": size, **more}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("model", [SDXL, OLD, IDEOGRAM])
async def test_the_masked_area_is_repainted(image_client: AsyncOpenAI, model: str, mask: str) -> None:
    """Some models repaint the white area of a mask, others the black area."""
    answer = await image_client.images.edit(
        image=("source.png", png(SOURCE)), mask=("mask.png", MASKS[mask]), **body(model)
    )
    (image,) = answer.data or []
    assert repainted(picture(image.b64_json), SOURCE) == (True, False)


async def test_an_edit_without_a_mask_repaints_everything(image_client: AsyncOpenAI, predictions: ReplicateLog) -> None:
    answer = await image_client.images.edit(image=png(SOURCE), **body(SDXL), n=2)
    assert [repainted(picture(image.b64_json), SOURCE) for image in answer.data or []] == [(True, True)] * 2
    (prediction,) = predictions.predictions
    assert prediction.sent["image"].startswith("data:image/png;base64,")
    assert base64.b64decode(prediction.sent["image"].partition(",")[2]) == png(SOURCE)


async def test_strength_zero_keeps_the_picture(image_client: AsyncOpenAI) -> None:
    answer = await image_client.images.edit(
        image=png(SOURCE), **body(SDXL), extra_headers={"X-Replicate-Prompt-Strength": "0"}
    )
    assert repainted(picture((answer.data or [])[0].b64_json), SOURCE) == (False, False)


def test_edits_with_the_synchronous_client(image_proxy: ProxyServer) -> None:
    with OpenAI(base_url=image_proxy.url, api_key="x", http_client=DefaultHttpxClient(verify=False)) as client:
        answer = client.images.edit(image=png(SOURCE), mask=MASKS["white on black"], **body(SDXL))
        assert repainted(picture((answer.data or [])[0].b64_json), SOURCE) == (True, False)


async def test_edits_stream(image_client: AsyncOpenAI) -> None:
    stream = await image_client.images.edit(image=png(SOURCE), **body(SDXL), stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_edit.completed"]
    assert picture(events[0].b64_json).size == (SIDE, SIDE)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client, for this route
async def test_variations_need_a_model_that_requires_no_prompt(
    image_client: AsyncOpenAI, predictions: ReplicateLog
) -> None:
    vary = image_client.images.create_variation  # type: ignore[deprecated]
    answer = await vary(image=png(SOURCE), model=SDXL, n=2)
    assert len({image.b64_json for image in answer.data or []}) == 2
    (prediction,) = predictions.predictions
    assert prediction.sent.keys() == {"image", "num_outputs"}
    with pytest.raises(APIStatusError) as refused:
        await vary(image=png(SOURCE), model=KONTEXT)
    assert (refused.value.status_code, refused.value.param) == (400, "prompt")


async def test_several_pictures_need_a_model_that_accepts_them(
    image_client: AsyncOpenAI, predictions: ReplicateLog
) -> None:
    with pytest.raises(APIStatusError) as unpaid:
        await image_client.images.edit(
            image=[png(SOURCE), png(ImageOps.invert(SOURCE))], model="bytedance/seedream-4.5", prompt="CREDIT"
        )
    assert unpaid.value.status_code == 429
    assert [len(inputs["image_input"]) for inputs in sent(predictions)] == [2]
    with pytest.raises(APIStatusError) as refused:
        await image_client.images.edit(image=[png(SOURCE), png(SOURCE)], **body(SDXL))
    assert (refused.value.status_code, refused.value.param) == (400, "image[]")


# Sources of pictures.


async def test_urls_of_pictures_are_forwarded(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    image, mask = "https://example.org/a.png", "https://example.org/m.png"
    requests: list[tuple[str, Json, dict[str, str]]] = [
        ("edits", {"images": [{"image_url": image}]}, {"X_Replicate_Mask": mask}),
        ("edits", {"image": image}, {"X_Replicate_Mask": mask}),
        ("generations", {}, {"X_Replicate_Init_Image": image, "X_Replicate_Mask": mask}),
        (
            "edits",
            {"image": image},
            {"X_Replicate_Init_Image": image, "X_Replicate_Mask": mask},
        ),
    ]
    for path, more, headers in requests:
        reply = await post(
            http, f"{image_proxy.url}/images/{path}", {"model": SDXL, "prompt": "CREDIT", **more}, **headers
        )
        assert reply.status_code == 429
        assert sent(predictions)[-1] == {"prompt": "CREDIT", "image": image, "mask": mask}


async def test_pictures_may_be_data_uris(http: httpx2.AsyncClient, image_proxy: ProxyServer) -> None:
    image = f"data:image/png;base64,{base64.b64encode(png(SOURCE)).decode()}"
    mask = f"data:image/png;base64,{base64.b64encode(MASKS['alpha, as for OpenAI']).decode()}"
    reply = await post(http, f"{image_proxy.url}/images/edits", body(SDXL, images=[{"image_url": image}], mask=mask))
    (image_data,) = reply.json()["data"]
    assert repainted(picture(image_data["b64_json"]), SOURCE) == (True, False)


@pytest.mark.parametrize("prompt", ["A fox SETTLED", "FAIL", "CREDIT", "BADJSON"])
async def test_large_pictures_are_uploaded_and_deleted(
    image_client: AsyncOpenAI, predictions: ReplicateLog, prompt: str
) -> None:
    assert len(NOISE) > 256_000
    try:
        await image_client.images.edit(image=NOISE, **body(SDXL) | {"prompt": prompt})
    except APIStatusError:
        assert prompt != "A fox SETTLED"
    (file,) = predictions.files
    assert (file.content_type, file.size, file.deleted) == ("image/png", len(NOISE), True)
    (inputs,) = sent(predictions)
    assert inputs["image"].endswith(f"/v1/files/{file.id}")


REJECTED_URLS = [
    "ftp://example.org/a.png",
    "https://",
    "https://user:password@example.org/a.png",
    "https://[",
    "http://127.0.0.1:9/a.png",
    "http://2130706433/a.png",
    "http://10.0.0.1/a.png",
    "http://169.254.169.254/latest",
    "http://[::1]/a.png",
    "http://localhost/a.png",
    "a.png",
]


@pytest.mark.parametrize("url", REJECTED_URLS)
async def test_private_and_malformed_urls_are_rejected(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog, url: str
) -> None:
    """In JSON, in a form, and in a header."""
    image = "https://example.org/a.png"
    requests: list[tuple[str, Json, dict[str, str]]] = [
        ("images[1]", {"images": [{"image_url": image}, {"image_url": url}]}, {}),
        ("image", {"image": [url]}, {}),
        ("mask", {"image": image, "mask": url}, {}),
        ("mask", {"image": image, "mask": {"image_url": url}}, {}),
        ("X-Replicate-Init-Image", {"image": image}, {"X_Replicate_Init_Image": url}),
        ("X-Replicate-Mask", {"image": image}, {"X_Replicate_Mask": url}),
    ]
    for param, more, headers in requests:
        reply = await post(http, f"{image_proxy.url}/images/edits", {"model": SDXL, "prompt": "x", **more}, **headers)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    for param in ("image", "image[]", "mask"):
        reply = await form(http, image_proxy, "edits", {"model": SDXL, "prompt": "x", param: url}, image=PICTURE)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert predictions.attempts() == 0


async def test_a_configured_host_may_have_a_private_address(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, replicate: DemoReplicate, predictions: ReplicateLog
) -> None:
    image = f"{replicate.output_origin}/a.png"
    await post(http, f"{image_proxy.url}/images/edits", {"model": SDXL, "prompt": "CREDIT", "image": image})
    assert sent(predictions)[-1]["image"] == image


async def test_text_fields_of_a_form_may_hold_urls_and_data_uris(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(png(SOURCE)).decode()}"
    for image in ("https://example.org/a.png", uri):
        reply = await http.post(
            f"{image_proxy.url}/images/edits",
            files={"model": (None, SDXL), "prompt": (None, "CREDIT"), "image": (None, image), "mask": (None, "")},
        )
        assert reply.status_code == 429
        assert sent(predictions)[-1] == {"prompt": "CREDIT", "image": image}


async def test_a_mask_is_not_read_from_private_addresses(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    """For a model that repaints black areas, the proxy reads the mask to invert it."""
    for address in (
        "http://127.0.0.1:9/m.png",
        "http://169.254.169.254/latest",
        "http://[::1]/m",
        "http://2130706433/m",
    ):
        reply = await post(
            http,
            f"{image_proxy.url}/images/generations",
            {"model": OLD, "prompt": "A fox"},
            X_Replicate_Init_Image="https://example.org/a.png",
            X_Replicate_Mask=address,
        )
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "X-Replicate-Mask"), address
    assert predictions.attempts() == 0


# Forms.


async def form(http: httpx2.AsyncClient, proxy: ProxyServer, path: str, data: Json, **files: Any) -> httpx2.Response:
    return await http.post(f"{proxy.url}/images/{path}", data=data, files=files)


async def test_form_fields_are_converted_to_their_types(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    fields = {"model": SDXL, "prompt": "CREDIT", "n": "2", "seed": "7", "stream": "false", "user": ""}
    reply = await form(
        http, image_proxy, "edits", {**fields, "input": '{"refine":"no_refiner"}'}, image=("a.png", png(SOURCE))
    )
    assert reply.status_code == 429
    inputs = sent(predictions)[-1]
    assert inputs.pop("image").startswith("data:")
    assert inputs == {"prompt": "CREDIT", "num_outputs": 2, "seed": 7, "refine": "no_refiner"}


PICTURE = ("a.png", png(SOURCE))
HUGE = png(Image.new("1", (5001, 5000)))
BAD_FORMS: dict[str, tuple[str, Json, dict[str, Any], str]] = {
    "no picture": ("edits", {"prompt": "x"}, {"other": PICTURE}, "other"),
    "no prompt": ("edits", {}, {"image": PICTURE}, "prompt"),
    "no picture for a variation": ("variations", {"n": "1"}, {"mask": PICTURE}, "image"),
    "not a picture": ("edits", {"prompt": "x"}, {"image": ("a.png", b"<svg/>")}, "image"),
    "an empty file": ("edits", {"prompt": "x"}, {"image[]": ("a.png", b"")}, "image[]"),
    "not a number": ("edits", {"prompt": "x", "n": "two"}, {"image": PICTURE}, "n"),
    "malformed input": ("edits", {"prompt": "x", "input": "{"}, {"image": PICTURE}, "input"),
    "input nested too deeply": ("edits", {"prompt": "x", "input": "[" * 100_000}, {"image": PICTURE}, "input"),
    "a truncated picture": ("edits", {"prompt": "x"}, {"image": ("a.png", PICTURE[1][:-20])}, "image"),
    "one truncated picture of several": (
        "edits",
        {"prompt": "x"},
        {"image": PICTURE, "image[]": ("a.png", PICTURE[1][:99])},
        "image[]",
    ),
    "a picture with too many pixels": ("edits", {"prompt": "x"}, {"image": ("a.png", HUGE)}, "image"),
    "a truncated mask": (
        "edits",
        {"prompt": "x", "model": OLD},
        {"image": PICTURE, "mask": ("m.png", PICTURE[1][:80])},
        "mask",
    ),
}


@pytest.mark.parametrize("case", BAD_FORMS)
async def test_malformed_forms_are_rejected(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog, case: str
) -> None:
    path, fields, files, param = BAD_FORMS[case]
    reply = await form(http, image_proxy, path, {"model": SDXL, **fields}, **files)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert predictions.attempts() == 0


async def test_pictures_above_the_limits_are_rejected(
    http: httpx2.AsyncClient, serve_images: Serve, predictions: ReplicateLog
) -> None:
    proxy = serve_images(max_picture_bytes=100_000)
    reply = await form(http, proxy, "edits", {"prompt": "x"}, image=("a.png", NOISE))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "image")
    uri = f"data:image/png;base64,{base64.b64encode(NOISE).decode()}"
    reply = await post(http, f"{proxy.url}/images/edits", {"prompt": "x", "image": uri})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "image")
    proxy = serve_images(max_body_bytes=100_000)
    reply = await form(http, proxy, "edits", {"prompt": "x"}, image=("a.png", NOISE))
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert predictions.attempts() == 0
