"""Keys that the command line creates and revokes while workers and replicas serve."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import Program
from tests.components.replicas import Cluster, cluster, serving
from tests.limits import PATIENCE

IN_A_ROW = 16
"""Answers in a row, from any process, until all of them count as informed."""


async def until_all_answer(url: str, key: str, status: int) -> None:
    """Wait until every process answers ``status``. Each request has a new connection, which any worker may accept."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    unshared = httpx2.Limits(max_keepalive_connections=0)
    async with asyncio.timeout(PATIENCE), httpx2.AsyncClient(verify=False, timeout=PATIENCE, limits=unshared) as http:
        agreed = 0
        while agreed < IN_A_ROW:
            reply = await http.get(f"{url}/models", headers=headers)
            agreed = agreed + 1 if reply.status_code == status else 0


async def follow_a_key(keys: Program, url: str, state: str) -> None:
    def run(*arguments: str) -> str:
        done = keys.run("keys", *arguments, STATE_URL=state)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    await until_all_answer(url, "", 200)
    first = run("create", "anna")
    await until_all_answer(url, first, 200)
    await until_all_answer(url, "", 401)
    second = run("rotate", "anna")
    await until_all_answer(url, second, 200)
    await until_all_answer(url, first, 401)
    run("revoke", "anna", "--yes")
    await until_all_answer(url, second, 401)
    await until_all_answer(url, "", 401)


async def test_workers_follow_the_keys_in_an_sqlite_file(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    with DemoServer() as demo, serving(tmp_path / "serve", demo, 2, STATE_URL=state) as replica:
        await follow_a_key(Program(tmp_path), replica.url, state)


async def test_replicas_follow_the_keys_in_a_valkey(tmp_path: Path) -> None:
    running: Cluster
    with DemoServer() as demo, cluster(tmp_path, demo) as running:
        await follow_a_key(Program(tmp_path), running.url, running.state)
