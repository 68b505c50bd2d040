"""Output in a terminal: help, errors about flags, narrow tables, other encodings, and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx2
import pytest

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy_demo import DemoServer
from tests.cli.program import Program
from tests.cli.terminal import Terminal, terminal
from tests.cli.test_help import COMMANDS
from tests.cli.test_pictures import keep, store
from tests.limits import PATIENCE

__all__ = ["store"]


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=str)
def test_short_help_is_the_help_without_types(program: Program, command: tuple[str, ...]) -> None:
    short, long = program.run(*command, "-h"), program.run(*command, "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert re.findall(r"<\w+>", long.stdout) == []
    assert max(map(len, long.stdout.splitlines())) <= 80


NO_KEYS = "Keys are never flags."


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("serve --port http", "--port must be an integer from 0 to 65535, not 'http'"),
        ("serve --port 70000", "--port must be an integer from 0 to 65535, not '70000'"),
        ("serve --workers 0", "--workers must be an integer of at least 1, not '0'"),
        ("demo --port http", "--port must be an integer from 0 to 65535, not 'http'"),
        (
            "serve --log-format xml",
            "--log-format must be 'console' or 'json', not 'xml'",
        ),
        ("serve --port", "--port requires a value. The port to listen on; 0 selects a free one."),
        ("serve --prot 1", "--prot is not a flag of openai-dify-proxy serve. Did you mean --port?"),
        ("serve -p 1", "-p is not a flag of openai-dify-proxy serve."),
        ("apps --json=1", "--json takes no value."),
        ("serve now", "openai-dify-proxy serve does not take 'now'."),
        ("srve", "'srve' is not a command. Did you mean serve?"),
        (
            "xyz",
            "'xyz' is not a command. Commands: serve, reload, demo, check, apps, chat, models, pictures, usage, keys.",
        ),
        ("serve --dify-api-key app-1", f"{NO_KEYS} Set DIFY_API_KEY in the environment or in .env."),
        ("serve --api-key=sk-1", f"{NO_KEYS} Set API_KEYS in the environment or in .env."),
        ("check --replicate-api-token r8_1", f"{NO_KEYS} Set REPLICATE_API_TOKEN in the environment or in .env."),
        ("--state-url x", f"{NO_KEYS} Set STATE_URL in the environment or in .env."),
        (
            "--port 80",
            "--port is a flag of serve, reload, demo. Put the command before it: openai-dify-proxy serve --port",
        ),
        ("demo --port", "--port requires a value. The port to listen on; 0 selects a free one."),
        ("--xyz", "--xyz is not a flag of openai-dify-proxy."),
    ],
)
def test_a_wrong_flag(program: Program, arguments: str, problem: str) -> None:
    ended = program.run(*arguments.split())
    first, *rest = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout, first) == (2, "", f"Error: {problem}")
    assert all(re.fullmatch(r"Run 'openai-dify-proxy( \w+)? --help' for its flags .*\.", line) for line in rest)


# --- encodings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_serve_starts_where_output_is_not_utf_8(program: Program, dify: DemoServer, encoding: str) -> None:
    env = {"DIFY_API_URL": dify.url, "API_KEYS": "secret-0123456789", "DIFY_API_KEY": "app-demo-chat"}
    with program.start("serve", "--port", "0", LC_ALL="C", PYTHONIOENCODING=encoding, **env) as server:
        url = server.url()
        assert "(Authorization: Bearer ...)" in server.until("Callers:")
        assert httpx2.get(f"{url}/models", timeout=PATIENCE).status_code == 401
        assert server.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("arguments", ["--help", "serve -h", "check", "apps", "models", "pictures", "demo --port x"])
def test_every_command_prints_where_output_is_not_utf_8(program: Program, arguments: str, encoding: str) -> None:
    ended = program.run_afresh(*arguments.split(), LC_ALL="C", PYTHONIOENCODING=encoding)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (2 if "x" in arguments.split() else 0)


def test_json_stays_whole_where_output_is_not_utf_8(program: Program) -> None:
    (program.directory / "apps.toml").write_text('[apps."Übersetzer …"]\napi_key = "app-1"\n', encoding="utf-8")
    env = {"CONFIG_FILE": "apps.toml", "DIFY_API_URL": "http://dify.invalid", "PYTHONIOENCODING": "ascii"}
    ended = program.run_afresh("apps", "--json", **env)
    assert [app["model"] for app in json.loads(ended.stdout)] == ["Übersetzer …"]


# --- narrow terminals ------------------------------------------------------------------------------------------


async def test_pictures_at_80_columns(program: Program, store: LocalPictures) -> None:
    record = await keep(store, ipfs=False)

    def show() -> str:
        with terminal(program, "pictures") as screen:
            assert screen.wait() == 0
            return screen.shown

    name, facts, _ = (await asyncio.to_thread(show)).splitlines()
    assert name == record.name
    assert facts == f"  {record.size} bytes, 16x16, stability-ai/sdxl, 2026-01-02 03:04"


def test_tables_at_80_columns(program: Program) -> None:
    """Words and names stay whole, and nothing is shortened."""
    (program.directory / "apps.toml").write_text('[apps.a-name-of-twenty-five]\napi_key = "app-demo-workflow-form"\n')
    with DemoServer() as dify:
        env = {"CONFIG_FILE": "apps.toml", "DIFY_API_URL": dify.url}
        with terminal(program, "check", **env) as screen:
            assert screen.wait() == 0
    name, works, inputs, *_ = screen.shown.splitlines()
    assert name == "a-name-of-twenty-five"
    assert re.sub("\x1b.*?m", "", works).strip() == "works: yes, Dify 1.16.1, workflow"
    assert inputs.startswith("  inputs: ")
    for words in ("question (text-input, required)", "features: "):
        assert words in " ".join(screen.shown.split())
    for command in ("check", "models", "apps"):
        with terminal(program, command) as screen:
            assert screen.wait() == 0
        assert "…" not in screen.shown.replace("X-Replicate-…", "")
    with terminal(program, "check") as screen:
        screen.wait()
    assert {"(paragraph,", "Num-Inference-Steps,", "nightmareai/real-esrgan"} <= set(screen.shown.split())


LONG_NAMES = """
default_app = "customer-support-first-level-emea"
[apps.customer-support-first-level-emea]
api_key = "app-1"
aliases = ["gpt-4o*", "gpt-4.1-mini-2025-04-14"]
[apps.internal-translation-workflow-german-french]
api_key = "app-2"
api_url = "https://dify-second-installation.internal.example.com/v1"
"""


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_long_names_stay_whole_at_80_columns(program: Program, kind: str) -> None:
    (program.directory / "apps.toml").write_text(LONG_NAMES)
    env = {"CONFIG_FILE": "apps.toml", "DIFY_API_URL": "https://dify.customer-support.example.com/v1", "TERM": kind}
    with terminal(program, "apps", **env) as screen:
        assert screen.wait() == 0
    assert max(map(len, screen.shown.splitlines())) <= 80
    names = {"customer-support-first-level-emea", "internal-translation-workflow-german-french"}
    addresses = {"https://dify-second-installation.internal.example.com/v1", "gpt-4.1-mini-2025-04-14"}
    assert names | addresses <= set(screen.shown.split())
    with terminal(program, "models", "black-forest-labs/flux-kontext-pro", TERM=kind) as screen:
        assert screen.wait() == 0
    assert "nightmareai/real-esrgan" in screen.shown
    with terminal(program, "models", TERM=kind) as screen:
        assert screen.wait() == 0
    assert {"stability-ai/sdxl", "DPMSolverMultistep,", "K_EULER_ANCESTRAL,"} <= set(
        re.sub("\x1b.*?m", "", screen.shown).split()
    )


async def test_columns_without_content_are_left_out(program: Program, store: LocalPictures) -> None:
    await keep(store, ipfs=False)
    shown = (await asyncio.to_thread(program.run, "pictures")).stdout
    assert "Created (UTC)" in shown
    assert "IPFS" not in shown
    assert "CID" not in shown


# --- Ctrl-C ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answers_under_way(url: str, *questions: str) -> AsyncIterator[list[httpx2.Response]]:
    """Streams of the demo app, each after its first chunk."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as http, AsyncExitStack() as stack:
        replies = []
        for question in questions:
            body = {"model": "demo-chat", "stream": True, "messages": [{"role": "user", "content": question}]}
            reply = await stack.enter_async_context(http.stream("POST", f"{url}/chat/completions", json=body))
            assert reply.status_code == 200
            replies.append(reply)
        yield replies


