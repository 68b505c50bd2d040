"""What a server loads: pictures cost memory, and one that only chats does without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("PIL", "aiohttp", "obstore", "openai_dify_proxy.image_app", "openai_dify_proxy.pictures")

SCRIPT = """
import asyncio, json, sys
from openai_dify_proxy.cli import main
from openai_dify_proxy.cli import serve as serving
from openai_dify_proxy.settings import load_settings

def run(app, sockets, *, grace):
    async def live():
        async with app.router.lifespan_context(app):
            print("LOADED", json.dumps(sorted(sys.modules)))
    asyncio.run(live())

serving.run = run
serving.serve_proxy(load_settings(overrides={"port": 0}))
"""
"""The command `serve` up to where the server would wait for its first request."""


def loaded(home: Path, **env: str) -> set[str]:
    """The modules of HEAVY that a server with these settings loads."""
    kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=home,
        env={**kept, "HOME": str(home), "DIFY_API_URL": "http://127.0.0.1:9", "DIFY_API_KEY": "app-x", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(json.loads(done.stdout.partition("LOADED")[2]))
    return modules & set(HEAVY)


def test_a_server_that_only_chats_loads_nothing_for_pictures(tmp_path: Path) -> None:
    assert loaded(tmp_path) == set()


@pytest.mark.parametrize(
    ("env", "more"),
    [
        ({"REPLICATE_API_TOKEN": "r8_x"}, {"aiohttp"}),
        ({"IMAGE_STORAGE_DIR": "."}, {"aiohttp"}),
        ({"PICTURE_STORE": "s3://pictures?region=us-east-1"}, {"aiohttp", "obstore"}),
    ],
)
def test_one_that_makes_or_keeps_them_does(tmp_path: Path, env: dict[str, str], more: set[str]) -> None:
    assert loaded(tmp_path, **env) == {"PIL", "openai_dify_proxy.image_app", "openai_dify_proxy.pictures", *more}
