"""A back-up as ``docs/operations.md`` describes it, restored into an empty place."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.replicate import DemoReplicate
from tests.cli.program import Program
from tests.limits import PATIENCE
from tests.parts import ROOT

DATA = ".local/share/openai-dify-proxy"


def documented_command() -> str:
    """Return the command of the docs that copies the state."""
    (command,) = re.findall(r'^python3 -c "(.*sqlite3.*)"$', (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    return str(command)


def chat(http: httpx2.Client, *texts: str) -> httpx2.Response:
    """Send a chat whose messages alternate between the user and the assistant."""
    messages = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]
    reply = http.post("/chat/completions", json={"model": "dify", "messages": messages})
    assert reply.status_code == 200, reply.text
    return reply


def respond(http: httpx2.Client, text: str, **fields: str) -> str:
    reply = http.post("/responses", json={"model": "dify", "input": text, **fields})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def await_spent_turns(file: Path, turns: int) -> None:
    """Wait until the file of a running server has so many turns of today: it is up to a second behind."""
    until = time.monotonic() + PATIENCE
    with closing(sqlite3.connect(file)) as state:
        while time.monotonic() < until:
            day = "SELECT coalesce(data, value) FROM entries WHERE key LIKE 'spent:%:____-__-__'"
            if [json.loads(count)["turns"] for (count,) in state.execute(day)] == [turns]:
                return
            time.sleep(0.01)
    raise AssertionError("the turns were not written")


@pytest.mark.parametrize("kind", ["no key", "API_KEYS", "keys create"])
def test_everything_goes_on_from_a_back_up(tmp_path: Path, kind: str) -> None:
    old, backup, new = (tmp_path / name for name in ("old", "backup", "new"))
    for directory in (old, backup, new):
        directory.mkdir()
    keys = {"API_KEYS": "a-client-key-of-the-tests"} if kind == "API_KEYS" else {}
    key = keys.get("API_KEYS", "")
    if kind == "keys create":
        key = Program(old).run("keys", "create", "team", "--daily-turns", "5").stdout.strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with DemoServer() as dify, DemoReplicate() as replicate:
        env = {
            "DIFY_API_URL": dify.url,
            "DIFY_API_KEY": "app-demo-chat",
            "REPLICATE_API_URL": replicate.url,
            "REPLICATE_API_TOKEN": replicate.token,
            "REPLICATE_OUTPUT_HOSTS": replicate.output_origin,
            "PORT": "0",
            **keys,
        }
        with Program(old).start("serve", **env) as server:
            http = httpx2.Client(base_url=server.url(), headers=headers, timeout=PATIENCE)
            first = chat(http, "My name is Anna.")
            answer = first.json()["choices"][0]["message"]["content"]
            response = respond(http, "Remember the number 7.")
            made = http.post("/images/generations", json={"prompt": "A fox", "response_format": "url"})
            link = made.json()["data"][0]["url"]
            picture = http.get(link).content
            if kind == "keys create":
                await_spent_turns(old / DATA / "state.db", 3)
            code = documented_command().replace("/backup", str(backup))
            subprocess.run([sys.executable, "-c", code], cwd=old / DATA, check=True)
            shutil.copytree(old / DATA / "pictures", backup / "pictures")
            http.close()
            assert server.end(signal.SIGTERM) == 0

        (new / DATA).parent.mkdir(parents=True)
        shutil.copytree(backup, new / DATA)
        with Program(new).start("serve", **env) as server:
            url = server.url()
            http = httpx2.Client(base_url=url, headers=headers, timeout=PATIENCE)
            second = chat(http, "My name is Anna.", answer, "What is my name?")
            assert second.headers["x-dify-conversation-id"] == first.headers["x-dify-conversation-id"]
            respond(http, "Which number?", previous_response_id=response)
            origin = url.removesuffix("/v1")
            if kind == "keys create":
                assert http.get("/models", headers={"Authorization": f"Bearer {key}x"}).status_code == 401
                over = http.post("/responses", json={"model": "dify", "input": "More?"})
                assert over.json()["error"]["code"] == "insufficient_quota"  # it has its limits and what it has used
            restored = http.get(f"{origin}/{link.partition('//')[2].partition('/')[2]}")
            assert restored.content == picture
            http.close()
        users = {run.user for run in dify.log.runs}
        assert len({run.conversation_id for run in dify.log.runs}) == 2
    assert len(users) == 1, "the end user has another name in Dify"