@asynccontextmanager
async def serving(program: Program, workers: int) -> AsyncIterator[tuple[Terminal, str]]:
    with terminal(program, "serve", "--port", "0", "--workers", str(workers)) as screen:
        line = await asyncio.to_thread(screen.until, "serves http://")
        yield screen, line.split()[-1]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("count", "text"), [(1, "1 answer"), (3, "3 answers")])
async def test_ctrl_c_finishes_answers(program: Program, workers: int, count: int, text: str) -> None:
    async with (
        serving(program, workers) as (screen, url),
        answers_under_way(url, *["SLOW:6x500"] * count) as replies,
    ):
        screen.press_ctrl_c()
        await asyncio.to_thread(screen.until, f"finishing {text}; press again to stop")
        for reply in replies:
            assert (await reply.aread()).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(screen.wait) == 0
        assert "Traceback" not in screen.shown


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_ctrl_c_stops_answers(program: Program, workers: int) -> None:
    async with (
        serving(program, workers) as (screen, url),
        answers_under_way(url, *["SLOW:200x500"] * 2) as replies,
    ):
        screen.press_ctrl_c()
        await asyncio.to_thread(screen.until, "finishing 2 answers; press again to stop")
        screen.press_ctrl_c()
        for reply in replies:
            assert b"shutting_down" in await reply.aread()
        assert await asyncio.to_thread(screen.wait) == 130
        assert screen.shown.count("turn_stopped") == 2
        assert "Traceback" not in screen.shown


