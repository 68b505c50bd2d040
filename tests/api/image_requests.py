"""Send image requests to the proxy, and read its pictures and the inputs of the predictions."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoReplicate
from openai_dify_proxy_demo.replicate.log import ReplicateLog

VERSIONS = {model.name: model.version for model in DEMO_MODELS}
SDXL = f"stability-ai/sdxl:{VERSIONS['stability-ai/sdxl']}"
"""A name with a version, so that creating a prediction needs no other call."""

SCHNELL = "black-forest-labs/flux-schnell"

Json = dict[str, Any]
Size = tuple[int, int]


def image_settings(replicate: DemoReplicate, storage: Path, **more: Any) -> Json:
    """Return the settings of a proxy that generates pictures with the scripted Replicate."""
    return {
        "replicate_api_token": SecretStr(replicate.token),
        "replicate_api_url": replicate.url,
        "replicate_output_hosts": (replicate.output_origin,),
        "image_storage_dir": str(storage),
        **more,
    }


def small(prompt: str, **more: Any) -> Json:
    """Return the body of a fast generation. SETTLED makes the creation return the output, so there is no polling."""
    return {"model": SDXL, "prompt": f"{prompt} SETTLED", "size": "64x64", **more}


async def post(http: httpx2.AsyncClient, url: str, body: Json, **headers: str) -> httpx2.Response:
    """Send a body and headers, whose names have underscores for hyphens: ``X_Replicate_Seed="7"``."""
    return await http.post(url, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def picture(data: str | bytes | None) -> Image.Image:
    """Decode a picture from bytes or base64 text, including all its pixels."""
    assert data is not None
    opened = Image.open(io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data))
    opened.load()
    return opened


def png(image: Image.Image) -> bytes:
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


def sent(log: ReplicateLog) -> list[Json]:
    """Return the inputs of all requests that create a prediction, in order."""
    return [
        call.body["input"] for call in tuple(log.calls) if call.method == "POST" and call.path.endswith("/predictions")
    ]
