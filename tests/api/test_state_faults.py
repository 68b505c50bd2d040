"""State that is lost, locked, full, slow or unreachable: turns still work, with transcripts."""

from __future__ import annotations

import asyncio
import itertools
import resource
import sqlite3
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from structlog.testing import capture_logs

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import turns
from tests.api.chats import Chat, assert_continues, at_once, messages_of, requests_for, the_request, the_run, transcript
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, demo_apps
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

KEY = "sk-of-the-settings-0123456789"
"""Keys of the settings need no state."""

Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server that a test may stop."""
    with ValkeyServer(valkey_program(), tmp_path / "valkey").running() as server:
        yield server


def faults(logs: Logs) -> list[int]:
    """Return the counts of faults that the log reports."""
    return [entry["faults"] for entry in logs if entry["event"] == "state_unavailable"]


def logged(logs: Logs, *events: str) -> bool:
    return any(entry["event"] in events for entry in logs)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another thread does the work
            await asyncio.sleep(0.01)


async def until_recovered(client: AsyncOpenAI) -> None:
    """Send pairs of turns until the second one continues its conversation."""
    async with asyncio.timeout(PATIENCE):
        for number in itertools.count():
            chat = Chat(client, "demo-chat")
            await chat.say(f"back {number}?")
            first = chat.conversation_id
            await chat.say(f"back {number}!")
            if chat.conversation_id == first:
                return


# Lost


def delete(state: Path) -> None:
    for file in state.parent.glob(f"{state.name}*"):
        file.unlink()


async def test_a_deleted_file_is_replaced(serve: Serve, log: DemoLog, tmp_path: Path) -> None:
    """The next turn starts a conversation with a transcript, and the turn after that continues it."""
    state = tmp_path / "state.db"
    async with serve(state_url=f"sqlite:///{state}", workers=2).client() as client:  # which share the file
        chat = Chat(client, "demo-chat", more={"user": "anna"})
        await chat.say("deleted 1 SAY<<yes>>")
        delete(state)
        with capture_logs() as logs:
            await chat.say("deleted 2 SAY<<yes>>")
        await chat.say("deleted 3")
    assert logged(logs, "state_file_replaced")
    second = the_request(log, "deleted 2 SAY<<yes>>").body
    assert "conversation_id" not in second
    assert second["query"] == transcript(*messages_of(chat)[:2], question="deleted 2 SAY<<yes>>")
    assert_continues(log, "deleted 3", chat.conversation_id, ("user", second["query"]), ("assistant", "yes"))


async def test_memory_state_is_lost_with_its_process(serve: Serve, log: DemoLog) -> None:
    chat = None
    for number in (1, 2):
        async with serve(state_url="memory://").client() as client:
            chat = Chat(client, "demo-chat", messages=chat.messages if chat else [])
            await chat.say(f"restarted {number} SAY<<yes>>")
    assert chat is not None
    _, second = turns(log)
    assert "conversation_id" not in second.body
    assert second.body["query"] == transcript(*messages_of(chat)[:2], question="restarted 2 SAY<<yes>>")


async def test_sqlite_state_outlives_its_process(serve: Serve, log: DemoLog, tmp_path: Path) -> None:
    chat = None
    for number in (1, 2, 3):
        async with serve(state_url=f"sqlite:///{tmp_path}/state.db").client() as client:
            chat = Chat(client, "demo-chat", messages=chat.messages if chat else [])
            await chat.say(f"kept {number}")
    assert len({run.conversation_id for run in log.runs}) == 1
    assert len(the_run(log, "kept 3").history) == 4


async def test_a_full_state_evicts_the_oldest_entries(serve: Serve, log: DemoLog) -> None:
    """Each conversation takes two entries."""
    async with serve(state_url="memory://", state_max_entries=6).client() as client:
        chats = [Chat(client, "demo-chat") for _ in range(6)]
        for number, chat in enumerate(chats):
            await chat.say(f"small {number}")
        await at_once(chat.say(f"still small {number}") for number, chat in enumerate(chats))
    continued = ["conversation_id" in the_request(log, f"still small {number}").body for number in range(6)]
    assert continued[:2] == [False, False]
    assert continued[-1]


async def test_entries_expire(serve: Serve, log: DemoLog) -> None:
    async with serve(state_url="memory://", conversation_ttl=0.5).client() as client:
        chat = Chat(client, "demo-chat")
        await chat.say("expired 1")
        first = chat.conversation_id
        await asyncio.sleep(0.6)  # the lifetime of the entry
        await chat.say("expired 2")
    assert chat.conversation_id != first


# Locked, full, unreadable


def in_another_process(code: str, path: Path) -> Any:
    return asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


async def test_a_file_locked_by_another_process_does_not_fail_turns(serve: Serve, log: DemoLog, tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    async with serve(state_url=f"sqlite:///{state}").client() as client:
        chat = Chat(client, "demo-chat")
        await chat.say("locked 1 SAY<<yes>>")
        first = chat.conversation_id
        holder = await in_another_process(HOLD, state)
        assert await holder.stdout.readline() == b"locked\n"
        with capture_logs() as logs:
            await Chat(client, "demo-chat").say("noticed")
            await until(lambda: logged(logs, "state_write_failed"))
            other = chat.copy()
            await other.say("locked 2")
            await other.say("locked 3")
        assert faults(logs)[0] == 1
        await holder.communicate(b"\n")
        await until_recovered(client)
        await chat.say("unlocked")
    second, third = the_request(log, "locked 2").body, the_request(log, "locked 3").body
    assert second["query"] == transcript(*messages_of(chat)[:2], question="locked 2")
    assert third["query"] == transcript(*messages_of(other)[:4], question="locked 3")
    assert not any("conversation_id" in body for body in (second, third))
    assert_continues(log, "unlocked", first, *messages_of(chat)[:2])


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Limit the size of this process's files, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_full_disk_does_not_fail_turns(serve: Serve, log: DemoLog, tmp_path: Path) -> None:
    proxy = serve(state_url=f"sqlite:///{tmp_path}/state.db")
    async with proxy.client() as client:
        chat = Chat(client, "demo-chat")
        await chat.say("full 1 SAY<<yes>>")
        with full_disk(10_000), capture_logs() as logs:
            await chat.say("full 2 SAY<<yes>>")
            await until(lambda: logged(logs, "state_write_failed", "state_unavailable"))
            await chat.say("full 3")
        assert faults(logs)[0] == 1
        await until_recovered(client)
    third = the_request(log, "full 3").body
    assert "conversation_id" not in third
    assert third["query"] == transcript(*messages_of(chat)[:4], question="full 3")


async def test_a_file_of_another_program_is_left_unchanged(serve: Serve, log: DemoLog, tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    state.write_bytes(b"something else" * 1000)
    with capture_logs() as logs:
        proxy = serve(state_url=f"sqlite:///{state}", dify_max_concurrent="off", api_keys=(KEY,))
        async with proxy.client(KEY) as client:
            chat = Chat(client, "demo-chat", stream=True)
            await chat.say("strange 1 SAY<<yes>>")
            await chat.say("strange 2")
    assert faults(logs) == [1]
    assert the_request(log, "strange 2").body["query"] == transcript(*messages_of(chat)[:2], question="strange 2")
    assert state.read_bytes() == b"something else" * 1000


async def test_a_file_that_breaks_during_a_turn_does_not_fail_the_turn(
    serve: Serve, log: DemoLog, tmp_path: Path
) -> None:
    """The claim is lost, but the client still gets the answer."""
    state = tmp_path / "state.db"
    async with serve(state_url=f"sqlite:///{state}", dify_max_concurrent="off").client() as client:
        chat = Chat(client, "demo-chat", stream=True)
        await chat.say("mid-turn 1")
        first = chat.conversation_id
        turn = asyncio.create_task(chat.say("mid-turn 2 SLOW:8x400"))
        await log.wait_for(lambda log: requests_for(log, "mid-turn 2 SLOW:8x400"))
        connection = sqlite3.connect(state, isolation_level=None)
        connection.execute("DROP TABLE entries")
        connection.close()
        with capture_logs() as logs:
            assert (await turn).endswith("tick 8 ")
        assert faults(logs)[0] == 1
    assert the_request(log, "mid-turn 2 SLOW:8x400").body["conversation_id"] == first


# Unreachable, slow


async def test_a_server_that_dies_during_a_turn_does_not_fail_turns(
    serve: Serve, log: DemoLog, valkey: ValkeyServer
) -> None:
    async with serve(state_url=valkey.url()).client() as client:
        chat = Chat(client, "demo-chat", stream=True)
        await chat.say("dying 1")
        first = chat.conversation_id
        with capture_logs() as logs:
            turn = asyncio.create_task(chat.say("dying 2 SLOW:8x400"))
            await log.wait_for(lambda log: requests_for(log, "dying 2 SLOW:8x400"))
            valkey.kill()
            assert (await turn).endswith("tick 8 ")
            await chat.say("dying 3")
        assert faults(logs)[0] == 1
        valkey.start()
        await until_recovered(client)
        await chat.say("risen 1")
        await chat.say("risen 2")
    assert the_request(log, "dying 2 SLOW:8x400").body["conversation_id"] == first
    assert the_request(log, "dying 3").body["query"] == transcript(*messages_of(chat)[:4], question="dying 3")
    assert the_request(log, "risen 1").body["query"] == transcript(*messages_of(chat)[:6], question="risen 1")
    before = the_run(log, "risen 1")
    assert_continues(
        log, "risen 2", chat.conversation_id, ("user", before.question), ("assistant", before.answer.strip())
    )


async def test_a_server_that_is_unreachable_at_the_start_does_not_fail_turns(
    serve: Serve, log: DemoLog, valkey: ValkeyServer
) -> None:
    valkey.kill()
    async with serve(state_url=valkey.url(), api_keys=(KEY,)).client(KEY) as client:
        chat = Chat(client, "demo-chat")
        await chat.say("absent 1 SAY<<yes>>")
        await chat.say("absent 2")
        assert the_request(log, "absent 2").body["query"] == transcript(*messages_of(chat)[:2], question="absent 2")
        valkey.start()
        await until_recovered(client)


async def test_a_slow_server_delays_a_turn_only_once(demo: DemoServer, log: DemoLog, valkey: ValkeyServer) -> None:
    """This includes many concurrent turns. The server pauses for longer than the time limit of tests."""
    settings = Settings(
        dify_api_url=demo.url, apps=demo_apps(demo.url), state_url=SecretStr(valkey.url()), dify_max_concurrent="off"
    )
    with ProxyServer(settings, state_timeout=5) as proxy:
        async with proxy.client() as client:
            chat = Chat(client, "demo-chat")
            await chat.say("slow 1")
            first = chat.conversation_id
            with capture_logs() as logs:
                valkey.ask("CLIENT", "PAUSE", 600_000, "ALL")
                chats = [chat.copy(), *(Chat(client, "demo-chat") for _ in range(9))]
                await at_once(other.say(f"slow 2 of {number}") for number, other in enumerate(chats))
                await chats[0].say("slow 3")
            assert faults(logs)
            assert "conversation_id" not in the_request(log, "slow 2 of 0").body
            valkey.kill()
            valkey.start()
            await until_recovered(client)
    assert chats[0].conversation_id != first


@pytest.mark.parametrize("state", ["sqlite:////proc/none/state.db", "valkey://127.0.0.1:1"])
async def test_turns_work_without_any_state(serve: Serve, log: DemoLog, state: str) -> None:
    """End users stay separate, a named conversation continues, and others get transcripts."""
    proxy: ProxyServer = serve(state_url=state, api_keys=(KEY,))
    async with proxy.client(KEY) as client:
        anna = Chat(client, "demo-chat", more={"user": "anna"})
        bert = Chat(client, "demo-chat", stream=True, more={"user": "bert"})
        await at_once([anna.say("stateless 1 of anna SAY<<yes>>"), bert.say("stateless 1 of bert SAY<<yes>>")])
        first = anna.conversation_id
        await anna.say("stateless 2 of anna", extra_body={"conversation_id": first})
        await bert.say("stateless 2 of bert")
    assert the_request(log, "stateless 2 of anna").body["conversation_id"] == first
    assert the_request(log, "stateless 2 of bert").body["query"] == transcript(
        *messages_of(bert)[:2], question="stateless 2 of bert"
    )
    users = {
        name: {run.user for run in log.runs if run.question.endswith((f"{name} SAY<<yes>>", name))}
        for name in ("anna", "bert")
    }
    assert [len(found) for found in users.values()] == [1, 1]
    assert users["anna"] != users["bert"]
