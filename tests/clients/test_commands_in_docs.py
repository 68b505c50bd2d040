"""Run the commands of the docs in an empty home, and see that every block of code is run, parsed, or excused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import PROGRAM, Program
from tests.clients.snippets import NOT_RUN, RUN, Snippet, is_run, reason, snippets
from tests.limits import PATIENCE

ROOT = Path(__file__).parents[2]
SNIPPETS = snippets()
PROGRAMS = ("sh", "python", "js")
"""Languages of blocks that can run."""


def commands(document: str) -> list[str]:
    return [snippet.code for snippet in SNIPPETS if snippet[:2] == (document, "sh")]


def shell(code: str, home: Path, **env: str) -> str:
    """Run commands in a home of their own and return what they print."""
    home.mkdir(exist_ok=True)
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"],
        input=code,
        cwd=home,
        env={"PATH": path, "HOME": str(home), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_program_is_run_or_excused() -> None:
    programs = [snippet for snippet in SNIPPETS if snippet.language in PROGRAMS]
    assert [snippet for snippet in programs if not is_run(snippet) and reason(snippet) is None] == []


def test_no_excuse_is_left_over() -> None:
    assert {reason(snippet) for snippet in SNIPPETS} - {None} == NOT_RUN.keys()
    assert RUN - {snippet[:2] for snippet in SNIPPETS} == set()


PARSERS: dict[str, Callable[[str], object]] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
PARSED = [snippet for snippet in SNIPPETS if snippet.language in PARSERS]


@pytest.mark.parametrize(
    "snippet", PARSED, ids=[f"{Path(snippet.document).stem}-{n}" for n, snippet in enumerate(PARSED)]
)
def test_documents_parse(snippet: Snippet) -> None:
    assert PARSERS[snippet.language](snippet.code)


def test_configuration_of_codex_parses() -> None:
    (code,) = [snippet.code for snippet in SNIPPETS if "[model_providers.dify]" in snippet.code]
    assert tomllib.loads(code)["model_providers"]["dify"]["wire_api"] == "responses"


def unasked(code: str) -> str:
    """Return commands without the question that a terminal gets."""
    return re.sub(r"^(.* (?:revoke|forget-user) .*)$", r"\1 --yes", code, flags=re.MULTILINE)


def test_commands_about_keys(tmp_path: Path) -> None:
    first, options, rotation, forget = commands("docs/keys.md")
    printed = shell(unasked(first), tmp_path / "first")
    assert printed.startswith("sk-")
    assert "anna" in printed
    assert len(set(shell(options, tmp_path / "options").split())) == 4
    old = f"sk-{'a1' * 24}"
    assert old not in shell(rotation, tmp_path / "rotation", OLD_KEY=old)
    with DemoServer() as dify:
        settings = {"DIFY_API_URL": dify.url, "DIFY_API_KEY": "app-demo-chat"}
        shell("openai-dify-proxy keys create open-webui", tmp_path / "forget")
        shell(unasked(forget), tmp_path / "forget", **settings)


def test_commands_about_usage(tmp_path: Path) -> None:
    over_http, in_terminal = commands("docs/limits.md")
    key = shell("openai-dify-proxy keys create root --admin", tmp_path).strip()
    with Program(tmp_path).start("serve", "--port", "0") as running:
        origin = running.url().removesuffix("/v1")
        answer = shell(over_http.replace("http://127.0.0.1:8223", origin), tmp_path, KEY=key)
    assert "data" in json.loads(answer)
    shell(in_terminal, tmp_path)


def test_chat_command(tmp_path: Path) -> None:
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    (command,) = [code for code in commands("docs/cli.md") if "| openai-dify-proxy chat" in code]
    assert "Summarize this release." in shell(command, tmp_path)


def test_python_example_of_the_demo(tmp_path: Path) -> None:
    (code,) = [snippet.code for snippet in SNIPPETS if snippet[:2] == ("docs/demo.md", "python")]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=PATIENCE)
