"""Forms and pictures that are small to send and large to read: a 400 before any prediction is paid for."""

from __future__ import annotations

import json
import struct

import httpx2
import pytest

from openai_dify_proxy.api.image_requests import MAX_FIELDS, MAX_FILES
from openai_dify_proxy.wire.complexity import MAX_VALUES
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.chat_requests import error_of
from tests.api.image_requests import SDXL
from tests.api.servers import ProxyServer
from tests.pictures.samples import encode, image, png_header

PNG = encode(image(), "PNG")
BOUNDARY = "x" * 20


def animation(frames: int) -> bytes:
    """Return a GIF of many frames of 4000 × 4000 pixels, each of which has a few bytes."""
    head = b"GIF89a" + struct.pack("<HH", 4000, 4000) + b"\x80\0\0" + bytes(6)
    frame = b"," + struct.pack("<HHHH", 0, 0, 4000, 4000) + b"\0\x02\x02\x44\x01\0"
    return head + frame * frames + b";"


PICTURES = {
    "a header of 900 million pixels": png_header(30_000, 30_000),
    "fewer pixels than announced": png_header(4000, 4000),
    "an animation": animation(2000),
    "html": b"<!doctype html><script>alert(1)</script>",
    "html that begins like a gif": b"GIF89a<script>alert(1)</script>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "bmp": encode(image(), "BMP"),
    "tiff": encode(image(), "TIFF"),
    "pdf": encode(image(), "PDF"),
    "ico": encode(image(), "ICO"),
    "a zip": b"PK\x03\x04" + PNG,
}


def part(disposition: str, content: bytes, headers: str = "") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n{headers}\r\n"
    return head.encode() + content + b"\r\n"


def field(name: str, value: str) -> bytes:
    return part(f'name="{name}"', value.encode())


def file(content: bytes, name: str = "image") -> bytes:
    return part(f'name="{name}"; filename="a.png"', content, "Content-Type: image/png\r\n")


END = f"--{BOUNDARY}--\r\n".encode()
REQUEST = field("model", SDXL) + field("prompt", "A fox SETTLED") + field("size", "64x64")


async def send(http: httpx2.AsyncClient, proxy: ProxyServer, form: bytes, boundary: str = BOUNDARY) -> httpx2.Response:
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return await http.post(f"{proxy.url}/images/edits", content=form, headers=headers)


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
async def test_bytes_that_are_no_usable_picture(
    image_proxy: ProxyServer, http: httpx2.AsyncClient, predictions: ReplicateLog, picture: bytes
) -> None:
    for form in (REQUEST + file(picture) + END, REQUEST + file(PNG) + file(picture, "mask") + END):
        reply = await send(http, image_proxy, form)
        assert reply.status_code == 400, reply.text
        assert error_of(reply)["param"] in ("image", "mask")
    assert not predictions.predictions


NESTED = b"[" * 5000 + b"]" * 5000
MANY = b'{"a":[' + b"{}," * (MAX_VALUES // 2) + b"{}]}"

FORMS = {
    "too many fields": REQUEST + field("a", "b") * (MAX_FIELDS + 1) + file(PNG) + END,
    "too many files": REQUEST + file(PNG) * (MAX_FILES + 1) + END,
    "very many fields": field("a", "") * 100_000 + END,
    "deep JSON": REQUEST + part('name="input"', NESTED) + file(PNG) + END,
    "very many values": REQUEST + part('name="input"', MANY) + file(PNG) + END,
    "a part with very many headers": part('name="a"', b"", "A: b\r\n" * 100_000) + END,
    "a part with a long header": part('name="a"', b"", f"A: {'b' * 1_000_000}\r\n") + END,
    "no parts": END,
    "only boundaries": f"--{BOUNDARY}\r\n".encode() * 50_000,
    "no name": part('filename="a"', b"x") + END,
    "no disposition": f"--{BOUNDARY}\r\nA: b\r\n\r\nx\r\n".encode() + END,
    "NUL in a name": part('name="im\0age"; filename="a"', PNG) + END,
    "nothing": b"",
    "other bytes": bytes(range(256)) * 1000,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_forms_that_are_not_read(
    image_proxy: ProxyServer, http: httpx2.AsyncClient, predictions: ReplicateLog, form: bytes
) -> None:
    reply = await send(http, image_proxy, form)
    assert reply.status_code == 400, reply.text
    error_of(reply)
    assert not predictions.predictions


@pytest.mark.parametrize("boundary", ["", '"', "a" * 5000, "a b", "--"])
async def test_odd_boundaries(
    image_proxy: ProxyServer, http: httpx2.AsyncClient, predictions: ReplicateLog, boundary: str
) -> None:
    reply = await send(http, image_proxy, REQUEST + file(PNG) + END, boundary)
    assert reply.status_code == 400
    error_of(reply)


async def test_a_picture_in_json_that_is_too_large(
    image_proxy: ProxyServer, http: httpx2.AsyncClient, predictions: ReplicateLog
) -> None:
    bodies = {
        "input": {"model": SDXL, "prompt": "x", "input": json.loads(MANY)},
        "image": {"model": SDXL, "prompt": "x", "image": "data:image/png;base64," + "A" * 30_000_000},
    }
    for name, body in bodies.items():
        reply = await http.post(f"{image_proxy.url}/images/edits", json=body)
        assert reply.status_code in (400, 413), (name, reply.text)
        error_of(reply)
    assert not predictions.predictions
