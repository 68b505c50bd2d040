"""State in a file: several processes, older and newer file versions, and file faults of every kind."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from openai_dify_proxy.state import Get, Put, StateUnavailable, Take
from openai_dify_proxy.state.sqlite import SqliteStore
from openai_dify_proxy.state.sqlite_file import SCHEMA, migrate, open_database
from openai_dify_proxy.state.sqlite_tidying import SCAN_SECONDS, Tidying
from tests.limits import PATIENCE
from tests.state.processes import Process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, max_entries=1000, timeout=PATIENCE)
    yield store
    await store.close()


def delete(path: Path) -> None:
    path.unlink()


def write(path: Path, data: bytes, start: int = 0) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(start)
        file.write(data)


def allow(path: Path, mode: int) -> None:
    path.chmod(mode)


def read(path: Path) -> bytes:
    return path.read_bytes()


def rows(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
    connection.close()
    return int(count)


async def test_entries_survive_a_restart(path: Path, store: SqliteStore) -> None:
    await store.run(Put("kind:a", b"one", ttl=60))
    await store.close()
    again = SqliteStore(path, max_entries=1000, timeout=PATIENCE)
    assert await again.run(Take("kind:a")) == [b"one"]
    await again.close()


async def test_four_processes_take_each_entry_once(path: Path, store: SqliteStore) -> None:
    await store.run(*(Put(f"kind:{number}", b"one", ttl=60) for number in range(200)))
    processes = [Process(path, "take") for _ in range(4)]
    for process in processes:
        process.go()
    taken = [int(number) for process in processes for number in process.result().split()]
    assert sorted(taken) == list(range(200))


def test_four_processes_create_the_file_at_once(path: Path) -> None:
    processes = [Process(path, "create") for _ in range(4)]
    for process in processes:
        process.go()
    assert sorted(process.result() for process in processes) == ["None\n", "b'one'\n", "b'one'\n", "b'one'\n"]
    assert rows(path) == 1


async def test_folders_are_created_with_access_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "new" / "folder" / "state.db", max_entries=1000)
        await store.run(Put("kind:a", b"one"))
        folder = tmp_path / "new" / "folder"
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
        assert modes.keys() >= {"state.db", "state.db-wal", "state.db-shm"}
        assert set(modes.values()) == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700
        await store.close()
    finally:
        os.umask(before)


async def test_a_path_may_start_with_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = SqliteStore("~/share/state.db", max_entries=1000)
    await store.run(Put("kind:a", b"one"))
    await store.close()
    assert rows(tmp_path / "share" / "state.db") == 1


async def test_the_thread_ends_with_the_store(store: SqliteStore) -> None:
    others = set(threading.enumerate())
    await store.run(Get("kind:a"))
    (own,) = (thread for thread in set(threading.enumerate()) - others if thread.name == "state")
    await store.close()
    assert not own.is_alive()


async def test_expired_entries_leave_the_disk(path: Path) -> None:
    now = 1_000_000.0
    store = SqliteStore(path, max_entries=1000, timeout=PATIENCE, clock=lambda: now)
    await store.run(*(Put(f"kind:{number}", b"one", ttl=10) for number in range(500)), Put("kind:stays", b"one"))
    await store.run(Get("kind:stays"))  # completes the scan for expired entries that the first run starts
    now += 20
    # This entry expired and is written again, so it stays.
    await store.run(Put("kind:7", b"two", ttl=3 * SCAN_SECONDS))
    assert rows(path) == 501
    now += SCAN_SECONDS
    await store.run(Get("kind:stays"))
    while rows(path) > 2:
        pass
    assert await store.run(Get("kind:stays"), Get("kind:7")) == [b"one", b"two"]
    await store.close()


async def test_expired_entries_of_a_locked_file_leave_the_disk_later(path: Path) -> None:
    now = 1_000_000.0
    store = SqliteStore(path, max_entries=1000, timeout=PATIENCE, clock=lambda: now)
    await store.run(*(Put(f"kind:{number}", b"one", ttl=10) for number in range(500)))
    await store.run(Get("kind:1"))  # completes the first scan
    process = Process(path, "lock")
    now += SCAN_SECONDS  # only now: otherwise the scan would remove them before the file is locked
    assert await store.run(Get("kind:1")) == [None]
    # When this run completes, the scan has failed on the lock.
    assert await store.run(Get("kind:1")) == [None]
    assert rows(path) == 500
    process.go()
    process.result()
    await store.run(Get("kind:1"))
    while rows(path) > 0:
        now += SCAN_SECONDS
        await store.run(Get("kind:1"))
    await store.close()


async def test_two_stores_of_a_file_keep_its_limit_together(path: Path) -> None:
    stores = [SqliteStore(path, max_entries=100, timeout=PATIENCE) for _ in range(2)]
    for number in range(200):
        for name, store in zip(("ann", "bob"), stores, strict=True):
            await store.run(Put(f"kind:{name}-{number}", b"one", 60, name))
    await stores[0].run(Put("kind:carl", b"one", 60, "carl"))
    while rows(path) > 100:
        await stores[0].run(Put("kind:ann-200", b"one", 60, "ann"))
    newest = [Get("kind:ann-199"), Get("kind:bob-199"), Get("kind:carl")]
    assert await stores[1].run(*newest) == [b"one"] * 3
    for store in stores:
        await store.close()


async def test_small_runs_do_not_wait_for_all_large_ones(store: SqliteStore) -> None:
    ended: list[str] = []

    async def put(name: str, size: int) -> None:
        await store.run(Put(f"kind:{name}", bytes(size), 60, "ann"))
        ended.append(name)

    await asyncio.gather(*(put(f"large-{number}", 1_000_000) for number in range(20)), put("small", 10))
    assert ended.index("small") < ended.index("large-19")


# Steps of tidying


class Step(NamedTuple):
    """The work of a step of tidying: removed rows, and instructions of SQLite's virtual machine in thousands."""

    removed: int
    work: int


