"""A process that has the file of the state for itself answers from memory, and loses nothing that matters."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.state import Add, Count, Draw, Get, GuardedStore, Put, StateUnavailable, Take
from openai_dify_proxy.state.change_log import is_empty
from openai_dify_proxy.state.counters import read_counts
from openai_dify_proxy.state.shared_database import SharedDatabase
from openai_dify_proxy.state.sharing import SUFFIX
from openai_dify_proxy.state.sqlite import WRITE_SECONDS, SqliteStore
from tests.limits import PATIENCE
from tests.state.processes import Process


def opened(path: Path, *, exclusive: bool = True) -> SqliteStore:
    return SqliteStore(path, max_entries=1000, timeout=PATIENCE, exclusive=exclusive)


def put(key: str, value: bytes) -> Put:
    return Put(key, value, ttl=3600, deferred=True)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another thread or process does the work
        await asyncio.sleep(0.001)


async def until_alone(store: SqliteStore) -> None:
    """Wait until the store answers from memory, also about entries that it does not know."""
    await store.run(Get("kind:present"))
    await until(lambda: store.run_now(Get("kind:absent")) is not None)


def delete(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def keys_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM entries")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Return a store that answers from memory. The file has an entry that it does not know."""
    before = opened(path)
    await before.run(Put("kind:a", b"one", ttl=3600))
    await before.close()
    store = opened(path)
    await until_alone(store)
    yield store
    await store.close()


async def test_operations_are_answered_at_once(store: SqliteStore) -> None:
    assert store.run_now(put("kind:b", b"two"), Get("kind:b")) == [None, b"two"]
    assert store.run_now(put("kind:b", b"three"), Add("kind:b", b"four", deferred=True)) == [b"two", b"three"]
    assert store.run_now(Take("kind:b"), Get("kind:b")) == [b"three", None]
    counts = store.run_now(Count("kind:counts", 60, (("turns", 2),)))
    assert counts is not None
    assert read_counts(counts[0]) == {"turns": 2}
    assert store.run_now(Draw("kind:bucket", 0.001, 1)) == [b"1 1"]


async def test_an_unknown_entry_of_the_file_has_to_be_read(store: SqliteStore) -> None:
    assert store.run_now(put("kind:b", b"two"), Take("kind:a")) is None
    assert store.run_now(Get("kind:b")) == [None]  # nothing was run
    assert await store.run(Get("kind:a")) == [b"one"]
    assert store.run_now(Take("kind:a")) == [b"one"]


@pytest.mark.parametrize(
    "operation",
    [
        put("kind:b", bytes(300_000)),
        Get("kind:b", large=True),
        Put("kind:b", b"two", ttl=60),
        Add("kind:b", b"two", ttl=60),
    ],
    ids=["large", "large read", "written at once", "added at once"],
)
async def test_large_entries_and_those_that_are_not_deferred_need_the_file(
    path: Path, store: SqliteStore, operation: Put | Add | Get
) -> None:
    assert store.run_now(operation) is None
    assert await store.run(operation) == [None]
    assert ("kind:b" in keys_in(path)) == (not isinstance(operation, Get))


async def test_a_small_run_beside_a_large_one_of_the_same_entry(store: SqliteStore) -> None:
    store.run_now(put("kind:b", b"two"))
    large = asyncio.create_task(store.run(put("kind:b", bytes(300_000))))
    await asyncio.sleep(0)
    assert store.run_now(put("kind:b", b"three")) is None
    ((first,), (second,)) = await asyncio.gather(large, store.run(put("kind:b", b"three")))
    (last,) = await store.run(Get("kind:b"))
    assert (first, second, last) in {(b"two", bytes(300_000), b"three"), (b"three", b"two", bytes(300_000))}


async def test_an_invalid_key_fails_alone(store: SqliteStore) -> None:
    assert store.run_now(put("kind:\udc80", b"two")) is None
    with pytest.raises(StateUnavailable):
        await store.run(put("kind:\udc80", b"two"))
    assert await store.run(put("kind:b", b"two"), Get("kind:a")) == [None, b"one"]


async def test_a_closed_store_answers_nothing(store: SqliteStore) -> None:
    await store.close()
    assert store.run_now(Get("kind:b")) is None


async def test_a_guarded_store_answers_at_once_unless_the_state_fails(store: SqliteStore) -> None:
    guarded = GuardedStore(store, pause=PATIENCE)
    with capture_logs() as logs:
        assert guarded.run_now(put("kind:b", bytes(17 * 1024 * 1024))) == [None]
    assert [line["event"] for line in logs] == ["state_entry_too_large"]
    assert guarded.run_now(put("kind:b", b"two")) == [None]
    await store.close()
    assert await guarded.run(Get("kind:b")) is None
    assert guarded.run_now(Get("kind:b")) is None


# Crashes


async def test_a_killed_process_has_taken_what_it_took(path: Path, store: SqliteStore) -> None:
    await store.close()
    process = Process(path, "take_now", "took b'one'")
    assert "kind:a" in keys_in(path)
    process.kill()
    again = opened(path)
    assert await again.run(Get("kind:a")) == [None]
    await again.close()
    assert keys_in(path) == set()


