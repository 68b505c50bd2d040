"""The official JavaScript client and the Vercel AI SDK show pictures and documents to a model."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

from tests.api.servers import ProxyServer
from tests.api.test_files import PDF, digest, picture

RED = picture("red")
LINK = "https://example.org/photo.png"
SHOWN = {"Data": digest(RED), "Url": LINK, "Document": digest(PDF)}


def shown_by(way: str) -> str:
    """Return what the model names in the answer of a way: the hash of the content, or the URL."""
    return next((shown for kind, shown in SHOWN.items() if kind in way), SHOWN["Data"])


async def test_files_in_javascript(node: Path, node_clients: Path, proxy: ProxyServer) -> None:
    process = await asyncio.create_subprocess_exec(
        node,
        "use_files.mjs",
        cwd=node_clients,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    request = {
        "url": proxy.url,
        "picture": base64.b64encode(RED).decode(),
        "link": LINK,
        "document": base64.b64encode(PDF).decode(),
    }
    output, errors = await process.communicate(json.dumps(request).encode())
    assert process.returncode == 0, errors.decode()
    answers = json.loads(output)
    assert len(answers) == 14
    for way, answer in answers.items():
        assert shown_by(way) in answer, way
        assert "You wrote: “What is it?”" in answer, way
