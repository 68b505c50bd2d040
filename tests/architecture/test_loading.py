"""A server loads heavy packages only if its settings need them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openai_dify_proxy.settings import encode_settings
from openai_dify_proxy.settings.sources import load_settings

HEAVY = (
    "PIL",
    "aiohttp",
    "click",
    "greenlet",
    "importlib.metadata",
    "json_repair",
    "jsonschema_rs",
    "multiprocessing",
    "obstore",
    "pydantic",
    "rich",
    "typer",
    "yarl",
)

SCRIPT = """
import asyncio, json, sys
from openai_dify_proxy.cli.worker import __main__, process
from openai_dify_proxy.settings import decode_settings

app = process.create_process_app(decode_settings(sys.stdin.buffer.read()))

async def live():
    async with app.router.lifespan_context(app):
        print("LOADED", json.dumps([name for name, module in sys.modules.items() if module]))

asyncio.run(live())
"""
"""A worker of the command `serve` until it would accept requests."""


def loaded(home: Path, **env: str) -> set[str]:
    """Return the modules of HEAVY that a server with these settings loads."""
    environment = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
    settings = load_settings(env={"DIFY_API_URL": "http://127.0.0.1:9", "DIFY_API_KEY": "app-x", **env}, dotenv=None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=home,
        env={**environment, "HOME": str(home)},
        input=encode_settings(settings),
        capture_output=True,
        check=True,
    )
    modules = set(json.loads(done.stdout.partition(b"LOADED")[2]))
    return modules & set(HEAVY)


@pytest.mark.parametrize("env", [{}, {"IMAGE_STORAGE_DIR": "."}, {"IPFS_UPLOAD_URL": "http://127.0.0.1:9"}])
def test_a_chat_server_loads_no_heavy_packages(tmp_path: Path, env: dict[str, str]) -> None:
    assert loaded(tmp_path, **env) == set()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"REPLICATE_API_TOKEN": "r8_x"}, {"PIL", "aiohttp", "yarl"}),
        ({"PICTURE_STORE": "s3://pictures?region=us-east-1"}, {"obstore"}),
    ],
)
def test_a_picture_server_loads_the_packages_it_uses(tmp_path: Path, env: dict[str, str], expected: set[str]) -> None:
    assert loaded(tmp_path, **env) == expected


@pytest.mark.parametrize("env", [{}, {"REPLICATE_API_TOKEN": "r8_x"}, {"PICTURE_RETENTION": "1d"}])
def test_a_server_creates_no_directory_before_the_first_picture(tmp_path: Path, env: dict[str, str]) -> None:
    directory = tmp_path / "pictures"
    loaded(tmp_path, IMAGE_STORAGE_DIR=str(directory), IPFS_UPLOAD_URL="http://127.0.0.1:9", **env)
    assert not directory.exists()
