"""A client of the scripted Replicate."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import httpx2
from PIL import Image

from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoReplicate

VERSIONS = {model.name: model.version for model in DEMO_MODELS}


@dataclass
class ReplicateCaller:
    """A client with defaults for everything but model and inputs."""

    server: DemoReplicate
    http: httpx2.Client

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.token}"}

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return self.http.post(self.server.url + path, json=body, headers=self.headers | headers)

    def get(self, path: str) -> httpx2.Response:
        return self.http.get(self.server.url + path, headers=self.headers)

    def create(self, model: str, **inputs: Any) -> httpx2.Response:
        return self.post("/predictions", {"version": VERSIONS[model], "input": inputs})

    def run(self, model: str, **inputs: Any) -> dict[str, Any]:
        """Create a prediction and return it once it has ended."""
        created = self.create(model, **inputs)
        assert created.status_code == 201, created.text
        return self.ended(created.json()["id"])

    def ended(self, identifier: str) -> dict[str, Any]:
        """Return a prediction once it has ended."""
        self.server.log.wait(
            lambda log: any(entry.id == identifier and entry.completed_at for entry in log.predictions)
        )
        body: dict[str, Any] = self.get(f"/predictions/{identifier}").json()
        return body

    def bytes_of(self, model: str, **inputs: Any) -> list[bytes]:
        """Run a prediction and download its outputs."""
        output = self.run(model, **inputs)["output"]
        return [self.http.get(uri).content for uri in ([output] if isinstance(output, str) else output)]

    def picture(self, model: str, **inputs: Any) -> Image.Image:
        """Run a prediction and return its first output."""
        return opened(self.bytes_of(model, **inputs)[0])


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
