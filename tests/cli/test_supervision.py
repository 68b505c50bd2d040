"""The worker processes of ``serve``: reload, replacement, and the end of the server, under load."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import PROGRAM, Program, Running
from tests.limits import PATIENCE

QUESTION = {"model": "any", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def env(tmp_path: Path, dify: DemoServer) -> dict[str, str]:
    configure(tmp_path, dify, model="first")
    return {"XDG_RUNTIME_DIR": str(tmp_path), "DIFY_MAX_CONCURRENT": "off", "CONFIG_FILE": "apps.toml", "PORT": "0"}


def configure(directory: Path, dify: DemoServer, *, model: str, extra: str = "") -> None:
    text = f'dify_api_url = "{dify.url}"\ndefault_app = "{model}"\n{extra}[apps.{model}]\napi_key = "app-demo-chat"\n'
    (directory / "apps.toml").write_text(text)


def workers(server: Running) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


async def until(condition: object, server: Running) -> None:
    """Wait until the function ``condition`` returns something true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # type: ignore[operator]
            assert server.process.poll() is None, server.logged
            await asyncio.sleep(0.02)


async def serves(url: str) -> httpx2.Response:
    """Return the answer of ``/ready``; the socket queues the request until a worker serves."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        return await http.get(url.replace("/v1", "/ready"))


async def served_models(url: str) -> list[str]:
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        return [model["id"] for model in (await http.get(f"{url}/models")).json()["data"]]


def reload(program: Program, env: dict[str, str], url: str) -> tuple[int, str]:
    port = url.removesuffix("/v1").rpartition(":")[2]
    ended = program.run("reload", "--port", port, **{**env, "CONFIG_FILE": ""})
    return ended.returncode, ended.stdout + ended.stderr


@asynccontextmanager
async def load(url: str, clients: int = 4, **options: Any) -> AsyncIterator[list[httpx2.Response]]:
    """Chat all the time, over connections that are reused; yield the answers so far. Failures raise at the end."""
    answers: list[httpx2.Response] = []
    done = asyncio.Event()

    async def chat() -> None:
        async with httpx2.AsyncClient(timeout=PATIENCE, **options) as http:
            while not done.is_set():
                answers.append(await http.post(f"{url}/chat/completions", json=QUESTION))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(chat())
        try:
            yield answers
        finally:
            done.set()


@pytest.mark.parametrize("count", ["1", "2"])
async def test_a_reload_under_load_loses_no_answer(
    program: Program, dify: DemoServer, env: dict[str, str], count: str
) -> None:
    with program.start("serve", WORKERS=count, **env) as server:
        url = server.url()
        assert (await serves(url)).status_code == 200
        old = workers(server)
        async with load(url) as answers:
            configure(program.directory, dify, model="second")
            ended = await asyncio.to_thread(reload, program, env, url)
            assert ended == (0, "The server uses the new settings.\n")
            await until(lambda: "reload_finished" in server.logged, server)
            assert not old & workers(server)
            seen = len(answers)
            await until(lambda: len(answers) > seen, server)
        assert {answer.status_code for answer in answers} == {200}
        assert await served_models(url) == ["second"]
        assert server.end(signal.SIGTERM) == 0
        assert "Traceback" not in server.logged


async def test_streams_finish_during_a_reload_or_are_stopped_after_the_grace(
    program: Program, dify: DemoServer, env: dict[str, str]
) -> None:
    async def stream(http: httpx2.AsyncClient, url: str, question: str) -> tuple[asyncio.Event, asyncio.Task[bytes]]:
        began = asyncio.Event()

        async def read() -> bytes:
            body = {**QUESTION, "stream": True, "messages": [{"role": "user", "content": question}]}
            text = b""
            async with http.stream("POST", f"{url}/chat/completions", json=body) as reply:
                async for part in reply.aiter_bytes():
                    text += part
                    began.set()
            return text

        return began, asyncio.create_task(read())

    with program.start("serve", SHUTDOWN_GRACE="8s", **env) as server:
        url = server.url()
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            short_began, short = await stream(http, url, "SLOW:10x100")
            long_began, long = await stream(http, url, "SLOW:1000x100")
            await short_began.wait()
            await long_began.wait()
            server.process.send_signal(signal.SIGHUP)
            assert (await short).endswith(b"data: [DONE]\n\n")
            assert b"shutting_down" in await long
        await until(lambda: "reload_finished" in server.logged, server)
        assert (await serves(url)).status_code == 200


async def test_invalid_settings_change_nothing(program: Program, dify: DemoServer, env: dict[str, str]) -> None:
    with program.start("serve", **env) as server:
        url = server.url()
        assert (await serves(url)).status_code == 200
        old = workers(server)
        configure(program.directory, dify, model="second", extra="silence_timeout = 'long'\nworkers = 0\n")
        code, text = await asyncio.to_thread(reload, program, env, url)
        assert code == 2
        assert {line.split(" in ")[0] for line in text.splitlines()} == {"Error: silence_timeout", "Error: workers"}
        assert server.logged.count("reload_failed") == 2
        assert workers(server) == old
        assert await served_models(url) == ["first"]
        configure(program.directory, dify, model="third")
        assert (await asyncio.to_thread(reload, program, env, url))[0] == 0
        assert await served_models(url) == ["third"]


FAULT = """
import os, pathlib, sys
if "openai_dify_proxy.cli.worker" in sys.orig_argv and pathlib.Path("faulty").exists():
    os._exit(3)
