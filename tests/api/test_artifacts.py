"""Files that apps produce: links of ours in every answer, the files behind them, and who may open what."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from openai_dify_proxy.files.artifacts.names import ArtifactName, sign
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.file_store import MadeFile
from tests.api.chat_requests import MODELS, ask, ask_streaming, error_of, turns, user
from tests.api.conftest import Serve
from tests.api.servers import Clock, ProxyServer
from tests.api.slots import MEMORY

LINK = re.compile(r"(http://[0-9.:]+/artifacts/[\w-]{48}\.\w+)")
SAFE = "default-src 'none'; sandbox"


def links_in(text: str) -> list[str]:
    return list(dict.fromkeys(LINK.findall(text)))


def made(demo: DemoServer) -> MadeFile:
    """Return the file that the demo made last."""
    files: dict[str, MadeFile] = demo.app.state.demo.files.files
    return list(files.values())[-1]


async def get(url: str, method: str = "GET", **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30) as http:
        return await http.request(method, url, headers={name.replace("_", "-"): v for name, v in headers.items()})


@pytest.mark.parametrize("word", ["FILE", "DRAW"])
@pytest.mark.parametrize("model", MODELS)
async def test_files_of_every_app_are_behind_links_of_ours(
    client: AsyncOpenAI, proxy: ProxyServer, demo: DemoServer, model: str, word: str
) -> None:
    completion = (await client.chat.completions.create(model=model, messages=user(f"{word} a cat"))).model_dump()
    text, (file,) = completion["choices"][0]["message"]["content"], completion["dify"]["files"]
    assert links_in(text) == [file["url"]]
    assert file["url"].startswith(proxy.origin)
    assert file["type"] == "image"
    assert "/files/" not in json.dumps(completion)
    answer = await get(file["url"])
    picture = made(demo)
    assert (answer.status_code, answer.content) == (200, picture.content)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("inline; filename*=UTF-8''")
    assert answer.headers["content-disposition"].endswith(".png")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == SAFE
    streamed = await ask_streaming(client, model, f"{word} a cat")
    assert len(links_in(streamed)) == 1
    assert "/files/" not in streamed


@pytest.mark.parametrize("word", ["FILE:internal", "FILE:relative", "DRAW:internal", "DRAW:relative"])
async def test_links_without_a_reachable_host_lead_to_the_configured_dify(
    client: AsyncOpenAI, demo: DemoServer, word: str
) -> None:
    (link,) = links_in(await ask_streaming(client, "demo-advanced-chat@1.16", f"{word} a cat"))
    assert (await get(link)).content == made(demo).content


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        ("html", "text/html; charset=utf-8"),
        ("svg", "image/svg+xml"),
        ("lying", "text/plain; charset=utf-8"),
        ("text", "text/plain; charset=utf-8"),
        ("pdf", "application/pdf"),
    ],
)
async def test_what_is_no_proven_picture_is_a_download(
    client: AsyncOpenAI, demo: DemoServer, kind: str, media_type: str
) -> None:
    (link,) = links_in(await ask(client, "demo-advanced-chat@1.16", f"FILE:{kind}"))
    answer = await get(link)
    assert answer.content == made(demo).content
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == SAFE


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
async def test_pictures_are_shown(client: AsyncOpenAI, kind: str) -> None:
    """In a chat app the link ends in ``.bin``, so only the bytes tell the type."""
    (link,) = links_in(await ask(client, "demo-chat@1.16", f"DRAW:{kind}"))
    answer = await get(link)
    assert answer.headers["content-type"] == f"image/{kind}"
    assert answer.headers["content-disposition"].startswith("inline;")


async def test_a_damaged_picture_is_a_download(client: AsyncOpenAI, demo: DemoServer) -> None:
    await ask(client, "demo-chat@1.16", "DRAW a cat")
    picture = made(demo)
    object.__setattr__(picture, "content", picture.content[: len(picture.content) // 2])
    (again,) = links_in(await ask(client, "demo-advanced-chat@1.16", relinked(demo, picture)))
    answer = await get(again)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("attachment;")


def relinked(demo: DemoServer, file: MadeFile, **changes: Any) -> str:
    """Return a question whose answer has a link to a file of the demo."""
    link = demo.app.state.demo.files.link(file, changes.get("origin", ""))
    return f"SAY<<![a]({link})>>"


async def test_a_link_in_the_text_is_replaced_wherever_it_is_cut(client: AsyncOpenAI, demo: DemoServer) -> None:
    await ask(client, "demo-chat@1.16", "DRAW a cat")
    picture = made(demo)
    link = demo.app.state.demo.files.link(picture, "http://api:5001")
    text = await ask_streaming(client, "demo-chat@1.16", f"SAY<<a/b https://example.com ![a]({link}) (http://x)>> SLOW")
    (ours,) = links_in(text)
    assert text == f"a/b https://example.com ![a]({ours}) (http://x)"
    assert (await get(ours)).content == picture.content


async def test_links_beyond_the_limit_of_a_turn_stay(client: AsyncOpenAI) -> None:
    ids = [f"{number:08x}-de7b-42ce-a28c-374bde984d1c" for number in range(51)]
    said = " ".join(f"/files/tools/{one}.png?timestamp=1&nonce=a&sign=b" for one in ids)
    text = await ask(client, "demo-chat@1.16", f"SAY<<{said}>>")
    assert len(links_in(text)) == 50
    assert text.count("/files/") == 1


async def a_link(proxy: ProxyServer, key: str = "unused", word: str = "DRAW") -> str:
    async with proxy.client(key) as client:
        (link,) = links_in(await ask(client, "demo-advanced-chat@1.16", f"{word} a cat"))
    return link


async def test_altered_and_invented_links_are_not_found(proxy: ProxyServer) -> None:
    link = await a_link(proxy)
    base, _, name = link.rpartition("/")
    token = name.partition(".")[0]
    data = bytearray(base64.urlsafe_b64decode(token))
    altered = []
    for place in (0, 15, 16, 20, 21, 35):
        data[place] ^= 1
        altered.append(base64.urlsafe_b64encode(data).decode())
        data[place] ^= 1
    invented = sign(bytes(32), ArtifactName("0" * 32, 2_000_000_000))
    messages = set()
    for text in (*(f"{one}.png" for one in (*altered, invented)), token, f"{token}.png.png", f"{token[:-1]}.png", "a"):
        answer = await get(f"{base}/{text}")
        assert answer.status_code == 404, text
        assert set(error_of(answer)) == {"message", "type", "param", "code"}
        messages.add(error_of(answer)["message"])
    assert messages == {"The file does not exist, or its link has expired."}, "no difference reveals anything"
    assert (await get(f"{base}/{token}.jpeg")).status_code == 200, "the extension is not signed"


async def test_a_link_expires(serve: Serve, tmp_path: Path) -> None:
    clock = Clock()
    proxy = serve(state_url=MEMORY, image_storage_dir=str(tmp_path), clock=clock, link_ttl=600)
    link = await a_link(proxy)
    clock.ahead = 590
    assert (await get(link)).status_code == 200
    clock.ahead = 601
    answer = await get(link)
    assert answer.status_code == 404
    assert error_of(answer)["message"] == "The file does not exist, or its link has expired."


def stored_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(("word", "status"), [("gone", 404), ("expired", 403)])
async def test_a_file_that_dify_does_not_serve_has_an_error_that_says_so(
    proxy: ProxyServer, word: str, status: int
) -> None:
    answer = await get(await a_link(proxy, word=f"DRAW:{word}"))
    assert answer.status_code == 502
    assert error_of(answer)["code"] == "upstream_error"
    assert error_of(answer)["message"] == f"The file could not be read from Dify. Dify answered with HTTP {status}."


async def test_a_file_that_is_too_large_is_not_stored(serve: Serve, tmp_path: Path) -> None:
    proxy = serve(state_url=MEMORY, image_storage_dir=str(tmp_path), max_artifact_bytes=1_000_000)
    answer = await get(await a_link(proxy, word="FILE:2mb"))
    assert answer.status_code == 502
    assert error_of(answer)["message"].endswith("It is larger than 1000000 bytes, the limit MAX_ARTIFACT_BYTES.")
    assert stored_in(tmp_path) == []


async def test_parts_of_a_file_and_its_head(proxy: ProxyServer, demo: DemoServer) -> None:
    link = await a_link(proxy, word="FILE:pdf:1mb")
    whole = await get(link)
    size = made(demo).size
    assert whole.headers["content-length"] == str(size)
    assert whole.headers["accept-ranges"] == "bytes"
    assert len(whole.content) == size
    head = await get(link, "HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size))
    part = await get(link, Range=f"bytes=300000-{size}")
    assert (part.status_code, part.content) == (206, whole.content[300_000:])
    assert part.headers["content-range"] == f"bytes 300000-{size - 1}/{size}"
    outside = await get(link, Range=f"bytes={size}-")
    assert outside.status_code == 416
    assert (await get(link, If_None_Match=whole.headers["etag"])).status_code == 304


async def test_a_chat_whose_links_have_expired_continues(serve: Serve, tmp_path: Path, log: DemoLog) -> None:
    clock = Clock()
    proxy = serve(state_url=MEMORY, image_storage_dir=str(tmp_path), clock=clock, link_ttl=600)
    async with proxy.client() as client:
        answer = await ask(client, "demo-chat@1.16", "DRAW a cat")
        clock.ahead = 3600
        (link,) = links_in(answer)
        assert (await get(link)).status_code == 404
        history = [*user("DRAW a cat"), {"role": "assistant", "content": answer}, *user("And then?")]
        await client.chat.completions.create(model="demo-chat@1.16", messages=history)
    first, second = turns(log)
    assert "conversation_id" not in first.body
    assert second.body["conversation_id"]
    assert second.body["query"] == "And then?"


def showing(link: str) -> list[Any]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": link}}]
    return [{"role": "user", "content": parts}]


async def test_a_picture_that_is_sent_back_is_read_from_the_storage(
    serve: Serve, tmp_path: Path, demo: DemoServer, log: DemoLog
) -> None:
    proxy = serve(state_url=MEMORY, image_storage_dir=str(tmp_path), api_keys=("one", "two"))
    link = await a_link(proxy, "one")
    picture = made(demo)
    async with proxy.client("one") as client:
        await client.chat.completions.create(model="demo-chat@1.16", messages=showing(link))
    uploads = demo.app.state.demo.uploads
    (sent,) = turns(log)[-1].body["files"]
    assert sent["transfer_method"] == "local_file"
    assert f"sha {sha256(picture.content).hexdigest()[:12]}" in uploads[sent["upload_file_id"]].described
    async with proxy.client("two") as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="demo-chat@1.16", messages=showing(link))
    assert raised.value.code == "file_not_found"
    assert raised.value.param == "messages[0].content[1]"


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_annotate_the_links(client: AsyncOpenAI, proxy: ProxyServer, stream: bool) -> None:
    model = "demo-advanced-chat@1.16"
    response: Response
    if stream:
        async with client.responses.stream(model=model, input="FILE a cat") as events:
            response = await events.get_final_response()
    else:
        response = await client.responses.create(model=model, input="FILE a cat")
    (link,) = links_in(response.output_text)
    (message,) = response.model_dump()["output"]
    (annotation,) = message["content"][0]["annotations"]
    at = response.output_text.index(link)
    assert annotation["type"] == "url_citation"
    assert (annotation["url"], annotation["start_index"], annotation["end_index"]) == (link, at, at + len(link))
    stored = await client.responses.retrieve(response.id)
    assert stored.output_text == response.output_text
    assert (await get(link)).status_code == 200