async def test_an_entry_put_back_after_a_take_survives_later_crashes(path: Path, store: SqliteStore) -> None:
    await store.close()
    Process(path, "take_now", "took b'one'").kill()
    again = opened(path)
    await until_alone(again)
    assert again.run_now(put("kind:a", b"back")) == [None]
    await again.close()
    Process(path, "put_now", "put None").kill()
    assert keys_in(path) == {"kind:a"}


async def test_a_killed_process_loses_what_it_has_just_written(path: Path, store: SqliteStore) -> None:
    await store.close()
    Process(path, "put_now", "put None").kill()
    again = opened(path)
    assert await again.run(Get("kind:a"), Get("kind:b")) == [b"one", None]
    await again.close()


async def test_a_killed_process_keeps_what_it_has_logged(path: Path, store: SqliteStore) -> None:
    await store.close()
    process = Process(path, "serve", "put None")
    with path.with_name(path.name + SUFFIX).open("rb") as log:
        await until(lambda: not is_empty(log.fileno()))
    process.kill()
    again = opened(path)
    assert await again.run(Take("kind:b")) == [b"two"]
    await again.close()
    again = opened(path)
    assert await again.run(Get("kind:b")) == [None]
    await again.close()


@pytest.mark.parametrize("exclusive", [True, False])
async def test_a_killed_process_has_taken_what_it_wrote_itself(
    path: Path, store: SqliteStore, *, exclusive: bool
) -> None:
    await store.close()
    Process(path, "put_and_take_now", "took b'two'").kill()
    again = opened(path, exclusive=exclusive)
    assert await again.run(Get("kind:a"), Get("kind:b")) == [b"one", None]
    await again.close()


async def test_logged_changes_are_not_repeated_over_later_ones(path: Path, store: SqliteStore) -> None:
    await store.close()
    Process(path, "replace", "replaced b'two' b'two'").kill()
    again = opened(path)
    assert await again.run(Get("kind:b"), Get("kind:c")) == [b"three", None]
    await again.close()


