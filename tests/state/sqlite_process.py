"""Run a store in a separate process: ``python -m tests.state.sqlite_process PATH COMMAND``.

It prints ``ready``, waits for a line on stdin, runs the command and prints the results.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys

from openai_dify_proxy.state import Get, Put, Take
from openai_dify_proxy.state.sqlite import SqliteStore
from openai_dify_proxy.state.store import DEFER_SECONDS


async def take(path: str) -> None:
    """Take 200 keys concurrently, and print the keys whose entries this process received."""
    store = SqliteStore(path, max_entries=1000)
    await store.run(Get("kind:none"))
    ready()
    found = await asyncio.gather(*(store.run(Take(f"kind:{number}")) for number in range(200)))
    write(*(number for number, (value,) in enumerate(found) if value is not None))
    await store.close()


async def create(path: str) -> None:
    """Open a file, which may not exist, and write to it."""
    store = SqliteStore(path, max_entries=1000)
    ready()
    write(*await store.run(Put("kind:a", b"one")))
    await store.close()


async def stay(path: str) -> None:
    """Open the file before the signal, and take entries after it."""
    store = SqliteStore(path, max_entries=1000)
    await store.run(Get("kind:a"))
    ready()
    write(*await store.run(Take("kind:a"), Take("kind:7")))
    await store.close()


async def exclusive(path: str) -> SqliteStore:
    """Open a file that no other process uses, and return when the store answers from memory."""
    store = SqliteStore(path, max_entries=1000, exclusive=True)
    await store.run(Get("kind:a"))
    while store.run_now(Get("kind:absent")) is None:  # noqa: ASYNC110 - the thread reads the file meanwhile
        await asyncio.sleep(0.001)
    await store.run(Get("kind:a"))
    return store


async def take_now(path: str) -> None:
    """Take an entry, and block the event loop, so that the change stays in memory."""
    store = await exclusive(path)
    write("took", *(store.run_now(Take("kind:a")) or ()))
    ready()


async def take_after_signal(path: str) -> None:
    """Answer from memory before the signal, and take an entry of the file after it, once that has replaced another."""
    store = await exclusive(path)
    ready()
    while await store.run(Get("kind:new")) == [None]:  # noqa: ASYNC110 - the thread reads the file meanwhile
        await asyncio.sleep(0.001)
    while (taken := store.run_now(Take("kind:a"))) is None:
        await store.run(Get("kind:a"))
    write("took", *taken)
    ready()


async def put_now(path: str) -> None:
    """Write an entry, and block the event loop, so that the entry stays in memory."""
    store = await exclusive(path)
    write("put", *(store.run_now(Put("kind:b", b"two", ttl=3600, deferred=True)) or ()))
    ready()


async def put_and_take_now(path: str) -> None:
    """Write an entry and take it, and block the event loop, so that the changes stay in memory."""
    store = await exclusive(path)
    store.run_now(Put("kind:b", b"two", ttl=3600, deferred=True))
    write("took", *(store.run_now(Take("kind:b")) or ()))
    ready()


async def replace(path: str) -> None:
    """Write an entry, and replace it in the file once the first value is logged."""
    store = await exclusive(path)
    store.run_now(Put("kind:b", b"two", ttl=3600, deferred=True), Put("kind:c", b"two", ttl=3600, deferred=True))
    await asyncio.sleep(DEFER_SECONDS)
    write("replaced", *(await store.run(Put("kind:b", b"three", ttl=3600), Take("kind:c"))))
    ready()


async def serve(path: str) -> None:
    """Write an entry, and answer from memory for ever."""
    store = await exclusive(path)
    write("put", *(store.run_now(Put("kind:b", b"two", ttl=3600, deferred=True)) or ()))
    await asyncio.Event().wait()


def lock(path: str) -> None:
    """Hold the write lock until the signal."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    ready()
    connection.execute("ROLLBACK")
    write("unlocked")


def write(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def ready() -> None:
    write("ready")
    sys.stdin.readline()


if __name__ == "__main__":
    if sys.argv[2] == "lock":
        lock(sys.argv[1])
    else:
        commands = (take, create, stay, take_now, take_after_signal, put_now, put_and_take_now, replace, serve)
        asyncio.run({command.__name__: command for command in commands}[sys.argv[2]](sys.argv[1]))
