"""Open the store that a URL names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from openai_dify_proxy.settings.state_urls import STATES, is_shared
from openai_dify_proxy.state import Put, Store, open_store
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.sqlite import SqliteStore
from openai_dify_proxy.state.valkey import ValkeyStore


@pytest.mark.parametrize("scheme", STATES)
async def test_every_scheme_of_the_settings_can_be_opened(scheme: str, tmp_path: Path) -> None:
    kinds: dict[str, type[Store]] = {"memory": MemoryStore, "sqlite": SqliteStore}
    rest = {"memory": "", "sqlite": "/state.db", "unix": "/run/valkey.sock"}.get(scheme, "user:word@127.0.0.1:6379")
    url = f"{scheme.upper()}://{rest}"
    assert is_shared(url) is (scheme != "memory")
    store = await open_store(url, max_entries=10)
    assert type(store) is kinds.get(scheme, ValkeyStore)
    await store.close()


async def test_a_path_is_relative_to_the_working_directory_or_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///here/a b%20.db", f"sqlite:///{tmp_path}/there.db"):
        store = await open_store(url, max_entries=10)
        await store.run(Put("kind:a", b"one"))
        await store.close()
    assert (tmp_path / "here" / "a b%20.db").is_file()
    assert (tmp_path / "there.db").is_file()


LOADED = """
import asyncio, json, sys
from openai_dify_proxy.state import open_store
asyncio.run(open_store(sys.argv[1], max_entries=10))
print(json.dumps([name for name in ("redis", "openai_dify_proxy.state.sqlite") if name in sys.modules]))
"""


@pytest.mark.parametrize(
    ("url", "modules"),
    [
        ("memory://", []),
        ("sqlite:///x.db", ["openai_dify_proxy.state.sqlite"]),
        ("redis://127.0.0.1", ["redis"]),
    ],
)
def test_only_required_modules_are_imported(url: str, modules: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, url], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == modules