def fill(connection: sqlite3.Connection, count: int, size: int = 10) -> None:
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO entries (key, expires, written, value, owner, data) VALUES (?, ?, ?, x'', ?, ?)",
        ((f"kind:{n * 7919 % count}", 2e9, n, f"owner-{n % 7}" if n % 2 else "big", bytes(size)) for n in range(count)),
    )
    connection.execute("COMMIT")


def steps_of(connection: sqlite3.Connection, limit: int, max_bytes: int = 1 << 30) -> list[Step]:
    """Tidy to the limit and return the steps."""
    work = 0

    def count() -> int:
        nonlocal work
        work += 1
        return 0

    connection.set_progress_handler(count, 1000)
    steps = []
    tidying = Tidying(limit, max_bytes, lambda: 1_000_000.0)
    due = tidying.due
    assert due
    before = connection.total_changes
    for _ in tidying.steps(connection):
        steps.append(Step(connection.total_changes - before, work))
        before, work = connection.total_changes, 0
    connection.set_progress_handler(None, 0)
    assert not tidying.due
    return steps


@pytest.mark.parametrize("count", [5_000, 40_000])
def test_a_step_does_not_grow_with_the_table(path: Path, count: int) -> None:
    connection = open_database(path)
    fill(connection, count)
    limit = count * 9 // 10
    steps = steps_of(connection, limit)
    assert rows(path) == limit - limit // 20
    assert sum(step.removed for step in steps) == count - rows(path)
    assert max(step.removed for step in steps) <= 100
    assert max(step.work for step in steps) <= 100
    # Two passes over the table, and the removals.
    assert len(steps) <= 2 * (count / 1000 + 2) + (count - rows(path)) / 100 + 5
    owners = dict(connection.execute("SELECT owner, count(*) FROM entries GROUP BY owner").fetchall())
    assert owners.pop("big") == count // 2 - (count - rows(path))
    assert owners == fill_counts(count)
    connection.close()


def fill_counts(count: int) -> dict[str, int]:
    """Return how many entries ``fill`` gives to each small owner."""
    owners = [f"owner-{n % 7}" for n in range(1, count, 2)]
    return {owner: owners.count(owner) for owner in set(owners)}


def test_a_step_removes_few_bytes(path: Path) -> None:
    connection = open_database(path)
    fill(connection, 60, size=1_000_000)
    steps = steps_of(connection, 1000, max_bytes=20_000_000)
    assert 11 <= rows(path) <= 19  # each owner loses whole entries
    assert max(step.removed for step in steps) <= 5
    connection.close()


# Versions of the file


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


NEXT = (*SCHEMA, "ALTER TABLE entries ADD COLUMN colour TEXT DEFAULT 'red'")
BROKEN = (*NEXT, "CREATE TABLE more (one)", "CREATE TABLE more (two)")


async def test_an_older_file_is_migrated_with_its_entries(store: SqliteStore, connection: sqlite3.Connection) -> None:
    await store.run(Put("kind:a", b"one"))
    await store.close()
    migrate(connection, NEXT)
    migrate(connection, NEXT)
    assert connection.execute("SELECT key, data, colour FROM entries").fetchall() == [("kind:a", b"one", "red")]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(NEXT),)


async def test_a_failed_migration_leaves_the_file_unchanged(store: SqliteStore, connection: sqlite3.Connection) -> None:
    await store.run(Put("kind:a", b"one"))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection, BROKEN)
    connection.close()
    assert await store.run(Take("kind:a")) == [b"one"]


async def test_a_newer_file_is_rejected_and_unchanged(
    path: Path, store: SqliteStore, connection: sqlite3.Connection
) -> None:
    migrate(connection, NEXT)
    with pytest.raises(StateUnavailable) as caught:
        await store.run(Put("kind:a", b"one"))
    assert str(caught.value) == f"{path}: a newer version of the proxy wrote the state (schema 4, this version knows 3)"
    assert connection.execute("PRAGMA user_version").fetchone() == (len(NEXT),)
    assert rows(path) == 0


