"""The official JavaScript client speaks and transcribes like the Python one."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from tests.api.audio_requests import decoded, heard
from tests.api.servers import ProxyServer


async def test_audio_in_javascript(node: Path, node_clients: Path, proxy: ProxyServer) -> None:
    process = await asyncio.create_subprocess_exec(
        node,
        "use_audio.mjs",
        cwd=node_clients,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps({"url": proxy.url}).encode())
    assert process.returncode == 0, errors.decode()
    made = json.loads(output)
    speech = base64.b64decode(made["speech"])
    assert made["type"] == "audio/mpeg"
    assert len(await decoded(speech)) / 24_000 == pytest.approx(0.75, abs=0.1)
    text = heard(speech, "audio/mp3")
    assert (made["text"], made["plain"]) == (text, f"{text}\n")
    assert made["streamed"] == [
        {"type": "transcript.text.delta", "delta": text},
        {"type": "transcript.text.done", "text": text},
    ]
    assert made["refused"] == {"status": 400, "code": "unsupported_parameter", "param": "response_format"}
