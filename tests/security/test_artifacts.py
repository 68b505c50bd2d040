"""Links that a model wrote: which are fetched, from where, and how little a hostile Dify can do with a file."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import Settings
from tests.api.chat_requests import ask, error_of
from tests.api.saying_dify import FILE_ID, LINK, app_of, files_requested, saying
from tests.api.servers import ProxyServer
from tests.api.slots import MEMORY
from tests.limits import PATIENCE
from tests.upstream.raw_server import Answer, endless, moved, raw, reply

OURS = re.compile(r"http://[0-9.:]+/artifacts/[\w-]{48}\.\w+")


@asynccontextmanager
async def proxy_for(apps: object, directory: Path, **more: object) -> AsyncIterator[ProxyServer]:
    options: dict[str, Any] = {"apps": apps, "state_url": MEMORY, "image_storage_dir": str(directory), **more}
    with ProxyServer(Settings(**options)) as proxy:
        yield proxy


async def answer_at(link: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        return await http.get(link)


@pytest.mark.parametrize(
    "link",
    [
        f"https://example.com{LINK}",
        f"http://93.184.215.14{LINK}",
        f"https://127.0.0.1.example.com{LINK}",
        f"http://user@127.0.0.1{LINK}",
        f"http://example.com/?next={LINK}",
        f"//evil.example{LINK}",
        f"file://{LINK}",
        f"gopher://127.0.0.1{LINK}",
        f"/files/tools/../../console/api/apps?{LINK.partition('?')[2]}",
        f"/files/tools/{FILE_ID}.png/../../v1/info?{LINK.partition('?')[2]}",
        f"/files/%2e%2e/{FILE_ID}/file-preview?{LINK.partition('?')[2]}",
        f"/v1/files/{FILE_ID}/preview?{LINK.partition('?')[2]}",
        f"/console/api/files/{FILE_ID}?{LINK.partition('?')[2]}",
        LINK.partition("?")[0],
        f"{LINK}&as_attachment=true",
        f"{LINK}%0d%0aHost:%20evil&x=1",
        "http://169.254.169.254/latest/meta-data/",
        f"http://127.1{LINK}",
        f"http://127.0.0.1.{LINK}",
    ],
)
async def test_other_links_stay_as_they_are_and_are_never_fetched(tmp_path: Path, link: str) -> None:
    text = f"![a]({link})"
    async with saying([text]) as dify, proxy_for(app_of(dify), tmp_path) as proxy, proxy.client() as client:
        assert await ask(client, "a", text) == text
        assert await ask(client, "a", text) == text, "time for a fetch"
        assert files_requested(dify) == []


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "10.0.0.1:6379", "[::1]:22", "metadata", "localhost:5432", "127.0.0.1", "2130706433"]
)
async def test_a_link_to_a_private_host_is_fetched_from_the_configured_dify_without_a_key(
    tmp_path: Path, host: str
) -> None:
    """A model that knows such a host still reaches only Dify's route for signed links."""
    async with (
        saying([f"![a](http://{host}{LINK})"], reply(403, {"code": "forbidden"})) as dify,
        proxy_for(app_of(dify), tmp_path) as proxy,
        proxy.client() as client,
    ):
        (link,) = OURS.findall(await ask(client, "a", "Hi"))
        answer = await answer_at(link)
        assert answer.status_code == 502
        assert error_of(answer)["message"] == "The file could not be read from Dify. Dify answered with HTTP 403."
        assert files_requested(dify) == [LINK]
        (request,) = [request for request in dify.requests if request.target == LINK]
        assert "authorization" not in request.headers
        assert request.headers["host"] == dify.origin.removeprefix("http://")


BAD_FILES: dict[str, tuple[Answer, str]] = {
    "a redirect": (moved("http://169.254.169.254/"), "Dify answered with HTTP 302."),
    "a file without end": (endless, "It is larger than 100000 bytes"),
    "a large announcement": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"),
        "It is larger than",
    ),
    "a file that breaks off": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"), "Dify broke off the file."),
    "no answer": (raw(b""), "Dify closed the connection without an answer."),
    "nonsense": (raw(b"nonsense\r\n\r\n"), "Dify closed the connection without an answer."),
}


@pytest.mark.parametrize(("file", "reason"), BAD_FILES.values(), ids=BAD_FILES)
async def test_a_bad_file_leaves_an_error_and_nothing_else(tmp_path: Path, file: Answer, reason: str) -> None:
    async with (
        saying([LINK], file) as dify,
        proxy_for(app_of(dify), tmp_path, max_artifact_bytes=100_000) as proxy,
        proxy.client() as client,
    ):
        (link,) = OURS.findall(await ask(client, "a", "Hi"))
        answer = await answer_at(link)
        assert answer.status_code == 502
        assert error_of(answer)["message"].startswith(f"The file could not be read from Dify. {reason}")
        assert files_in(tmp_path) == []


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def modes_in(directory: Path) -> tuple[set[int], set[int]]:
    """Return the modes of the folders and of the files."""
    modes: tuple[set[int], set[int]] = set(), set()
    for path in directory.rglob("*"):
        modes[path.is_file()].add(stat.S_IMODE(path.stat().st_mode))
    return modes


async def test_stored_files_are_readable_by_the_server_only(tmp_path: Path) -> None:
    async with saying([LINK], reply(200, b"text")) as dify, proxy_for(app_of(dify), tmp_path) as proxy:
        async with proxy.client() as client:
            (link,) = OURS.findall(await ask(client, "a", "Hi"))
        assert (await answer_at(link)).text == "text"
    assert modes_in(tmp_path) == ({0o700}, {0o600})


async def test_an_answer_does_not_wait_for_its_files(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def late(_request: object, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

    async with saying([LINK], late) as dify, proxy_for(app_of(dify), tmp_path) as proxy, proxy.client() as client:
        (link,) = OURS.findall(await ask(client, "a", "Hi"))
        reading = asyncio.create_task(answer_at(link))
        await dify.wait_for_requests(4)
        assert not reading.done()
        release.set()
        assert (await reading).text == "late"


async def test_equal_links_are_one_file(tmp_path: Path) -> None:
    again = LINK.replace("1795883998", "1795883999")
    file = {"type": "image", "transfer_method": "tool_file", "url": f"http://api:5001{again}", "filename": "cat.png"}
    async with (
        saying([f"{LINK} and {again} "], reply(200, b"text"), files=[file]) as dify,
        proxy_for(app_of(dify), tmp_path) as proxy,
        proxy.client() as client,
    ):
        completion = await client.chat.completions.create(model="a", messages=[{"role": "user", "content": "Hi"}])
        links = OURS.findall(completion.choices[0].message.content or "")
        assert len(links) == 2
        assert set(links) == {completion.model_dump()["dify"]["files"][0]["url"]}
        answer = await answer_at(links[0])
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''cat.txt"
        assert files_requested(dify) == [LINK]
