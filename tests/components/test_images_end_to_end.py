"""Run the server with a real IPFS node or S3 server: pictures survive crashes of nodes and processes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx2
import psutil
import pytest

from openai_dify_proxy_demo.replicate import DemoReplicate
from tests import parts
from tests.api.raw_client import until
from tests.cli.program import Program, Running
from tests.components.servers import IpfsNode, S3Server
from tests.limits import PATIENCE


@pytest.fixture(scope="module")
def shared_demo() -> Iterator[DemoReplicate]:
    with DemoReplicate() as running:
        yield running


@pytest.fixture
def demo(shared_demo: DemoReplicate) -> Iterator[DemoReplicate]:
    shared_demo.log.clear()
    yield shared_demo
    assert not shared_demo.log.leaked_tokens


@pytest.fixture
def own_ipfs(node: Path, tmp_path: Path) -> Iterator[IpfsNode]:
    """Create a node that the test starts and may stop."""
    ipfs = IpfsNode(node, parts.ipfs_node(), tmp_path / "ipfs")
    yield ipfs
    ipfs.kill()


class Proxies:
    """Starts server processes on one picture directory."""

    def __init__(self, demo: DemoReplicate, directory: Path) -> None:
        self._demo = demo
        self._program = Program(directory)
        self.pictures = directory / "pictures"

    @contextmanager
    def start(self, *arguments: str, **env: str) -> Iterator[tuple[Running, str]]:
        """Start a server process; yield it and its origin."""
        settings = {
            "DIFY_API_URL": "http://127.0.0.1:9",
            "REPLICATE_API_TOKEN": self._demo.token,
            "REPLICATE_API_URL": self._demo.url,
            "REPLICATE_OUTPUT_HOSTS": self._demo.output_origin,
            "IMAGE_MODEL": "black-forest-labs/flux-schnell",
            "IMAGE_STORAGE_DIR": str(self.pictures),
            **env,
        }
        with self._program.start("serve", "--port", "0", *arguments, **settings) as running:
            yield running, running.url().removesuffix("/v1")

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in sorted(self.pictures.glob("??/??/*.json"))]

    def unsent(self) -> int:
        return sum(record["ipfs"] != "sent" for record in self.records())

    def bytes_of(self, record: dict[str, Any]) -> bytes:
        digest: str = record["sha256"]
        path = self.pictures / digest[:2] / digest[2:4] / f"{digest}.{record['extension']}"
        return path.read_bytes()


@pytest.fixture
def proxies(demo: DemoReplicate, tmp_path: Path) -> Proxies:
    return Proxies(demo, tmp_path)


async def post(origin: str, **body: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        return await http.post(f"{origin}/v1/images/generations", json=body)


async def generate(origin: str, prompt: str = "a red fox", **body: Any) -> dict[str, Any]:
    response = await post(origin, prompt=prompt, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def fetch(url: str, **more: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        return await http.get(url, **more)


async def on_node(ipfs: IpfsNode, cid: str) -> bytes:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        response = await http.post(f"{ipfs.rpc}/api/v0/cat", params={"arg": cid, "timeout": "5s"})
        return response.raise_for_status().content


async def test_a_picture_on_ipfs(proxies: Proxies, shared_ipfs: IpfsNode) -> None:
    gateway = f"{shared_ipfs.gateway}/ipfs/{{cid}}"
    env = {"IPFS_UPLOAD_URL": shared_ipfs.rpc, "IPFS_GATEWAY_URL": gateway}
    with proxies.start(**env) as (_, origin):
        answer = await generate(origin, seed=7, return_ipfs=True)
        (shown,) = answer["data"]
        assert answer["url"] == shown["url"] == f"ipfs://{shown['cid']}"
        assert shown["ipfs"] == "sent"
        assert "b64_json" not in shown or shown["b64_json"] is None
        (record,) = proxies.records()
        data = proxies.bytes_of(record)
        assert (record["cid"], record["ipfs"]) == (shown["cid"], "sent")
        assert hashlib.sha256(data).hexdigest() == record["sha256"]
        assert await on_node(shared_ipfs, shown["cid"]) == data
        assert (await fetch(f"{shared_ipfs.gateway}/ipfs/{shown['cid']}")).content == data
        linked = await generate(origin, seed=7, response_format="url")
        assert linked["data"][0]["url"] == f"{origin}/pictures/{record['sha256']}.png", (
            "links to the proxy are the default"
        )
        assert (await fetch(linked["data"][0]["url"])).content == data
    with proxies.start(**env, PICTURE_LINKS="ipfs") as (_, origin):
        linked = await generate(origin, seed=7, response_format="url")
        assert linked["data"][0]["url"] == gateway.format(cid=shown["cid"])
        assert (await fetch(linked["data"][0]["url"])).content == data
    assert len(proxies.records()) == 1, "the same picture is stored once"


async def test_ten_pictures_while_ipfs_is_down(demo: DemoReplicate, proxies: Proxies, own_ipfs: IpfsNode) -> None:
    """All are answered; after a kill of the proxy and a start of IPFS and the proxy, all ten are uploaded."""
    env = {"IPFS_UPLOAD_URL": own_ipfs.rpc}
    with proxies.start(**env) as (running, origin):
        answers = await asyncio.gather(*(generate(origin, f"fox {number}", seed=number) for number in range(10)))
        running.end(signal.SIGKILL)
    by_cid = {shown["cid"]: base64.b64decode(shown["b64_json"]) for answer in answers for shown in answer["data"]}
    assert len(by_cid) == demo.log.creations() == 10
    assert [answer["data"][0]["ipfs"] for answer in answers] == ["pending"] * 10
    before = proxies.records()
    assert {record["cid"]: proxies.bytes_of(record) for record in before} == by_cid
    assert proxies.unsent() == 10

    own_ipfs.start()
    with proxies.start(**env):
        await until(lambda: proxies.unsent() == 0, PATIENCE)
    for cid, data in by_cid.items():
        assert await on_node(own_ipfs, cid) == data
    assert proxies.records() == [record | {"ipfs": "sent"} for record in before]
    assert demo.log.creations() == demo.log.attempts() == 10, "no picture was generated again"


async def test_return_ipfs_while_ipfs_is_down_names_the_local_link(
    demo: DemoReplicate, proxies: Proxies, own_ipfs: IpfsNode
) -> None:
    with proxies.start(IPFS_UPLOAD_URL=own_ipfs.rpc, IPFS_TIMEOUT="0.5") as (running, origin):
        response = await post(origin, prompt="a red fox", return_ipfs=True)
        assert response.status_code == 503
        error = response.json()["error"]
        assert error["code"] == "ipfs_pending"
        assert response.headers["x-should-retry"] == "false", "a retry would be paid again"
        link = error["message"].rpartition(" ")[2]
        assert link.startswith(f"{origin}/pictures/")
        picture = await fetch(link)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        (record,) = proxies.records()
        assert picture.content == proxies.bytes_of(record)
        own_ipfs.start()
        await until(lambda: proxies.unsent() == 0, PATIENCE)
        assert await on_node(own_ipfs, record["cid"]) == picture.content
        assert "a red fox" not in running.logged
    assert demo.log.creations() == 1


async def test_one_worker_at_a_time_uploads(proxies: Proxies, shared_ipfs: IpfsNode) -> None:
    """One worker holds the lease and uploads for all; when it dies, another one takes over."""

    def holders(parent: psutil.Process) -> list[psutil.Process]:
        lock = str(proxies.pictures / "ipfs.lock")
        return [
            child
            for child in parent.children(recursive=True)
            if child.status() != psutil.STATUS_ZOMBIE and lock in {file.path for file in child.open_files()}
        ]

    def held_by_one(parent: psutil.Process, other_than: int | None = None) -> bool:
        try:
            found = [child.pid for child in holders(parent)]
        except psutil.NoSuchProcess:
            return False
        return len(found) == 1 and found[0] != other_than

    with proxies.start("--workers", "2", IPFS_UPLOAD_URL=shared_ipfs.rpc) as (running, origin):
        parent = psutil.Process(running.process.pid)
        try:
            await asyncio.gather(*(generate(origin, f"fox {number}", seed=number) for number in range(6)))
            await until(lambda: proxies.unsent() == 0, PATIENCE)
            await until(lambda: held_by_one(parent), PATIENCE)
            (holder,) = holders(parent)
            holder.kill()
            await until(lambda: held_by_one(parent, other_than=holder.pid), PATIENCE)
            await asyncio.gather(*(generate(origin, f"dog {number}", seed=number) for number in range(6)))
            await until(lambda: proxies.unsent() == 0, PATIENCE)
        finally:
            running.end(signal.SIGTERM)
    records = proxies.records()
    assert len(records) == 12
    for record in records:
        assert await on_node(shared_ipfs, record["cid"]) == proxies.bytes_of(record)


@pytest.mark.parametrize("serve", ["proxy", "redirect"])
async def test_pictures_in_an_object_store(
    demo: DemoReplicate, proxies: Proxies, s3_server: S3Server, serve: str
) -> None:
    store = s3_server.url(f"end-to-end/{token_hex(8)}", serve=serve)
    with proxies.start(PICTURE_STORE=store) as (running, origin):
        answer = await generate(origin, seed=1, response_format="url")
        inline = await generate(origin, seed=1)
        data = base64.b64decode(inline["data"][0]["b64_json"])
        link = answer["data"][0]["url"]
        assert link == f"{origin}/pictures/{hashlib.sha256(data).hexdigest()}.png"
        plain = await fetch(link)
        if serve == "redirect":
            assert plain.status_code == 307
            assert plain.headers["location"].startswith(f"{s3_server.endpoint}/pictures/")
        else:
            assert plain.status_code == 200
        followed = await fetch(link, follow_redirects=True)
        assert (followed.status_code, followed.headers["content-type"]) == (200, "image/png")
        assert followed.content == data
        assert (await fetch(f"{origin}/pictures/{'0' * 64}.png")).status_code == 404
        running.end(signal.SIGKILL)
    with proxies.start(PICTURE_STORE=store) as (_, origin):
        picture = await fetch(f"{origin}/pictures/{link.rpartition('/')[2]}", follow_redirects=True)
        assert picture.content == data, "the picture does not depend on the process"
    assert not proxies.pictures.exists()
    assert demo.log.creations() == 2


async def test_several_predictions_of_a_community_model(demo: DemoReplicate, proxies: Proxies) -> None:
    """Replicate rejects each prediction by name; all are then created by version."""
    with proxies.start() as (_, origin):
        answer = await generate(origin, "seven foxes", n=7, seed=10, model="stability-ai/sdxl")
    assert len(answer["data"]) == 7
    assert len({shown["b64_json"] for shown in answer["data"]}) == 7
    assert demo.log.creations() == 2, "of at most four pictures each"
    assert demo.log.attempts() == 4
