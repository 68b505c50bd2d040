"""Client keys of the command line and of the TOML file, at running servers."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from openai_dify_proxy.keys.client_key import hash_of
from openai_dify_proxy.settings import ClientKeySettings, SecretStr
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import ask, chat_body, error_of, turns
from tests.api.chats import Chat, assert_continues, the_request
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer
from tests.cli.program import Program
from tests.limits import PATIENCE

OLD = "sk-of-the-version-before-0123"
ADMIN = "sk-admin-of-the-settings-0123"


class Keys:
    """The command ``keys`` with the state of a running proxy."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.url = f"sqlite:///{program.directory}/state.db"

    def run(self, *arguments: str) -> str:
        done = self._program.run("keys", *arguments, STATE_URL=self.url)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def keys(program: Program) -> Keys:
    return Keys(program)


async def status_of(proxy: ProxyServer, http: httpx2.AsyncClient, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return (await http.get(f"{proxy.url}/models", headers=headers)).status_code


async def until_status(proxy: ProxyServer, http: httpx2.AsyncClient, key: str, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await status_of(proxy, http, key) != status:  # noqa: ASYNC110 - as a client would
            await asyncio.sleep(0.02)


async def test_keys_come_and_go_while_the_server_runs(serve: Serve, keys: Keys, http: httpx2.AsyncClient) -> None:
    proxy = serve(state_url=keys.url)
    assert await status_of(proxy, http, "") == 200
    anna, bert = keys.run("create", "anna"), keys.run("create", "bert")
    await until_status(proxy, http, "", 401)  # a server with keys is no longer open
    await until_status(proxy, http, anna, 200)
    await until_status(proxy, http, bert, 200)
    keys.run("revoke", "anna", "--yes")
    await until_status(proxy, http, anna, 401)
    assert await status_of(proxy, http, bert) == 200
    keys.run("revoke", "bert", "--yes")
    await until_status(proxy, http, bert, 401)
    assert await status_of(proxy, http, "") == 401, "a server without its last key stays closed"
    assert await status_of(serve(state_url=keys.url), http, "") == 401, "after a restart too"


async def test_the_message_says_why_an_old_key_does_not_work(
    serve: Serve, keys: Keys, http: httpx2.AsyncClient
) -> None:
    revoked, expired = keys.run("create", "anna"), keys.run("create", "bert", "--expires", "1s")
    keys.run("revoke", "anna", "--yes")
    proxy = serve(state_url=keys.url)
    await until_status(proxy, http, expired, 401)
    for key, reason in ((revoked, "was revoked"), (expired, "has expired")):
        reply = await http.get(f"{proxy.url}/models", headers={"X-API-Key": key})
        assert reply.status_code == 401
        assert reason in error_of(reply)["message"]
        assert key not in reply.text


async def test_rotation_keeps_conversations_responses_and_files(
    serve: Serve, log: DemoLog, keys: Keys, http: httpx2.AsyncClient
) -> None:
    first = keys.run("create", "anna")
    other = keys.run("create", "bert")
    proxy = serve(state_url=keys.url)
    async with proxy.client(first) as client:
        chat = Chat(client, "demo-chat")
        await chat.say("rotated 1 SAY<<yes>>")
        response = await client.responses.create(model="demo-chat", input="stored")
        file = await client.files.create(file=("a.txt", b"text"), purpose="user_data")
    second = keys.run("rotate", "anna", "--grace", "1h")
    await until_status(proxy, http, second, 200)
    assert await status_of(proxy, http, first) == 200, "the old key works during the grace"
    third = keys.run("rotate", "anna")
    await until_status(proxy, http, third, 200)
    assert await status_of(proxy, http, first) == 200, "a rotation does not end the grace of an earlier one"
    assert await status_of(proxy, http, second) == 401
    async with proxy.client(third) as client:
        chat.client = client
        await chat.say("rotated 2")
        assert (await client.responses.retrieve(response.id)).id == response.id
        assert [found.id async for found in client.files.list()] == [file.id]
        assert (await client.files.content(file.id)).content == b"text"
    assert_continues(log, "rotated 2", chat.conversation_id, ("user", "rotated 1 SAY<<yes>>"), ("assistant", "yes"))
    async with proxy.client(other) as client:
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)


async def test_an_imported_key_of_API_KEYS_keeps_its_data(  # noqa: N802 - the setting
    serve: Serve, log: DemoLog, keys: Keys, http: httpx2.AsyncClient, program: Program
) -> None:
    async with serve(state_url=keys.url, api_keys=(OLD,)).client(OLD) as client:
        chat = Chat(client, "demo-chat")
        await chat.say("imported 1 SAY<<yes>>")
    script = f"printf '%s\\n' {OLD} | openai-dify-proxy keys create old --import"
    shell = Program(program.directory, ("/bin/sh", "-c", script))
    done = shell.run_afresh(STATE_URL=keys.url, PATH=_path())
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    proxy = serve(state_url=keys.url)
    rotated = keys.run("rotate", "old")
    await until_status(proxy, http, rotated, 200)
    async with proxy.client(rotated) as client:
        chat.client = client
        await chat.say("imported 2")
    assert_continues(log, "imported 2", chat.conversation_id, ("user", "imported 1 SAY<<yes>>"), ("assistant", "yes"))


def _path() -> str:
    from tests.cli.program import PROGRAM

    return f"{PROGRAM.parent}:/usr/bin:/bin"


async def test_keys_of_the_settings_need_no_state_and_others_are_refused_without_one(
    serve: Serve, http: httpx2.AsyncClient
) -> None:
    proxy = serve(state_url="sqlite:////proc/none/state.db", api_keys=(OLD,))
    assert await status_of(proxy, http, OLD) == 200
    reply = await http.get(f"{proxy.url}/models", headers={"Authorization": "Bearer sk-dify-maybe"})
    assert reply.status_code == 503
    assert error_of(reply)["code"] == "state_unavailable"
    assert (await http.get(f"{proxy.url}/models")).status_code == 503


async def test_a_server_that_cannot_read_its_keys_is_not_open(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(state_url="sqlite:////proc/none/state.db")
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi"))
    assert reply.status_code == 503
    assert "API keys cannot be checked" in error_of(reply)["message"]


async def test_guesses_are_slowed_down_and_right_keys_are_not(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(api_keys=(OLD,), trusted_proxies=("127.0.0.1",))
    url = f"{proxy.url}/models"
    guesser = {"X-Forwarded-For": "192.0.2.1"}
    statuses = [
        (await http.get(url, headers={**guesser, "Authorization": f"Bearer guess-{number}"})) for number in range(12)
    ]
    assert [reply.status_code for reply in statuses] == [401] * 11 + [429]
    last = statuses[-1]
    assert int(last.headers["retry-after"]) >= 1
    assert last.headers["x-should-retry"] == "false"
    assert error_of(last)["code"] == "too_many_wrong_keys"
    assert (await http.get(url, headers={**guesser, "Authorization": f"Bearer {OLD}"})).status_code == 200
    other = await http.get(url, headers={"X-Forwarded-For": "192.0.2.2", "Authorization": "Bearer guess-12"})
    assert other.status_code == 401


# Keys of the TOML file


def named(name: str, **more: Any) -> dict[str, ClientKeySettings]:
    return {name: ClientKeySettings(name=name, **more)}


async def test_a_named_key_may_be_stored_as_a_hash_and_pins_its_end_user(
    serve: Serve, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    secret = "sk-only-its-hash-is-configured"
    proxy = serve(keys=named("anna", key_hash=hash_of(secret), end_user="anna"), end_user_id="plain")
    assert await status_of(proxy, http, secret) == 200
    assert await status_of(proxy, http, hash_of(secret)) == 401
    async with proxy.client(secret) as client:
        await ask(client, "demo-chat", "hi", user="carl")
    assert [turn.body["user"] for turn in turns(log)] == ["anna"]


async def test_a_named_key_keeps_its_data_when_its_secret_changes(serve: Serve, log: DemoLog, tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    messages: list[Any] = []
    conversations = set()
    for number, secret in enumerate(("sk-first-0123456789", "sk-second-0123456789"), 1):
        proxy = serve(state_url=state, keys=named("anna", key=SecretStr(secret)))
        async with proxy.client(secret) as client:
            chat = Chat(client, "demo-chat", messages=messages)
            await chat.say(f"renewed {number} SAY<<yes>>")
            messages = chat.messages
            conversations.add(chat.conversation_id)
    assert {the_request(log, "renewed 2 SAY<<yes>>").body["conversation_id"]} == conversations


async def test_stored_keys_have_derived_end_users_even_if_names_are_plain(
    serve: Serve, log: DemoLog, keys: Keys
) -> None:
    """Several stored keys may have an end user of the same name, whose conversations must not meet in Dify."""
    proxy = serve(state_url=keys.url, end_user_id="plain", api_keys=(OLD,))
    new = keys.run("create", "anna")
    async with httpx2.AsyncClient(verify=False, timeout=PATIENCE) as http:
        await until_status(proxy, http, new, 200)
    for key in (OLD, new):
        async with proxy.client(key) as client:
            await ask(client, "demo-chat", "hi", user="anna")
    plain, derived = (turn.body["user"] for turn in turns(log))
    assert plain == "anna"
    assert derived.startswith("proxy-")


# Signed end users

SIGNING = "a-secret-shared-with-open-webui"


def signed(sub: str, *, secret: str = SIGNING, expires_in: float = 300) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"sub": sub, "iss": "open-webui", "iat": int(time.time()), "exp": int(time.time() + expires_in)}
    header = {"alg": "HS256", "typ": "JWT"}
    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{text}.{part(hmac.digest(secret.encode(), text.encode(), 'sha256'))}"


async def test_only_the_signed_header_names_end_users_once_there_is_a_secret(serve: Serve, log: DemoLog) -> None:
    async with serve(openwebui_jwt_secret=SIGNING, end_user_id="plain").client() as client:
        for headers in (
            {"X-OpenWebUI-User-Jwt": signed("anna")},
            {"X-OpenWebUI-User-Jwt": signed("anna"), "X-OpenWebUI-User-Id": "carl"},
            {"X-OpenWebUI-User-Id": "carl"},
        ):
            await ask(client, "demo-chat", "hi", extra_headers=headers)
    first, second, third = (turn.body["user"] for turn in turns(log))
    assert (first, second) == ("anna", "anna")
    assert third != "carl"


@pytest.mark.parametrize(
    "token",
    [lambda: signed("anna", secret="x" * 32), lambda: signed("anna", expires_in=-60), lambda: "anna"],
    ids=["forged", "expired", "unsigned"],
)
async def test_a_token_that_is_not_valid_is_refused(
    serve: Serve, log: DemoLog, http: httpx2.AsyncClient, token: Callable[[], str]
) -> None:
    proxy = serve(openwebui_jwt_secret=SIGNING)
    for path, body in (("chat/completions", chat_body("hi")), ("responses", {"model": "demo-chat", "input": "hi"})):
        reply = await http.post(f"{proxy.url}/{path}", json=body, headers={"X-OpenWebUI-User-Jwt": token()})
        assert reply.status_code == 401
        assert error_of(reply)["code"] == "invalid_end_user_token"
    assert turns(log) == []


async def test_header_names_are_configurable(serve: Serve, log: DemoLog) -> None:
    settings = {"end_user_headers": ("x-user", "x-openwebui-user-id"), "chat_id_headers": ("x-thread",)}
    async with serve(end_user_id="plain", **settings).client() as client:
        for headers in ({"X-User": "anna"}, {"X-OpenWebUI-User-Id": "bert"}, {"X-Other": "carl"}):
            await ask(client, "demo-chat", "hi", extra_headers=headers)
    users = [turn.body["user"] for turn in turns(log)]
    assert users[:2] == ["anna", "bert"]
    assert users[2].startswith("proxy-")


@pytest.mark.parametrize("ids", [{"extra_body": {"session_id": "chat-7"}}, {"extra_headers": {"X-Chat-Id": "chat-7"}}])
async def test_a_session_id_in_the_body_names_the_chat(serve: Serve, log: DemoLog, ids: dict[str, Any]) -> None:
    """As with a chat header: the client may rewrite its own messages, and the conversation goes on."""
    async with serve().client() as client:
        chat = Chat(client, "demo-chat", more={"user": "anna", **ids})
        await chat.say("original SAY<<yes>>")
        first = chat.conversation_id
        chat.messages[0] = {"role": "user", "content": "rewritten"}
        await chat.say("the next")
    assert the_request(log, "the next").body["conversation_id"] == first


@pytest.mark.parametrize(
    "session", [7, None, "", {"id": 1}, "x" * 257], ids=["number", "null", "empty", "object", "long"]
)
async def test_other_session_ids_are_ignored(serve: Serve, http: httpx2.AsyncClient, session: object) -> None:
    reply = await http.post(f"{serve().url}/chat/completions", json=chat_body("hi", session_id=session))
    assert reply.status_code == 200