"""
"""Python runs it at its start. Workers then fail while the file exists."""


@pytest.fixture
def faulty(tmp_path: Path, env: dict[str, str]) -> Path:
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    env["PYTHONPATH"] = str(tmp_path)
    return tmp_path / "faulty"


async def test_settings_with_which_no_worker_starts_are_withdrawn(
    program: Program, dify: DemoServer, env: dict[str, str], faulty: Path
) -> None:
    with program.start("serve", **env) as server:
        url = server.url()
        assert (await serves(url)).status_code == 200
        old = workers(server)
        configure(program.directory, dify, model="second")
        await asyncio.to_thread(faulty.touch)
        code, text = await asyncio.to_thread(reload, program, env, url)
        assert (code, text.startswith("Error: A worker with the new settings exited")) == (2, True), text
        assert workers(server) == old
        assert await served_models(url) == ["first"]


async def test_a_reload_changes_the_number_of_workers(program: Program, dify: DemoServer, env: dict[str, str]) -> None:
    with program.start("serve", **env) as server:
        url = server.url()
        assert (await serves(url)).status_code == 200
        for number, count in enumerate((3, 1), 1):
            configure(program.directory, dify, model="more", extra=f"workers = {count}\nport = 1\n")
            assert (await asyncio.to_thread(reload, program, env, url))[0] == 0
            await until(lambda finished=number: server.logged.count("reload_finished") == finished, server)
            assert len(workers(server)) == count


def test_reload_without_a_server(program: Program, env: dict[str, str]) -> None:
    code, text = reload(program, env, "http://127.0.0.1:1/v1")
    assert code == 1
    assert text.startswith(f"Error: No server listens on {env['XDG_RUNTIME_DIR']}/openai-dify-proxy/1.sock (No such")


def test_a_reload_of_the_demo_is_refused(program: Program) -> None:
    env = {"XDG_RUNTIME_DIR": str(program.directory), "PORT": "0"}
    with program.start("serve", **env) as server:
        code, text = reload(program, env, server.url())
        assert (code, text.split(".")[0]) == (2, "Error: The demo has no settings to reload")


async def test_a_killed_worker_is_replaced(program: Program, env: dict[str, str]) -> None:
    with program.start("serve", WORKERS="2", **env) as server:
        url = server.url()
        assert (await serves(url)).status_code == 200
        await until(lambda: len(workers(server)) == 2, server)
        victim = min(workers(server))
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(workers(server) - {victim}) == 2, server)
        assert f"worker_died pid={victim} reason=SIGKILL" in server.logged
        async with load(url) as answers:
            await until(lambda: len(answers) > 20, server)
        assert {answer.status_code for answer in answers} == {200}


async def test_workers_of_a_killed_supervisor_finish_and_exit(program: Program, env: dict[str, str]) -> None:
    body = {**QUESTION, "stream": True, "messages": [{"role": "user", "content": "SLOW:10x100"}]}
    with program.start("serve", **env) as server:
        url = server.url()
        async with (
            httpx2.AsyncClient(timeout=PATIENCE) as http,
            http.stream("POST", f"{url}/chat/completions", json=body) as reply,
        ):
            orphans = [psutil.Process(pid) for pid in workers(server)]
            server.process.kill()
            assert (await reply.aread()).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(psutil.wait_procs, orphans, PATIENCE) == (orphans, [])
        assert "supervisor_died" in server.logged


async def test_balancers_notice_a_shutdown_before_connections_are_refused(
    program: Program, env: dict[str, str]
) -> None:
    with program.start("serve", SHUTDOWN_DELAY="5s", **env) as server:
        url = server.url()
        assert (await serves(url)).status_code == 200
        async with load(url) as answers:
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                while (reply := await serves(url)).status_code == 200:
                    pass
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")
            seen = len(answers)
            await until(lambda: len(answers) > seen + 4, server)
            assert answers[-1].headers["connection"] == "close"
        assert {answer.status_code for answer in answers} == {200}
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


def test_a_server_whose_workers_do_not_start_exits(program: Program, env: dict[str, str], faulty: Path) -> None:
    faulty.touch()
    with program.start("serve", **env) as server:
        assert server.process.wait(PATIENCE) == 1
        assert "start_failed" in server.logged


async def test_sighup_of_a_closed_terminal_ends_the_server(program: Program, env: dict[str, str]) -> None:
    opened, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "serve", cwd=program.directory, env=program.environment(env), stdin=terminal,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(terminal)
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    assert (await serves(url)).status_code == 200
    os.close(opened)
    process.send_signal(signal.SIGHUP)
    await process.communicate()
    assert process.returncode == 0
