"""``/v1/files``: upload, list, read, use and delete."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.files import stored_files
from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import turns
from tests.api.servers import Clock, ProxyServer, demo_apps
from tests.limits import PATIENCE

NOTE = b"# Notes\n\nBuy milk.\n"
ANNA, BERT = "sk-anna", "sk-bert"


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def keyed_proxy(demo: DemoServer, clock: Clock) -> Iterator[ProxyServer]:
    settings = Settings(
        dify_api_url=demo.url,
        apps=demo_apps(demo.url),
        api_keys=(SecretStr(ANNA), SecretStr(BERT)),
        state_url=SecretStr("memory://"),
        dify_max_concurrent="off",
    )
    with ProxyServer(settings, clock=clock) as running:
        yield running


@pytest.fixture
async def anna(keyed_proxy: ProxyServer, log: DemoLog) -> AsyncIterator[AsyncOpenAI]:
    async with keyed_proxy.client(ANNA) as client:
        yield client


@pytest.fixture
async def bert(keyed_proxy: ProxyServer, log: DemoLog) -> AsyncIterator[AsyncOpenAI]:
    async with keyed_proxy.client(BERT) as client:
        yield client


def asking(file_id: str, text: str = "Look.") -> list[Any]:
    parts = [{"type": "text", "text": text}, {"type": "file", "file": {"file_id": file_id}}]
    return [{"role": "user", "content": parts}]


async def test_a_file_is_stored_listed_read_and_deleted(anna: AsyncOpenAI) -> None:
    first = await anna.files.create(file=("notes.md", NOTE), purpose="user_data")
    second = await anna.files.create(file=("other.txt", b"other"), purpose="assistants")
    assert (first.object, first.bytes, first.filename, first.purpose) == ("file", len(NOTE), "notes.md", "user_data")
    assert first.expires_at == first.created_at + 7 * 86_400
    assert await anna.files.retrieve(first.id) == first
    listed = [file async for file in anna.files.list(limit=1)]
    assert sorted(file.id for file in listed) == sorted((first.id, second.id))
    assert [file.id async for file in anna.files.list(purpose="assistants", limit=10_000)] == [second.id]
    assert (await anna.files.content(first.id)).content == NOTE
    assert (await anna.files.delete(first.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await anna.files.retrieve(first.id)
    await anna.files.delete(second.id)
    assert [file async for file in anna.files.list()] == []


async def test_another_callers_file_does_not_exist(anna: AsyncOpenAI, bert: AsyncOpenAI, log: DemoLog) -> None:
    file = await anna.files.create(file=("notes.md", NOTE), purpose="user_data")
    for call in (bert.files.retrieve, bert.files.content, bert.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(file.id)
    assert [found async for found in bert.files.list()] == []
    with pytest.raises(openai.BadRequestError) as caught:
        await bert.chat.completions.create(model="demo-chat", messages=asking(file.id))
    assert (caught.value.code, caught.value.param) == ("file_not_found", "messages[0].content[1]")
    assert turns(log) == []
    await anna.files.delete(file.id)


async def test_a_turn_uses_a_stored_file(anna: AsyncOpenAI, log: DemoLog) -> None:
    file = await anna.files.create(file=("notes.md", NOTE), purpose="user_data")
    answer = await anna.chat.completions.create(model="demo-chat", messages=asking(file.id))
    shown = f"document notes.md (text/markdown, {len(NOTE)} bytes, sha {hashlib.sha256(NOTE).hexdigest()[:12]})"
    assert shown in (answer.choices[0].message.content or "")
    content: list[Any] = [{"type": "input_text", "text": "Look."}, {"type": "input_file", "file_id": file.id}]
    response = await anna.responses.create(model="demo-chat", input=[{"role": "user", "content": content}])
    assert shown in response.output_text
    assert sum(request.path == "/v1/files/upload" for request in log.requests) == 1
    await anna.files.delete(file.id)


async def test_an_expired_file_of_an_earlier_message_is_named(anna: AsyncOpenAI, log: DemoLog) -> None:
    messages = [*asking("file-unknown", "one"), {"role": "assistant", "content": "Ok."}]
    messages.append({"role": "user", "content": "two"})
    await anna.chat.completions.create(model="demo-chat", messages=messages)
    assert "User: one\n[File not included: document]" in turns(log)[0].body["query"]


async def test_a_file_continues_its_conversation(anna: AsyncOpenAI, log: DemoLog) -> None:
    file = await anna.files.create(file=("notes.md", b"another note"), purpose="user_data")
    messages = asking(file.id, "first of all")
    answer = await anna.chat.completions.create(model="demo-chat", messages=messages)
    messages += [
        {"role": "assistant", "content": answer.choices[0].message.content},
        {"role": "user", "content": "and then"},
    ]
    await anna.files.delete(file.id)
    await anna.chat.completions.create(model="demo-chat", messages=messages)
    assert turns(log)[1].body["query"] == "and then"
    assert turns(log)[1].body["conversation_id"] == log.runs[0].conversation_id


async def test_a_large_file_is_stored_in_portions(anna: AsyncOpenAI) -> None:
    data = bytes(range(256)) * (stored_files.PORTION // 256) + b"rest"
    file = await anna.files.create(file=("a.bin", data), purpose="user_data")
    assert (await anna.files.content(file.id)).content == data
    await anna.files.delete(file.id)


async def test_files_are_downloads_only(anna: AsyncOpenAI) -> None:
    file = await anna.files.create(file=("a.html", b"<script>alert(1)</script>"), purpose="user_data")
    content = await anna.files.content(file.id)
    assert content.response.headers["content-type"] == "application/octet-stream"
    assert content.response.headers["content-disposition"] == "attachment"
    assert content.response.headers["x-content-type-options"] == "nosniff"
    await anna.files.delete(file.id)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"purpose": "user_data"}, "files": {"other": ("a", b"x")}}, "file"),
        ({"data": {"purpose": "user_data", "file": "text"}}, None),
        ({"files": {"file": ("a", b"")}}, "file"),
        ({"data": {"purpose": "p" * 65}, "files": {"file": ("a", b"x")}}, "purpose"),
        ({"json": {"purpose": "user_data"}}, "file"),
    ],
)
async def test_malformed_uploads_are_rejected(
    keyed_proxy: ProxyServer, log: DemoLog, http: httpx2.AsyncClient, form: dict[str, Any], param: str | None
) -> None:
    headers = {"Authorization": f"Bearer {ANNA}"}
    reply = await http.post(f"{keyed_proxy.url}/files", headers=headers, timeout=PATIENCE, **form)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] in (param, "file")


async def test_uploads_need_a_key(keyed_proxy: ProxyServer, log: DemoLog, http: httpx2.AsyncClient) -> None:
    reply = await http.post(f"{keyed_proxy.url}/files", files={"file": ("a", b"x")})
    assert reply.status_code == 401


async def test_a_web_page_cannot_upload(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    headers = {"Origin": "https://evil.example"}
    reply = await http.post(f"{proxy.url}/files", files={"file": ("a", b"x")}, headers=headers)
    assert reply.status_code == 415
