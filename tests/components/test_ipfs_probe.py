"""Probe whether a real IPFS node accepts uploads."""

from __future__ import annotations

from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import IpfsClient
from tests.components.servers import IpfsNode
from tests.limits import PATIENCE


async def test_a_node_accepts_uploads(shared_ipfs: IpfsNode) -> None:
    http = HttpClient(connect_timeout=PATIENCE)
    await IpfsClient(http, f"{shared_ipfs.rpc}/api/v0/add").probe()
    await http.close()
