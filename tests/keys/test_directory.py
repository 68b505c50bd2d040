"""The keys that a server accepts, with a state that a test writes, breaks and repairs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from openai_dify_proxy.errors import StateUnreachable
from openai_dify_proxy.keys.changes import add_key, revoke_key, rotate_key
from openai_dify_proxy.keys.client_key import ClientKey, hash_of
from openai_dify_proxy.keys.directory import KeyDirectory
from openai_dify_proxy.keys.key_store import KEYS, VERSION, change_keys
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.store import Operation, Put, StateUnavailable, Take
from tests.limits import PATIENCE

MAX_AGE = 300.0


class Time:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class BreakableStore(MemoryStore):
    """A state that a test can make unreachable."""

    broken = False

    async def run(self, *operations: Operation) -> list[bytes | None]:
        if self.broken:
            raise StateUnavailable("broken by the test")
        return await super().run(*operations)


def key(name: str, **more: object) -> ClientKey:
    return structs.replace(ClientKey(id=f"key-{name}", name=name, hash=hash_of(name)), **more)


async def add(store: MemoryStore, *keys: ClientKey) -> None:
    for new in keys:
        await change_keys(store, lambda old, new=new: (add_key(old, new), None))  # type: ignore[misc]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store() -> BreakableStore:
    return BreakableStore(max_entries=10)


Directory = KeyDirectory[str]


@pytest.fixture
async def opened() -> AsyncIterator[list[Directory]]:
    directories: list[Directory] = []
    yield directories
    for directory in directories:
        await directory.close()


async def open_directory(
    opened: list[Directory], store: MemoryStore | None, time: Time, configured: Sequence[ClientKey] = ()
) -> Directory:
    directory = Directory(configured, store, lambda key: key.name, max_age=MAX_AGE, now=time, clock=time)
    opened.append(directory)
    await directory.open()
    return directory


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the directory has followed a change. It polls twice a second."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the directory has no event
            await asyncio.sleep(0.01)


async def until_found(directory: Directory, key: str, name: str | None) -> None:
    await until(lambda: directory.find(key) == name)


def is_closed(directory: Directory) -> bool:
    return directory.closed


def is_known(directory: Directory, key: str) -> bool:
    try:
        directory.find(key)
    except StateUnreachable:
        return False
    return True


async def test_changes_arrive_while_the_server_runs(opened: list[Directory], store: BreakableStore, time: Time) -> None:
    directory = await open_directory(opened, store, time)
    assert not is_closed(directory)
    await add(store, key("anna"), key("bert"))
    await until_found(directory, "anna", "anna")
    assert is_closed(directory)
    assert directory.find("bert") == "bert"
    await change_keys(store, lambda keys: revoke_key(keys, "anna", time.now))
    await until_found(directory, "anna", None)
    assert directory.why_not("anna") == "was revoked"
    assert directory.find("bert") == "bert"


async def test_a_server_whose_last_key_was_revoked_stays_closed(
    opened: list[Directory], store: BreakableStore, time: Time
) -> None:
    await add(store, key("anna"))
    await change_keys(store, lambda keys: revoke_key(keys, "anna", time.now))
    directory = await open_directory(opened, store, time)
    assert directory.closed
    assert directory.find("anna") is None


async def test_old_secrets_and_keys_expire_by_themselves(
    opened: list[Directory], store: BreakableStore, time: Time
) -> None:
    await add(store, key("anna"), key("bert", expires_at=time.now + 50))
    await change_keys(store, lambda keys: rotate_key(keys, "anna", "new", time.now, 100))
    directory = await open_directory(opened, store, time)
    assert [directory.find(secret) for secret in ("anna", "new", "bert")] == ["anna", "anna", "bert"]
    time.now += 50
    await until_found(directory, "bert", None)
    assert directory.why_not("bert") == "has expired"
    assert directory.find("anna") == "anna"
    time.now += 50
    await until_found(directory, "anna", None)
    assert directory.why_not("anna") == "was replaced by a new one"
    assert directory.why_not("never a key") is None
    assert directory.find("new") == "anna"


async def test_while_the_state_is_unreachable_keys_count_for_a_limited_time(
    opened: list[Directory], store: BreakableStore, time: Time
) -> None:
    await add(store, key("anna"))
    directory = await open_directory(opened, store, time, [key("configured")])
    with capture_logs() as logs:
        store.broken = True
        time.now += MAX_AGE
        assert directory.find("anna") == "anna"
        assert directory.find("unknown") is None
        time.now += 1
        await until(lambda: bool(logs))
        for secret in ("anna", "unknown"):
            with pytest.raises(StateUnreachable):
                directory.find(secret)
        assert directory.find("configured") == "configured"
        assert directory.find("app-of-dify") is None  # a key for Dify alone
        store.broken = False
        await until(lambda: is_known(directory, "anna"))
        assert directory.find("anna") == "anna"
    assert [entry["event"] for entry in logs] == ["client_keys_not_read"]


async def test_a_state_that_is_unreachable_at_the_start_lets_nobody_in(
    opened: list[Directory], store: BreakableStore, time: Time
) -> None:
    await add(store, key("anna"))
    store.broken = True
    directory = await open_directory(opened, store, time)
    assert directory.closed
    assert not is_known(directory, "bert")
    with pytest.raises(StateUnreachable):
        directory.find("anna")
    store.broken = False
    await until(lambda: is_known(directory, "anna"))
    assert directory.find("anna") == "anna"


@pytest.mark.parametrize("damage", [b"", b"not JSON", b'{"version": "x", "keys": [{"id": 1}]}', b"[" * 5000])
async def test_keys_that_cannot_be_read_let_nobody_in(
    opened: list[Directory], store: BreakableStore, time: Time, damage: bytes
) -> None:
    await add(store, key("anna"))
    await store.run(Put(KEYS, damage))
    directory = await open_directory(opened, store, time)
    assert directory.closed
    with pytest.raises(StateUnreachable):
        directory.find("anna")


async def test_a_state_that_lost_its_keys_lets_nobody_in(
    opened: list[Directory], store: BreakableStore, time: Time
) -> None:
    await add(store, key("anna"))
    directory = await open_directory(opened, store, time)
    with capture_logs() as logs:
        await store.run(Take(KEYS), Take(VERSION))
        await until_found(directory, "anna", None)
    assert directory.closed
    assert [entry["event"] for entry in logs] == ["client_keys_lost"]


async def test_a_revoked_key_is_refused_even_if_it_is_in_the_settings(
    opened: list[Directory], store: BreakableStore, time: Time
) -> None:
    await add(store, key("both"))
    directory = await open_directory(opened, store, time, [key("both")])
    assert directory.find("both") == "both"
    await change_keys(store, lambda keys: revoke_key(keys, "both", time.now))
    await until_found(directory, "both", None)


async def test_a_state_in_memory_has_the_keys_of_the_settings_only(opened: list[Directory], time: Time) -> None:
    directory = await open_directory(opened, None, time, [key("anna", expires_at=time.now + 10)])
    assert directory.closed
    assert (directory.find("anna"), directory.find("bert")) == ("anna", None)
    time.now += 10
    await until_found(directory, "anna", None)
    assert not (await open_directory(opened, None, time)).closed


async def test_concurrent_changes_lose_none(store: BreakableStore) -> None:
    names = [str(number) for number in range(20)]
    await asyncio.gather(*(add(store, key(name)) for name in names))
    found = await change_keys(store, lambda keys: (keys, [key.name for key in keys]))
    assert sorted(found) == sorted(names)
