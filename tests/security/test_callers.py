"""One caller with the ids of another: it cannot read, continue, change or stop anything of the other's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import turns
from tests.api.servers import ProxyServer, demo_apps

SECRET = "violet-umbrella"
VICTIM_KEY = "sk-victim-0123456789"
OTHER_KEY = "sk-other-9876543210"
VICTIM = {
    "Authorization": f"Bearer {VICTIM_KEY}",
    "X-OpenWebUI-Chat-Id": "chat-1",
    "X-OpenWebUI-User-Id": "anna",
}

ATTACKERS = {
    "another key": {"Authorization": f"Bearer {OTHER_KEY}"},
    "a Dify key": {"Authorization": "Bearer app-demo-chat"},
    "another end user": {**VICTIM, "X-OpenWebUI-User-Id": "eve"},
}

CHAT_IDS = ("X-OpenWebUI-Chat-Id", "X-Conversation-Id", "X-Chat-Id", "X-Session-Id", "X-LibreChat-Conversation-Id")


class Owned(NamedTuple):
    """The ids of the victim's turns."""

    dify: str
    response: str
    conversation: str
    user: str


@pytest.fixture(scope="module")
def shared_guarded(demo: DemoServer) -> Iterator[ProxyServer]:
    keys = tuple(SecretStr(key) for key in (VICTIM_KEY, OTHER_KEY))
    with ProxyServer(Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), api_keys=keys)) as running:
        yield running


@pytest.fixture
def guarded(shared_guarded: ProxyServer, log: DemoLog) -> ProxyServer:
    return shared_guarded


@pytest.fixture
async def owned(guarded: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> Owned:
    async def make(path: str, **body: Any) -> httpx2.Response:
        reply = await http.post(guarded.url + path, json={"model": "demo-chat", **body}, headers=VICTIM)
        assert reply.status_code == 200, reply.text
        return reply

    chat = await make("/chat/completions", messages=[{"role": "user", "content": f"SAY<<one>> {SECRET}"}])
    response = (await make("/responses", input=f"SAY<<two>> {SECRET}")).json()["id"]
    conversation = (await make("/conversations", items=[{"role": "user", "content": SECRET}])).json()["id"]
    await make("/responses", input="SAY<<three>>", conversation=conversation)
    user = turns(log)[0].body["user"]
    log.clear()
    return Owned(chat.headers["x-dify-conversation-id"], response, conversation, user)


def chats(owned: Owned) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Return bodies and headers that name the victim's conversation in Dify, or its chat."""
    history = [{"role": "user", "content": f"SAY<<one>> {SECRET}"}, {"role": "assistant", "content": "one"}]
    asked = [{"role": "user", "content": "RECALL"}]
    named = {"messages": asked}
    return {
        "header": (named, {"X-Dify-Conversation-Id": owned.dify}),
        "body": ({**named, "conversation_id": owned.dify}, {}),
        "metadata": ({**named, "metadata": {"conversation_id": owned.dify}}, {}),
        "input": ({**named, "inputs": {"conversation_id": owned.dify}}, {}),
        "same history": ({"messages": [*history, *asked]}, {}),
        "Dify's user": ({**named, "user": owned.user, "conversation_id": owned.dify}, {}),
        **{
            header: ({"messages": [{"role": "user", "content": "x"}, history[1], *asked]}, {header: "chat-1"})
            for header in CHAT_IDS
        },
    }


@pytest.mark.parametrize("attacker", ATTACKERS.values(), ids=ATTACKERS)
async def test_a_chat_does_not_continue_with_the_ids_of_another_caller(
    guarded: ProxyServer, owned: Owned, http: httpx2.AsyncClient, log: DemoLog, attacker: dict[str, str]
) -> None:
    for name, (body, headers) in chats(owned).items():
        reply = await http.post(
            f"{guarded.url}/chat/completions", json={"model": "demo-chat", **body}, headers={**attacker, **headers}
        )
        assert reply.status_code in (200, 404), (name, reply.text)
        assert name == "same history" or SECRET not in reply.text, name
        assert reply.headers.get("x-dify-conversation-id") != owned.dify, name
    assert turns(log)
    assert owned.user not in {turn.body["user"] for turn in turns(log)}


@pytest.mark.parametrize("attacker", ATTACKERS.values(), ids=ATTACKERS)
async def test_stored_objects_of_another_caller_do_not_exist(
    guarded: ProxyServer, owned: Owned, http: httpx2.AsyncClient, log: DemoLog, attacker: dict[str, str]
) -> None:
    message = owned.response.replace("resp_", "msg_")
    ask = {"model": "demo-chat", "input": "x"}
    calls: list[tuple[str, str, Any]] = [
        ("GET", f"/responses/{owned.response}", None),
        ("GET", f"/responses/{owned.response}?stream=true", None),
        ("GET", f"/responses/{owned.response}/input_items", None),
        ("POST", f"/responses/{owned.response}/cancel", None),
        ("DELETE", f"/responses/{owned.response}", None),
        ("GET", f"/conversations/{owned.conversation}", None),
        ("GET", f"/conversations/{owned.conversation}/items", None),
        ("POST", f"/conversations/{owned.conversation}", {"metadata": {"a": "b"}}),
        ("DELETE", f"/conversations/{owned.conversation}", None),
        ("POST", "/responses", {**ask, "previous_response_id": owned.response}),
        ("POST", "/responses", {**ask, "conversation": owned.conversation}),
        ("POST", "/responses", {**ask, "conversation": {"id": owned.conversation}, "user": "anna"}),
        ("POST", "/responses", {**ask, "input": [{"type": "item_reference", "id": message}]}),
    ]
    for method, path, body in calls:
        reply = await http.request(method, guarded.url + path, json=body, headers=attacker)
        assert reply.status_code in (400, 404), (method, path, reply.text)
        assert SECRET not in reply.text
    assert not turns(log)
    # All of it is still there for its owner.
    for path in (f"/responses/{owned.response}", f"/conversations/{owned.conversation}"):
        assert (await http.get(guarded.url + path, headers=VICTIM)).status_code == 200