async def test_a_new_file_gets_no_changes_of_a_deleted_one(path: Path, store: SqliteStore) -> None:
    await store.close()
    Process(path, "put_and_take_now", "took b'two'").kill()
    delete(path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"))
    again = opened(path)
    await again.run(Put("kind:b", b"new", ttl=3600))
    await again.close()
    assert keys_in(path) == {"kind:b"}


async def test_a_killed_process_has_taken_what_it_took_from_a_file_that_replaced_another(
    path: Path, store: SqliteStore, tmp_path: Path
) -> None:
    for _ in range(3):  # the file records a later batch than the process below reaches
        store.run_now(put("kind:b", b"two"))
        await store.run(Put("kind:c", b"three", ttl=3600))
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
        target.execute("INSERT INTO entries VALUES ('kind:new', NULL, 0, x'6e6577', '', NULL)")
        target.commit()
    await store.close()
    process = Process(path, "take_after_signal")
    delete(path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"))
    backup.rename(path)
    process.go()
    process.expect("took b'one'")
    process.kill()
    again = opened(path)
    assert await again.run(Get("kind:a"), Get("kind:new")) == [None, b"new"]
    await again.close()


def test_a_new_connection_to_the_same_file_records_the_same_batch(path: Path) -> None:
    database = SharedDatabase(path, exclusive=True)
    database.listen(lambda _: None)
    database.record_batch(database.connected(), 7)
    database.disconnect()  # as after an error
    assert database.connected().execute("PRAGMA application_id").fetchone() == (7,)
    database.close(clean=True)


async def test_a_full_log_leaves_takes_to_the_file(path: Path, store: SqliteStore) -> None:
    for number in range(7):
        assert store.run_now(put(f"kind:{number}", bytes(200_000))) == [None]
    assert store.run_now(Take("kind:0")) is None
    assert await store.run(Take("kind:0")) == [bytes(200_000)]
    assert keys_in(path) == {"kind:a", *(f"kind:{number}" for number in range(1, 7))}


async def test_changes_that_the_log_has_no_room_for_are_written_at_once(path: Path, store: SqliteStore) -> None:
    begun = asyncio.get_running_loop().time()
    for number in range(7):
        assert store.run_now(put(f"kind:{number}", bytes(200_000))) == [None]
    await until(lambda: "kind:6" in keys_in(path))
    assert asyncio.get_running_loop().time() - begun < WRITE_SECONDS


async def test_entries_are_written_without_a_further_run(path: Path, store: SqliteStore) -> None:
    await store.close()
    process = Process(path, "serve", "put None")
    await until(lambda: "kind:b" in keys_in(path))
    process.kill()
    again = opened(path)
    assert await again.run(Get("kind:b")) == [b"two"]
    await again.close()


async def test_closing_writes_everything(path: Path, store: SqliteStore) -> None:
    loading = asyncio.create_task(store.run(Take("kind:a"), put("kind:c", b"three")))
    await asyncio.sleep(0)
    store.run_now(put("kind:b", b"two"))
    await store.close()
    assert await loading == [b"one", None]
    assert keys_in(path) == {"kind:b", "kind:c"}


# Other processes


async def test_another_process_gets_the_file_with_everything_in_it(path: Path, store: SqliteStore) -> None:
    assert await store.run(Get("kind:a")) == [b"one"]
    store.run_now(Take("kind:a"), put("kind:7", b"seven"))
    other = await asyncio.to_thread(Process, path, "stay")
    assert store.run_now(Get("kind:7")) is None
    assert await store.run(Get("kind:7")) == [b"seven"]
    other.go()
    assert other.result() == "None b'seven'\n"
    assert await store.run(Get("kind:7")) == [None]
    # It has the file for itself again, and does not remember the taken entry.
    await until(lambda: store.run_now(Get("kind:absent")) is not None)
    assert await store.run(Get("kind:7")) == [None]


async def test_four_processes_and_a_server_take_each_entry_once(path: Path, store: SqliteStore) -> None:
    store.run_now(*(put(f"kind:{number}", b"one") for number in range(200)))
    processes = await asyncio.gather(*(asyncio.to_thread(Process, path, "take") for _ in range(4)))
    for process in processes:
        process.go()
    found = await asyncio.gather(*(store.run(Take(f"kind:{number}")) for number in range(200)))
    taken = [number for number, (value,) in enumerate(found) if value is not None]
    taken += [int(number) for process in processes for number in process.result().split()]
    assert sorted(taken) == list(range(200))


async def test_two_servers_share_the_file_until_one_ends(path: Path, store: SqliteStore) -> None:
    store.run_now(put("kind:b", b"two"))
    other = opened(path)
    assert await other.run(Take("kind:b")) == [b"two"]
    assert await store.run(Take("kind:b"), put("kind:c", b"three")) == [None, None]
    await store.close()
    await until(lambda: other.run_now(Get("kind:absent")) is not None)
    assert await other.run(Get("kind:c")) == [b"three"]
    await other.close()


async def test_a_process_that_only_reads_costs_no_knowledge(path: Path, store: SqliteStore) -> None:
    store.run_now(put("kind:b", b"two"))
    reader = opened(path, exclusive=False)
    assert await reader.run(Get("kind:b")) == [b"two"]
    assert store.run_now(Get("kind:b")) is None
    await reader.close()
    await until(lambda: store.run_now(Get("kind:b")) is not None)
    assert store.run_now(Get("kind:b"), Get("kind:absent")) == [b"two", None]


async def test_changes_of_programs_without_the_lock_are_noticed(path: Path, store: SqliteStore) -> None:
    assert await store.run(Get("kind:a")) == [b"one"]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM entries")
        connection.execute("INSERT INTO entries (key, written, value) VALUES ('kind:new', 0, x'01')")
    await until(lambda: store.run_now(Get("kind:a")) != [b"one"])
    assert await store.run(Get("kind:a"), Get("kind:new")) == [None, b"\1"]


async def test_nothing_known_survives_the_deletion_of_the_file(path: Path, store: SqliteStore) -> None:
    assert await store.run(Get("kind:a")) == [b"one"]
    delete(path)
    await until(lambda: store.run_now(Get("kind:a")) != [b"one"])
    assert await store.run(Get("kind:a"), put("kind:b", b"two")) == [None, None]


async def test_after_the_deletion_of_all_files_the_lock_holds_again(path: Path, store: SqliteStore) -> None:
    delete(*path.parent.iterdir())
    await until(path.exists)
    await until_alone(store)
    store.run_now(put("kind:b", b"two"))
    other = opened(path, exclusive=False)
    assert await other.run(Take("kind:b")) == [b"two"]
    await other.close()
    assert await store.run(Get("kind:b")) == [None]


# Faults


async def test_a_full_disk(path: Path, store: SqliteStore) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with capture_logs() as logs:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limit[1]))
        try:
            assert store.run_now(put("kind:b", bytes(200_000)), put("kind:c", b"three")) == [None, None]
            assert store.run_now(put("kind:d", bytes(200_000))) == [None]
            await until(lambda: store.run_now(Get("kind:c")) is None)
            assert await store.run(Get("kind:b"), Get("kind:c")) == [bytes(200_000), b"three"]
            with pytest.raises(StateUnavailable):
                await store.run(put("kind:e", b"five"))
            assert await store.run(Get("kind:d"), Get("kind:a")) == [bytes(200_000), b"one"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        await until(lambda: store.run_now(Get("kind:absent")) is not None)
    assert [line["event"] for line in logs] == ["state_write_failed"]
    assert keys_in(path) >= {"kind:a", "kind:b", "kind:c", "kind:d"}


async def test_the_backlog_has_a_limit(path: Path, store: SqliteStore) -> None:
    lock = Process(path, "lock")
    written = 0
    while store.run_now(put(f"kind:{written}", bytes(200_000))) is not None:
        written += 1
    assert 70 <= written <= 100
    lock.go()
    lock.result()
    await until(lambda: store.run_now(Get("kind:absent")) is not None)
    await store.close()
    assert len(keys_in(path)) == written + 1