@pytest.mark.parametrize("workers", [1, 2])
async def test_ctrl_c_says_nothing_without_answers(program: Program, workers: int) -> None:
    async with serving(program, workers) as (screen, url):
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            assert (await http.get(f"{url}/models")).status_code == 200
        screen.press_ctrl_c()
        assert await asyncio.to_thread(screen.wait) == 0
        assert "finishing" not in screen.shown
        assert "Traceback" not in screen.shown


@pytest.mark.parametrize("stream", [False, True])
async def test_ctrl_c_counts_responses_in_the_background_once(program: Program, stream: bool) -> None:
    body = {"model": "demo-chat", "input": "SLOW:200x500", "background": True, "stream": stream}
    async with (
        serving(program, 1) as (screen, url),
        httpx2.AsyncClient(timeout=PATIENCE) as http,
        http.stream("POST", f"{url}/responses", json=body) as reply,
    ):
        assert reply.status_code == 200
        await anext(reply.aiter_bytes())
        screen.press_ctrl_c()
        await asyncio.to_thread(screen.until, "finishing 1 answer; press again to stop")
        screen.press_ctrl_c()
        assert await asyncio.to_thread(screen.wait) == 130
        assert "Traceback" not in screen.shown


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_ctrl_c_cuts_answers_after_the_grace(program: Program, workers: str) -> None:
    with terminal(program, "serve", "--port", "0", SHUTDOWN_GRACE="1s", WORKERS=workers) as screen:
        url = (await asyncio.to_thread(screen.until, "serves http://")).split()[-1]
        async with answers_under_way(url, "SLOW:200x500") as (reply,):
            screen.press_ctrl_c()
            assert b"shutting_down" in await reply.aread()
        assert await asyncio.to_thread(screen.wait) == 0
    assert "answers_cut count=1" in re.sub("\x1b.*?m", "", screen.shown)
    assert "Cancel " not in screen.shown
    assert "Traceback" not in screen.shown


@asynccontextmanager
async def demo_answer_under_way(screen: Terminal, query: str) -> AsyncIterator[httpx2.Response]:
    """A stream of the demo Dify, after its first chunk."""
    url = (await asyncio.to_thread(screen.until, "serves http://")).split()[-1]
    body = {"inputs": {}, "query": query, "user": "u", "response_mode": "streaming"}
    headers = {"Authorization": "Bearer app-demo-chat"}
    async with (
        httpx2.AsyncClient(timeout=PATIENCE, headers=headers) as http,
        http.stream("POST", f"{url}/chat-messages", json=body) as reply,
    ):
        assert reply.status_code == 200
        yield reply


async def test_ctrl_c_finishes_answers_of_the_demo(program: Program) -> None:
    with terminal(program, "demo", "--port", "0") as screen:
        async with demo_answer_under_way(screen, "SLOW:6x500") as reply:
            screen.press_ctrl_c()
            await asyncio.to_thread(screen.until, "finishing 1 answer; press again to stop")
            assert b"message_end" in await reply.aread()
        assert await asyncio.to_thread(screen.wait) == 0
    assert "Traceback" not in screen.shown


SHORT_GRACE = """
from openai_dify_proxy.cli.demo import serve_demo
from openai_dify_proxy.settings import Settings
serve_demo(Settings(port=0, shutdown_grace=1))
"""


async def test_the_demo_cuts_answers_after_the_grace(program: Program) -> None:
    with terminal(program, command=[sys.executable, "-c", SHORT_GRACE]) as screen:
        async with demo_answer_under_way(screen, "SLOW:10x500") as reply:
            screen.press_ctrl_c()
            with suppress(httpx2.RemoteProtocolError):
                assert b"message_end" not in await reply.aread()
        assert await asyncio.to_thread(screen.wait) == 0
    assert "answers_cut count=1" in re.sub("\x1b.*?m", "", screen.shown)
    assert "Cancel " not in screen.shown
    assert "Traceback" not in screen.shown
