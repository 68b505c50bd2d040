"""Today's server with the state, the pictures and the keys of the version before client keys."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.servers import LAST_CHUNK, SSE_HEAD, RawDify, RawRequest, chunk, frame, raw_dify
from tests.cli.program import PROGRAM, Program
from tests.limits import PATIENCE

BEFORE = Path(__file__).parent / "version_before"
FACTS = json.loads((BEFORE / "facts.json").read_bytes())


async def say_yes(request: RawRequest, writer: asyncio.StreamWriter) -> None:
    name = request.body["conversation_id"]
    frames = frame("message", answer="yes", conversation_id=name), frame("message_end", conversation_id=name)
    for piece in (SSE_HEAD, chunk(*frames), LAST_CHUNK):
        writer.write(piece)


@asynccontextmanager
async def upgraded(home: Path, dify: RawDify, *, imported: bool) -> AsyncIterator[str]:
    """Start today's server with the data of the version before, and yield its address.

    Its keys are those of the settings, as before, or are ``imported`` into the state.
    """
    shutil.copytree(BEFORE / "data", home / ".local/share/openai-dify-proxy")
    env = {"API_KEYS": FACTS["key"], "PERSONAL_KEYS": f"{FACTS['personal_key']}=anna"}
    if imported:
        env = {}
        import_key(home, "bert", FACTS["key"])
        import_key(home, "anna", FACTS["personal_key"], "--end-user", "anna")
    # The URL of Dify identifies conversations: the server asks this Dify for it, as an HTTP proxy.
    env |= {"HTTP_PROXY": dify.url.removesuffix("/v1"), "DIFY_API_URL": FACTS["dify"], "DIFY_API_KEY": "app-demo-chat"}
    with Program(home).start("serve", PORT="0", **env) as server:
        yield (await asyncio.to_thread(server.url)).removesuffix("/v1")
        assert await asyncio.to_thread(server.end, signal.SIGTERM) == 0


def import_key(home: Path, name: str, key: str, *flags: str) -> None:
    script = f"printf '%s\\n' {key} | {PROGRAM} keys create {name} --import {' '.join(flags)}"
    done = Program(home, ("sh", "-c", script)).run()
    assert done.returncode == 0, done.stderr


def of_dify(fact: Any) -> tuple[str, str]:
    return fact["conversation_id"], fact["user"]


@pytest.mark.parametrize("imported", [False, True])
async def test_everything_goes_on_after_the_upgrade(tmp_path: Path, imported: bool) -> None:
    async with (
        raw_dify(say_yes) as dify,
        upgraded(tmp_path, dify, imported=imported) as origin,
        client_of(origin, FACTS["key"]) as bert,
        client_of(origin, FACTS["personal_key"]) as anna,
    ):
        await found(bert, FACTS["response"]["response"])
        await found(bert, FACTS["background_response"]["response"])
        stream = await bert.get(f"/v1/responses/{FACTS['background_response']['response']['id']}?stream=true")
        assert stream.text == FACTS["background_response"]["stream"]
        assert (await bert.get(f"/v1/files/{FACTS['file']['id']}")).json() == FACTS["file"]
        assert (await bert.get(f"/v1/files/{FACTS['file']['id']}/content")).content == b"Remember the milk.\n"
        picture = (await bert.get(FACTS["picture"])).content
        assert hashlib.sha256(picture).hexdigest() in FACTS["picture"]

        await go_on(bert, FACTS["chat"])
        await go_on(anna, FACTS["chat_of_anna"])
        await respond(bert, previous_response_id=FACTS["response"]["response"]["id"])
        await respond(bert, previous_response_id=FACTS["background_response"]["response"]["id"])
        await respond(bert, conversation=FACTS["conversation"])
        stranger = await anna.get(f"/v1/responses/{FACTS['response']['response']['id']}")
        assert stranger.status_code == 404
    facts = ("chat", "chat_of_anna", "response", "background_response", "response_in_conversation")
    assert [(turn.body["query"], *of_dify(turn.body)) for turn in dify.turns] == [
        ("Is that so?", *of_dify(FACTS[fact])) for fact in facts
    ]


def client_of(origin: str, key: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=origin, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE)


async def found(client: httpx2.AsyncClient, response: dict[str, Any]) -> None:
    assert (await client.get(f"/v1/responses/{response['id']}")).json() == response


async def go_on(client: httpx2.AsyncClient, fact: dict[str, str]) -> None:
    texts = ("user", fact["question"]), ("assistant", fact["answer"]), ("user", "Is that so?")
    messages = [{"role": role, "content": text} for role, text in texts]
    reply = await client.post("/v1/chat/completions", json={"model": "dify", "messages": messages})
    assert reply.json()["choices"][0]["message"]["content"] == "yes"


async def respond(client: httpx2.AsyncClient, **fields: str) -> None:
    reply = await client.post("/v1/responses", json={"model": "dify", "input": "Is that so?", **fields})
    assert reply.json()["status"] == "completed", reply.text
