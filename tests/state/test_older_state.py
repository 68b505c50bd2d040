"""State that an earlier version wrote, before entries had owners."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from openai_dify_proxy.state import Add, Get, Put, Take
from openai_dify_proxy.state.sqlite import SqliteStore
from openai_dify_proxy_demo import DemoLog
from tests.api.chats import the_request, transcript
from tests.api.conftest import Serve, demo, hot_path, http, log, serve
from tests.limits import PATIENCE

__all__ = ["demo", "hot_path", "http", "log", "serve"]

OLD_SCHEMA = """CREATE TABLE entries (
    key TEXT PRIMARY KEY, expires REAL, written REAL NOT NULL, value BLOB NOT NULL
) WITHOUT ROWID"""

OldEntry = tuple[Any, ...]
"""Key, time of expiry, time of writing, and value."""

NOW = 1_000_000.0


def write_old_file(path: Path, entries: list[OldEntry]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(OLD_SCHEMA)
    connection.execute("PRAGMA user_version = 1")
    connection.executemany("INSERT INTO entries (key, expires, written, value) VALUES (?, ?, ?, ?)", entries)
    connection.close()


def opened(path: Path, max_entries: int = 1000) -> SqliteStore:
    return SqliteStore(path, max_entries=max_entries, timeout=PATIENCE, clock=lambda: NOW)


async def test_entries_of_an_older_file_are_found_replaced_and_taken(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    write_old_file(
        path,
        [
            ("secret", None, NOW - 9, b"s" * 32),
            ("kind:a", NOW + 60, NOW - 9, b"one"),
            ("kind:b", NOW + 60, NOW - 9, b"two"),
            ("kind:c", NOW - 1, NOW - 9, b"expired"),
            ("kind:d", NOW + 60, NOW - 9, b""),
        ],
    )
    store = opened(path)
    assert await store.run(Add("secret", b"new")) == [b"s" * 32]
    assert await store.run(Get("kind:a"), Get("kind:c"), Get("kind:d")) == [b"one", None, b""]
    assert await store.run(Take("kind:a", "ann"), Put("kind:b", b"", 60, "ann")) == [b"one", b"two"]
    await store.close()
    store = opened(path)
    assert await store.run(Get("kind:a"), Get("kind:b"), Get("secret")) == [None, b"", b"s" * 32]
    await store.close()


async def test_older_entries_count_as_those_of_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    write_old_file(path, [(f"kind:old-{n}", NOW + 60, NOW - 100 + n, b"old") for n in range(30)])
    store = opened(path, max_entries=40)
    mine = [Put(f"kind:{number}", b"new", 60, "ann") for number in range(15)]
    for put in mine:
        await store.run(put)
    everything = [Get(f"kind:old-{number}") for number in range(30)]
    while len(left := [n for n, value in enumerate(await store.run(*everything)) if value is not None]) > 25:
        # A pass that began before the last writes may leave too many entries. Another write starts the next one.
        await store.run(mine[-1])
    assert left == list(range(30))[-len(left) :]
    assert len(left) >= 23
    assert await store.run(*(Get(put.key) for put in mine)) == [b"new"] * 15
    await store.close()


def entries_of(path: Path) -> list[OldEntry]:
    connection = sqlite3.connect(path, isolation_level=None)
    entries = connection.execute("SELECT key, expires, written, coalesce(data, value) FROM entries").fetchall()
    connection.close()
    return entries


def old_key(secret: bytes, *parts: tuple[str, str]) -> str:
    """Return the key of an entry as earlier versions made it: a chain of HMACs."""
    link = b""
    for kind, content in parts:
        data = content.encode()
        link = hmac.new(secret, link + kind.encode() + b"\0%d\0" % len(data) + data, hashlib.sha256).digest()
    return link.hex()


async def test_a_response_stored_before_is_found_and_continued_with_a_transcript(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    proxy = serve(state_url=f"sqlite:///{tmp_path}/new.db", workers=2, api_keys=("key-of-ann",))
    headers = {"Authorization": "Bearer key-of-ann"}
    body = {"model": "demo-chat", "input": "SAY<<yes>>"}
    first = (await http.post(f"{proxy.url}/responses", json=body, headers=headers)).json()
    entries = {key: rest for key, *rest in entries_of(tmp_path / "new.db")}
    caller = f"key-{hashlib.sha256(b'key-of-ann').hexdigest()[:16]}"
    key = f"resp:{old_key(entries['secret'][-1], ('caller', caller), ('resp', first['id']))}"
    # Earlier versions stored the scope and the fingerprint of another format.
    stored = msgspec.msgpack.decode(entries[key][-1]) | {"scope": b"s" * 32, "link": b"l" * 32}
    entries[key][-1] = msgspec.msgpack.encode(stored)
    write_old_file(tmp_path / "old.db", [(key, *rest) for key, rest in entries.items()])
    proxy = serve(state_url=f"sqlite:///{tmp_path}/old.db", api_keys=("key-of-ann",))
    found = await http.get(f"{proxy.url}/responses/{first['id']}", headers=headers)
    assert found.json() == first
    previous = first["id"]
    for question in ("second", "third"):
        body = {"model": "demo-chat", "input": question, "previous_response_id": previous}
        previous = (await http.post(f"{proxy.url}/responses", json=body, headers=headers)).json()["id"]
    query = transcript(("user", "SAY<<yes>>"), ("assistant", "yes"), question="second")
    second, third = the_request(log, "second").body, the_request(log, "third").body
    assert (second["query"], second.get("conversation_id")) == (query, None)
    assert third["query"] == "third"
    assert "conversation_id" in third


@pytest.mark.parametrize("broken", [b"", b"x" * 5000])
async def test_a_damaged_secret_of_any_length_is_used(serve: Serve, tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "state.db"
    write_old_file(path, [("secret", None, NOW, broken)])
    async with serve(state_url=f"sqlite:///{path}").client() as client:
        answer = await client.chat.completions.create(
            model="demo-chat", messages=[{"role": "user", "content": "SAY<<yes>>"}]
        )
    assert answer.choices[0].message.content == "yes"
