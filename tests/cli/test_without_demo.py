"""The demo is a separate distribution: without it the program works, and names the remedy where it is required."""

from __future__ import annotations

import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import Program

INSTALL = "scripts/setup --extra demo"

WITHOUT_DEMO = """
import sys
sys.modules["openai_dify_proxy_demo"] = None
from openai_dify_proxy.cli.main import main
main()
"""
"""The console script, where importing the demo fails as if it were not installed."""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path, [sys.executable, "-c", WITHOUT_DEMO])


NOTHING = (
    "Nothing is configured, and the demo is not installed. "
    f"Set DIFY_API_URL to the address of a Dify, or install the demo: {INSTALL}"
)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("serve", NOTHING),
        ("check", NOTHING),
        ("apps", NOTHING),
        ("demo", f"The demo is not installed. Install it: {INSTALL}"),
        (
            "models",
            (
                "REPLICATE_API_TOKEN is not set, and the demo is not installed. "
                f"Set the token, or install the demo: {INSTALL}"
            ),
        ),
    ],
)
def test_a_command_that_needs_the_demo_names_the_ways_to_go_on(program: Program, command: str, problem: str) -> None:
    ended = program.run(command)
    assert (ended.returncode, ended.stderr) == (2, f"Error: {problem}\n")


def test_a_configured_dify_needs_no_demo(program: Program, dify: DemoServer) -> None:
    env = {"DIFY_API_URL": dify.url, "DIFY_API_KEY": "app-demo-chat"}
    assert program.run("check", **env).returncode == 0
    assert program.run("apps", **env).returncode == 0
    with program.start("serve", "--port", "0", **env) as server:
        with urllib.request.urlopen(f"{server.url()}/models") as answer:
            assert answer.status == 200
        assert server.end(signal.SIGTERM) == 0


def test_pictures_need_no_demo(program: Program) -> None:
    assert program.run("pictures").stdout == "0 pictures, 0 bytes.\n"
