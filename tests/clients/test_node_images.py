"""The official JavaScript client generates, edits and streams pictures like the Python one."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import httpx2
from PIL import Image, ImageChops

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo.replicate import INSTANT, DemoReplicate
from tests.api.image_requests import SDXL, Json, image_settings, picture, png
from tests.api.servers import ProxyServer


async def test_pictures_in_javascript(node: Path, node_clients: Path, tmp_path: Path) -> None:
    source = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 64, 32))
    with (
        DemoReplicate(timing=INSTANT, faults=True) as replicate,
        ProxyServer(Settings(**image_settings(replicate, tmp_path))) as proxy,
    ):
        made = await make_images(node, node_clients, proxy.url, png(source), png(mask))
        async with httpx2.AsyncClient(verify=False) as http:
            linked = await http.get(made["linked"][0])
    assert [picture(data).size for data in made["generated"]] == [(64, 64)] * 2
    assert replicate.log.predictions[0].sent["seed"] == 7
    assert picture(linked.content).format == "PNG"
    (edited,) = made["edited"]
    changed = ImageChops.difference(picture(edited).convert("RGB"), source).convert("L")
    assert max(changed.crop((0, 0, 64, 28)).tobytes()) > 24
    assert max(changed.crop((0, 36, 64, 64)).tobytes()) == 0
    assert [event["type"] for event in made["streamed"]] == [
        *["image_generation.completed"] * 2,
        "image_edit.completed",
    ]
    assert [picture(event["b64_json"]).size for event in made["streamed"]] == [(64, 64)] * 3
    assert made["refused"] == {"status": 400, "code": None, "param": "X-Replicate-Num-Inference-Steps"}
    assert made["failed"] == {"status": 502, "code": "upstream_error", "param": None}
    assert replicate.log.creations("DROP") == 1, "the client retries failed requests unless a header forbids it"
    assert not replicate.log.leaked_tokens


async def make_images(node: Path, node_clients: Path, url: str, image: bytes, mask: bytes) -> Json:
    """Run ``make_images.mjs`` and return its output."""
    process = await asyncio.create_subprocess_exec(
        node,
        "make_images.mjs",
        cwd=node_clients,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    pictures = {"image": base64.b64encode(image).decode(), "mask": base64.b64encode(mask).decode()}
    request = {"url": url, "model": SDXL, "size": "64x64", **pictures}
    output, errors = await process.communicate(json.dumps(request).encode())
    assert process.returncode == 0, errors.decode()
    made: Json = json.loads(output)
    return made
