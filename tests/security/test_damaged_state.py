"""Damaged state entries: they count as absent on every route, and each is logged once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.responses.response_store import StoredResponse
from openai_dify_proxy.state import GuardedStore, Put
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.turns.claim_timing import ClaimTiming
from openai_dify_proxy.turns.conversation_entries import ConversationEntry, ConversationRecord
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve

Damage = Callable[[bytes], bytes]


def other_role(value: bytes) -> bytes:
    return value.replace(b"assistant", b"assistent").replace(b"\xa4user", b"\xa4uSer")


def broken_json(value: bytes) -> bytes:
    """Return a stored response with broken parts, and any other entry unchanged."""
    try:
        entry = msgspec.msgpack.decode(value, type=StoredResponse)
    except msgspec.MsgspecError:
        return value
    return msgspec.msgpack.encode(msgspec.structs.replace(entry, response=b'{"id":', input=b"[7]"))


DAMAGES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "not MessagePack": lambda _: b"\xc1" * 40,
    "another type": lambda _: msgspec.msgpack.encode({"response": 7, "created_at": [], "size": -1}),
    "a nesting without end": lambda _: b"\x91" * 5000,
    "cut off": lambda value: value[: len(value) // 2],
    "no UTF-8": lambda value: value.replace(b"-", b"\xff"),
    "an unknown role": other_role,
    "broken JSON within": broken_json,
}


def damage(state: Path, change: Damage) -> int:
    """Damage all entries but the secret; return how many there are."""
    with sqlite3.connect(state, isolation_level=None, timeout=30) as connection:
        rows = connection.execute("SELECT key, data FROM entries WHERE key != 'secret'").fetchall()
        connection.executemany(
            "UPDATE entries SET data = ? WHERE key = ?", [(change(value), key) for key, value in rows]
        )
    connection.close()
    return len(rows)


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
async def test_every_route_treats_damaged_entries_as_absent(
    serve: Serve, log: DemoLog, http: httpx2.AsyncClient, tmp_path: Path, change: Damage
) -> None:
    state = tmp_path / "state.db"
    # A damaged entry can look like one that another turn holds.
    proxy = serve(state_url=f"sqlite:///{state}", timing=ClaimTiming(turn_spacing=0, lock_timeout=0.5))

    async def call(method: str, path: str, **body: Any) -> httpx2.Response:
        return await http.request(method, proxy.url + path, json=body or None)

    asked = await call("POST", "/chat/completions", **chat_body("SAY<<one>>"))
    dify_conversation = asked.headers["x-dify-conversation-id"]
    response = (await call("POST", "/responses", model="demo-chat", input="two", user="anna")).json()["id"]
    running = (await call("POST", "/responses", model="demo-chat", input="three", background=True)).json()["id"]
    conversation = (await call("POST", "/conversations", items=[{"role": "user", "content": "four"}])).json()["id"]
    await call("POST", "/responses", model="demo-chat", input="five", conversation=conversation)
    streamed = await call("GET", f"/responses/{running}?stream=true")
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert damage(state, change) >= 6

    history = [{"role": "user", "content": "SAY<<one>>"}, {"role": "assistant", "content": "one"}]
    chat = {"model": "demo-chat", "messages": [*history, {"role": "user", "content": "again"}]}
    reference = {"type": "item_reference", "id": response.replace("resp_", "msg_")}
    calls = {
        "chat": call("POST", "/chat/completions", **chat),
        "named": call("POST", "/chat/completions", **chat, conversation_id=dify_conversation),
        "retrieve": call("GET", f"/responses/{response}"),
        "input items": call("GET", f"/responses/{response}/input_items"),
        "stream": call("GET", f"/responses/{running}?stream=true"),
        "cancel": call("POST", f"/responses/{running}/cancel"),
        "delete": call("DELETE", f"/responses/{running}"),
        "continue": call(
            "POST", "/responses", model="demo-chat", input="x", user="anna", previous_response_id=response
        ),
        "reference": call("POST", "/responses", model="demo-chat", input=[reference, {"role": "user", "content": "x"}]),
        "in conversation": call("POST", "/responses", model="demo-chat", input="x", conversation=conversation),
        "conversation": call("GET", f"/conversations/{conversation}"),
        "items": call("GET", f"/conversations/{conversation}/items"),
        "update": call("POST", f"/conversations/{conversation}", metadata={"a": "b"}),
        "delete conversation": call("DELETE", f"/conversations/{conversation}"),
    }
    answers = {name: (await answer).status_code for name, answer in calls.items()}
    assert answers["chat"] == 200
    assert answers["named"] == 200
    assert set(answers.values()) <= {200, 400, 404}, answers
    if change is broken_json:
        assert {answers[name] for name in ("retrieve", "input items", "stream", "cancel", "delete")} == {404}


async def test_an_unreadable_entry_is_logged_once() -> None:
    store = GuardedStore(MemoryStore(max_entries=10))
    decode = msgspec.msgpack.Decoder(ConversationEntry).decode
    with capture_logs() as logs:
        for key in ("conversation:1", "conversation:1", "conversation:2"):
            await store.run(Put(key, b"\xc1"))
            assert store.decode(key, b"\xc1", decode) is None
    assert [(line["event"], line["key"]) for line in logs] == [
        ("state_entry_unreadable", "conversation:1"),
        ("state_entry_unreadable", "conversation:2"),
    ]
    assert "value" not in logs[0]


def test_the_keys_of_logged_entries_are_bounded() -> None:
    store = GuardedStore(MemoryStore(max_entries=10))
    decode = msgspec.msgpack.Decoder(ConversationRecord).decode
    for number in range(2500):
        assert store.decode(f"owned:{number}", b"\xc1", decode) is None
    assert len(store._unreadable) <= 1000
