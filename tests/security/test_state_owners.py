"""The entries of one caller cost no other caller its entries or the use of the state."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy.state import Get, GuardedStore, Put
from openai_dify_proxy.state.sqlite import SqliteStore
from openai_dify_proxy.state.store import LARGE_BYTES, MAX_ENTRY_BYTES
from openai_dify_proxy_demo import DemoLog
from tests.api.chats import Chat, the_request
from tests.api.conftest import Serve
from tests.api.servers import END, LAST_CHUNK, SSE_HEAD, app_settings, chunk, message_frame, raw_dify, scripted
from tests.limits import PATIENCE

KEYS = (SecretStr("key-of-ann"), SecretStr("key-of-mallory"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[GuardedStore]:
    guarded = GuardedStore(SqliteStore(tmp_path / "state.db", max_entries=1000, timeout=PATIENCE))
    yield guarded
    await guarded.close()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``room`` bytes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize(
    "limits", [{"state_max_entries": 20}, {"state_max_bytes": 20_000}], ids=["by entries", "by bytes"]
)
async def test_a_stranger_cannot_displace_a_conversation(
    serve: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path, limits: dict[str, int]
) -> None:
    proxy = serve(api_keys=KEYS, state_url=f"sqlite:///{tmp_path}/state.db", **limits)
    async with proxy.client(KEYS[0].get_secret_value()) as client:
        chat = Chat(client, "demo-chat")
        await chat.say("ann 1")
        headers = {"Authorization": f"Bearer {KEYS[1].get_secret_value()}"}
        ids = []
        for _ in range(100):
            created = await http.post(
                f"{proxy.url}/conversations",
                json={"items": [{"role": "user", "content": "m" * 1000}]},
                headers=headers,
            )
            ids.append(created.json()["id"])
        # The tidying is over once the flood itself has lost its oldest entry.
        while (await http.get(f"{proxy.url}/conversations/{ids[0]}", headers=headers)).status_code == 200:
            pass
        await chat.say("ann 2")
    assert the_request(log, "ann 2").body.get("conversation_id") == chat.conversation_id
    newest = await http.get(f"{proxy.url}/conversations/{ids[-1]}", headers=headers)
    assert newest.status_code == 200


async def test_a_large_write_that_fails_does_not_pause_the_state(store: GuardedStore) -> None:
    await store.run(Put("kind:a", b"one", 60, "ann"))
    with full_disk(400_000):
        assert await store.run(Put("kind:large", bytes(2_000_000), 60, "mallory")) is None
        assert await store.run(Get("kind:a"), Put("kind:b", b"two", 60, "ann")) == [b"one", None]
    assert store.faults == 1
    assert await store.run(Put("kind:large", bytes(2_000_000), 60, "mallory")) == [None]


async def test_small_writes_that_fail_pause_the_state(store: GuardedStore) -> None:
    await store.run(Put("kind:a", b"one", 60, "ann"))
    with full_disk(8192):
        assert await store.run(Put("kind:b", bytes(LARGE_BYTES), 60, "ann")) is None
        assert await store.run(Get("kind:a")) is None
    assert store.faults == 2


async def test_an_oversized_entry_is_skipped_and_the_others_are_written(store: GuardedStore) -> None:
    with capture_logs() as logs:
        oversized = Put("kind:a", bytes(MAX_ENTRY_BYTES + 1), 60, "mallory")
        assert await store.run(Put("kind:b", b"one", 60, "mallory"), oversized, Get("kind:b")) == [None, None, b"one"]
    assert logs == [
        {
            "event": "state_entry_too_large",
            "log_level": "warning",
            "kind": "kind",
            "size": MAX_ENTRY_BYTES + 1,
            "limit": MAX_ENTRY_BYTES,
        }
    ]
    assert await store.run(Get("kind:a")) == [None]
    assert store.faults == 0


async def test_a_background_response_that_is_too_large_to_store_has_failed(
    serve: Serve, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """A response is stored with its input as items and as messages."""
    text = "x" * (MAX_ENTRY_BYTES * 5 // 16)
    pieces = [chunk(message_frame(text[start : start + 2**18])) for start in range(0, len(text), 2**18)]
    async with raw_dify(scripted([SSE_HEAD, *pieces, chunk(END), LAST_CHUNK])) as dify:
        apps = {"raw": app_settings("raw", "app-raw", dify.url)}
        proxy = serve(dify_api_url=dify.url, apps=apps, state_url=f"sqlite:///{tmp_path}/state.db")
        body = {"model": "raw", "input": text, "background": True, "stream": True}
        streamed = await http.post(f"{proxy.url}/responses", json=body)
        name = streamed.text.partition('"id":"')[2].partition('"')[0]
        response = (await http.get(f"{proxy.url}/responses/{name}")).json()
        assert response["status"] == "failed"
        assert "too large to store" in response["error"]["message"]
        ready = await http.get(f"{proxy.origin}/ready")
        assert ready.json()["state_faults"] == 0