# File faults. In each case the next run succeeds once the fault is resolved.


async def test_waiting_for_a_lock_has_a_limit(path: Path, store: SqliteStore) -> None:
    await store.run(Put("kind:a", b"one"))
    process = Process(path, "lock")
    with pytest.raises(StateUnavailable, match="locked"):
        await store.run(Take("kind:a"))
    assert await store.run(Get("kind:a")) == [b"one"]
    waiting = asyncio.create_task(store.run(Put("kind:b", b"two")))
    process.go()
    assert await waiting == [None]
    assert process.result() == "unlocked\n"
    assert await store.run(Take("kind:a")) == [b"one"]


async def test_a_lock_does_not_block_the_event_loop(path: Path, store: SqliteStore) -> None:
    await store.run(Put("kind:a", b"one"))
    process = Process(path, "lock")
    waiting = asyncio.create_task(store.run(Take("kind:a")))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1000
    assert isinstance(waiting.exception(), StateUnavailable)
    process.go()
    process.result()


async def test_a_full_disk(store: SqliteStore) -> None:
    await store.run(Put("kind:a", b"one"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limit[1]))
    try:
        with pytest.raises(StateUnavailable):
            await store.run(Put("kind:b", bytes(1_000_000)))
        assert await store.run(Get("kind:a"), Get("kind:b")) == [b"one", None]
        assert await store.run(Put("kind:c", b"three")) == [None]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert await store.run(Put("kind:b", bytes(1_000_000)), Get("kind:c")) == [None, b"three"]


@contextmanager
def without_root() -> Iterator[None]:
    """Drop root rights temporarily, since root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_file_without_write_permission() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "state.db"
        store = SqliteStore(path, max_entries=1000, timeout=PATIENCE)
        await store.run(Put("kind:a", b"one"))
        await store.close()
        allow(path, 0o444)
        allow(path.parent, 0o555)
        store = SqliteStore(path, max_entries=1000, timeout=PATIENCE)
        with without_root(), pytest.raises(StateUnavailable, match="ermission denied"):
            await store.run(Put("kind:b", b"two"))
        allow(path.parent, 0o700)
        allow(path, 0o600)
        assert await store.run(Put("kind:b", b"two"), Get("kind:a")) == [None, b"one"]
        await store.close()


async def test_a_file_that_is_not_a_database(path: Path, store: SqliteStore) -> None:
    write(path, b"Dear diary, " * 1000)
    for _ in range(2):
        with pytest.raises(StateUnavailable) as caught:
            await store.run(Get("kind:a"))
        assert str(caught.value) == f"{path}: file is not a database"
    assert read(path) == b"Dear diary, " * 1000
    delete(path)
    assert await store.run(Put("kind:a", b"one")) == [None]


async def test_a_corrupted_file(path: Path, store: SqliteStore) -> None:
    everything = [Put(f"kind:{number}", bytes(500)) for number in range(500)]
    await store.run(*everything)
    await store.close()
    write(path, b"\xff" * (len(read(path)) - 4096), start=4096)
    broken = SqliteStore(path, max_entries=1000, timeout=PATIENCE)
    with pytest.raises(StateUnavailable, match="malformed"):
        await broken.run(*everything)
    delete(path)
    assert await broken.run(*everything) == [None] * 500
    await broken.close()


async def test_a_file_deleted_under_two_processes_is_created_again_for_both(path: Path, store: SqliteStore) -> None:
    await store.run(Put("kind:a", b"one"), *(Put(f"kind:old-{number}", bytes(2000)) for number in range(100)))
    other = Process(path, "stay")
    delete(path)
    # The new file is created while the other process still has the old one and its cached pages open.
    assert await store.run(*(Put(f"kind:{number}", b"new") for number in range(300))) == [None] * 300
    other.go()
    *log, found = other.result().splitlines()
    assert "state_file_replaced" in "".join(log)
    assert found == "None b'new'"
    assert await store.run(Get("kind:7"), Get("kind:8")) == [None, b"new"]
    await store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert rows(path) == 299


async def test_a_deleted_folder_is_created_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "folder" / "state.db", max_entries=1000)
    await store.run(Put("kind:a", b"one"))
    shutil.rmtree(tmp_path / "folder")
    assert await store.run(Put("kind:a", b"two")) == [None]
    assert await store.run(Get("kind:a")) == [b"two"]
    await store.close()


async def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = SqliteStore(tmp_path / "file" / "state.db", max_entries=1000)
    with pytest.raises(StateUnavailable, match=r"Not a directory|File exists"):
        await store.run(Get("kind:a"))
    (tmp_path / "file").unlink()
    assert await store.run(Get("kind:a")) == [None]
    await store.close()
