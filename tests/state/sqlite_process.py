"""A process beside the test's, with a store of its own: ``python -m tests.state.sqlite_process PATH WHAT``.

It says ``ready``, does it when it is told a line, and prints what came of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys

from openai_dify_proxy.state import Get, Put, Take
from openai_dify_proxy.state.sqlite import SqliteStore


async def take(path: str) -> None:
    """Takes 200 keys, some at once, and prints those that it got."""
    store = SqliteStore(path, max_entries=1000)
    await store.run(Get("kind:none"))
    ready()
    found = await asyncio.gather(*(store.run(Take(f"kind:{number}")) for number in range(200)))
    say(*(number for number, (value,) in enumerate(found) if value is not None))
    await store.close()


async def create(path: str) -> None:
    """Opens a file that may not be there, and writes to it."""
    store = SqliteStore(path, max_entries=1000)
    ready()
    say(*await store.run(Put("kind:a", b"one")))
    await store.close()


async def stay(path: str) -> None:
    """Has the file open when it is told to go on, and takes what is there then."""
    store = SqliteStore(path, max_entries=1000)
    await store.run(Get("kind:a"))
    ready()
    say(*await store.run(Take("kind:a"), Take("kind:7")))
    await store.close()


def lock(path: str) -> None:
    """Holds the lock for writing until it is told another line."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    ready()
    connection.execute("ROLLBACK")
    say("unlocked")


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def ready() -> None:
    say("ready")
    sys.stdin.readline()


if __name__ == "__main__":
    if sys.argv[2] == "lock":
        lock(sys.argv[1])
    else:
        asyncio.run({"take": take, "create": create, "stay": stay}[sys.argv[2]](sys.argv[1]))
