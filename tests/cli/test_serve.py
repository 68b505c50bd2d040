"""The command ``serve``: its output, the served apps, and its end."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image

from openai_dify_proxy.cli.listening import CannotListen, listen
from openai_dify_proxy.cli.storage import picture_problem, state_problem
from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoServer
from tests import parts
from tests.cli.program import Program, Running
from tests.limits import PATIENCE

IMAGES = {"REPLICATE_API_TOKEN": "r8_x"}


def get(url: str, **headers: str) -> tuple[int, object]:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def models(answer: tuple[int, object]) -> list[str]:
    status, body = answer
    assert status == 200
    assert isinstance(body, dict)
    return [model["id"] for model in body["data"]]


def answer_of_printed_command(server: Running) -> str:
    """Return the text of the answer that the printed curl command streams, when a shell runs it unchanged."""
    parts.component("curl", shutil.which("curl"))
    done = subprocess.run(
        ["/bin/sh", "-c", server.until("curl ")], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    deltas = [json.loads(f"{{{line}}}")["content"] for line in done.stdout.splitlines()]
    assert len(deltas) > 3
    return "".join(deltas)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_nothing_configured_serves_the_demo(program: Program, ending: signal.Signals) -> None:
    with program.start("serve", "--port", "0") as server:
        url = server.url()
        assert "Hello!" in answer_of_printed_command(server)
        place = program.directory
        nothing = f"No Dify is configured: DIFY_API_URL is neither in the environment nor in a .env in {place}.\n"
        assert f"{nothing}These are demo apps" in "".join(server.said)
        assert "Callers: anyone on this machine; a request may bring its own Dify key (header " in "".join(server.said)
        assert models(get(f"{url}/models")) == [
            "demo-chat",
            "demo-agent-chat",
            "demo-advanced-chat",
            "demo-completion",
            "demo-workflow",
            "demo-agent",
            "stability-ai/sdxl",
        ]
        assert server.end(ending) == 0
        assert "Traceback" not in server.logged


def test_the_printed_line_makes_a_picture(program: Program) -> None:
    parts.component("curl", shutil.which("curl"))
    with program.start("serve", "--port", "0") as server:
        url = server.url()
        line = server.until("curl -sS ")
        assert line.startswith("curl -sS --fail-with-body http://127.0.0.1:")
        subprocess.run(
            ["/bin/sh", "-c", line], cwd=program.directory, capture_output=True, check=True, timeout=PATIENCE
        )
        assert "stability-ai/sdxl" in models(get(f"{url}/models"))
    with Image.open(program.directory / "picture.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1024, 1024))
    kept = json.loads(program.run("pictures", "--json").stdout)
    assert [(picture["media_type"], picture["seed"]) for picture in kept] == [("image/png", 7)]


def test_no_line_is_printed_that_would_cost_something(program: Program) -> None:
    """The demo's Dify with a real Replicate, which would charge for the pictures."""
    with program.start("serve", "--port", "0", REPLICATE_API_TOKEN="r8_real", IMAGE_MODEL="a/b") as server:
        url = server.url()
        server.until("curl -sSN ")
        assert "a/b" in models(get(f"{url}/models"))
        assert server.end(signal.SIGTERM) == 0
        assert server.process.stdout is not None
        said = "".join(server.said) + server.process.stdout.read()
    assert "Image models: a/b (default)" in said
    assert "images/generations" not in said
    assert "r8_real" not in said


def test_the_printed_line_works_where_client_keys_are_set(program: Program) -> None:
    with program.start("serve", "--port", "0", API_KEYS="client-key") as server:
        assert "Hello!" in answer_of_printed_command(server)
        assert "client-key" not in "".join(server.said)


def test_a_configured_dify_is_served(program: Program, dify: DemoServer) -> None:
    (program.directory / ".env").write_text(f"DIFY_API_URL={dify.url}\nDIFY_API_KEY=app-demo-chat\n")
    with program.start("serve", "--port", "0") as server:
        assert models(get(f"{server.url()}/models")) == ["dify"]
        assert server.end(signal.SIGTERM) == 0
        assert server.process.stdout is not None
        said = "".join(server.said) + server.process.stdout.read()
    assert "demo" not in said
    assert said.endswith("\nCheck the apps: openai-dify-proxy check\n")


def test_the_command_that_checks_the_apps_has_the_flags_of_serve(program: Program, dify: DemoServer) -> None:
    (program.directory / "my apps.toml").write_text('[apps.one]\napi_key = "app-demo-chat"\n')
    flags = ["--config", "my apps.toml", "--dify-api-url", dify.url]
    with program.start("serve", "--port", "0", *flags) as server:
        command = server.until("Check the apps: ").removeprefix("Check the apps: ")
    assert shlex.split(command) == ["openai-dify-proxy", "check", *flags]


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_the_demo_on_every_network_is_warned_of(program: Program, command: str) -> None:
    with program.start(command, "--port", "0", "--host", "0.0.0.0") as server:
        assert server.url().startswith("http://127.0.0.1:")
        if command == "serve":
            server.until("It listens on every network (0.0.0.0): ")
        server.until("Warning: the demo is a test double, and its keys are public.")


@pytest.mark.parametrize(("env", "settings"), [({}, ["STATE_URL"]), (IMAGES, ["IMAGE_STORAGE_DIR", "STATE_URL"])])
def test_storage_that_cannot_be_written_is_warned_of_at_the_start(
    program: Program, dify: DemoServer, env: dict[str, str], settings: list[str]
) -> None:
    in_the_way = program.directory / "taken"
    in_the_way.touch()
    env |= {"STATE_URL": f"sqlite:///{in_the_way}/state.db", "IMAGE_STORAGE_DIR": f"{in_the_way}/pictures"}
    with program.start("serve", "--port", "0", "--dify-api-url", dify.url, **env) as server:
        server.url()
        warnings = [line.split("'")[0] for line in server.logged.splitlines()]
    assert warnings == [f"Warning: {setting} " for setting in settings]


@pytest.mark.parametrize("name", [None, "state.db"])
def test_a_read_only_place_is_named_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """Simulated, since root may write everywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)
    if name is not None:
        (tmp_path / name).touch()
    settings = Settings(state_url=SecretStr(f"sqlite:///{tmp_path}/state.db"), image_storage_dir=f"{tmp_path}/pictures")
    user = getpass.getuser()
    assert state_problem(settings) == f"STATE_URL '{tmp_path}/state.db' is not writable by user {user}. Set STATE_URL."
    assert picture_problem(settings) == (
        f"IMAGE_STORAGE_DIR '{tmp_path}/pictures' is not writable by user {user}. Set IMAGE_STORAGE_DIR."
    )
    assert list(tmp_path.iterdir()) == ([] if name is None else [tmp_path / name])


def test_requests_may_bring_the_only_keys(program: Program, dify: DemoServer) -> None:
    with program.start("serve", "--port", "0", "--dify-api-url", dify.url) as server:
        url = server.url()
        assert models(get(f"{url}/models", DIFY_API_KEY="app-demo-agent")) == ["dify"]


def test_workers_have_the_settings_and_no_key_is_in_their_arguments(program: Program, dify: DemoServer) -> None:
    env = {"DIFY_API_URL": dify.url, "DIFY_API_KEY": "app-demo-chat", "API_KEYS": "a-long-client-key"}
    with program.start("serve", "--port", "0", "--workers", "2", "--log-format", "json", **env) as server:
        url = server.url()
        assert get(f"{url}/models")[0] == 401
        assert models(get(f"{url}/models", Authorization="Bearer a-long-client-key")) == ["dify"]
        family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        assert len(family) >= 3
        arguments = [" ".join(process.cmdline()) for process in family]
        assert not any(secret in line for line in arguments for secret in ("app-demo-chat", "a-long-client-key"))
        assert server.end(signal.SIGTERM) == 0
        assert psutil.wait_procs(family[1:], timeout=PATIENCE)[1] == []
        assert all(json.loads(line)["event"] for line in server.logged.splitlines()), server.logged


def test_workers_serve_the_demo(program: Program) -> None:
    with program.start("serve", "--port", "0", WORKERS="2") as server:
        assert "Hello!" in answer_of_printed_command(server)
        assert server.end(signal.SIGTERM) == 0


WORKER = """
import asyncio, gc
from openai_dify_proxy.cli.worker.process import create_process_app
from openai_dify_proxy.settings.sources import load_settings

async def live():
    app = create_process_app(load_settings())
    before = gc.get_freeze_count()
    async with app.router.lifespan_context(app):
        print(before, gc.get_freeze_count(), *gc.get_threshold())

asyncio.run(live())
"""
"""A worker from start to end. It prints how many objects its collector exempts, before and after start-up."""


def test_a_worker_tunes_its_garbage_collector_after_start_up(tmp_path: Path) -> None:
    program = Program(tmp_path, [sys.executable, "-c", WORKER])
    ended = program.run(DIFY_API_URL="http://dify.test", STATE_URL="memory://")
    before, after, *threshold = map(int, ended.stdout.split())
    assert (before, threshold) == (0, [20_000, 20, 50])
    assert after > 10_000


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_in_use_is_reported(program: Program, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = program.run(command, "--port", str(port))
    assert ended.returncode == 1
    assert ended.stderr == (
        f"Error: Port {port} of 127.0.0.1 is in use. Choose another port (--port), or stop the program that uses it.\n"
    )
    assert ended.stdout == ""


def test_every_problem_of_the_settings_is_a_line(program: Program) -> None:
    ended = program.run("serve", "--log-level", "loud", PORT="x", DIFY_API_KEY="app-1")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "Error: PORT in the environment must be an integer from 0 to 65535, not 'x'",
        "Error: --log-level must be 'debug', 'info', 'warning', 'error' or 'critical', not 'loud'",
        (
            "Error: DIFY_API_KEY in the environment needs a Dify: set DIFY_API_URL "
            "(https://api.dify.ai/v1 for Dify Cloud)"
        ),
    ]


def test_an_unusable_picture_store_is_reported_at_start_up(program: Program) -> None:
    ended = program.run("serve", "--port", "0", PICTURE_STORE="s3://pictures?serve=never")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "Error: PICTURE_STORE has serve=never: it must be proxy or redirect\n"


def test_it_does_not_start_open_to_strangers(program: Program) -> None:
    env = {"DIFY_API_URL": "http://dify.test", "DIFY_API_KEY": "app-1"}
    ended = program.run("serve", "--host", "0.0.0.0", **env)
    assert ended.returncode == 2
    assert "ALLOW_ANONYMOUS=true" in ended.stderr


def test_a_name_in_dotenv_that_is_nearly_ours_is_warned_of(program: Program) -> None:
    (program.directory / ".env").write_text("DIFY_API_ULR=http://dify.test\n")
    ended = program.run("apps")
    assert ended.returncode == 0
    warning = "Warning: DIFY_API_ULR in .env is not a setting: did you mean DIFY_API_URL?\n"
    assert ended.stderr == warning
    failed = program.run("apps", PORT="x")
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"{warning}Error: PORT ")


def test_an_app_with_a_dot_in_its_name(program: Program) -> None:
    (program.directory / "apps.toml").write_text('[apps.gpt-4.1]\napi_key = "app-1"\n')
    ended = program.run("apps", "--config", "apps.toml", DIFY_API_URL="http://dify.invalid")
    assert ended.stderr == (
        'Error: [apps.gpt-4.1] in apps.toml is not valid. A name with a dot needs quotation marks: [apps."gpt-4.1"]\n'
    )


def test_an_open_quote_in_dotenv_is_the_only_error(program: Program) -> None:
    (program.directory / ".env").write_text('DIFY_API_URL="http://dify.test\nDIFY_API_KEY=app-1\n')
    ended = program.run("serve")
    assert ended.stderr == ("Error: Line 1 of .env cannot be read: write NAME=value, and close each quotation mark\n")


def test_the_demo_alone_is_a_dify(program: Program) -> None:
    with program.start("demo", "--port", "0") as server:
        url = server.url()
        key = server.until("app-demo-workflow").split()[0]
        status, body = get(f"{url}/info", Authorization=f"Bearer {key}")
        assert status == 200
        assert isinstance(body, dict)
        assert body["mode"] == "workflow"
        command = server.until("DIFY_API_URL=")
        assert command == f"DIFY_API_URL={url} DIFY_API_KEY=app-demo-chat openai-dify-proxy serve"
        assert server.end(signal.SIGTERM) == 0


def test_the_demo_with_one_slot_answers_one_connection_at_a_time(program: Program) -> None:
    with program.start("demo", "--port", "0", "--slots", "1") as server:
        address = urlsplit(server.url())
        request = b"GET /v1/ HTTP/1.1\r\nHost: dify\r\n\r\n"
        with socket.create_connection((address.hostname, address.port), PATIENCE) as first:
            first.sendall(request)
            assert first.recv(12) == b"HTTP/1.1 200"
            with socket.create_connection((address.hostname, address.port), PATIENCE) as second:
                second.sendall(request)
                second.setblocking(False)
                with pytest.raises(BlockingIOError):
                    second.recv(1)
                first.close()
                second.settimeout(PATIENCE)
                assert second.recv(12) == b"HTTP/1.1 200"
        assert server.end(signal.SIGTERM) == 0


# --- addresses -------------------------------------------------------------------------------------------------


def test_localhost_is_one_port_on_each_of_its_addresses() -> None:
    sockets = listen("localhost", 0)
    try:
        ports = {listener.getsockname()[1] for listener in sockets}
        assert len(ports) == 1
        for listener in sockets:
            socket.create_connection(listener.getsockname()[:2], timeout=PATIENCE).close()
    finally:
        for listener in sockets:
            listener.close()


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        # a documentation address (RFC 5737), and a name that is never one (RFC 2606)
        ("192.0.2.1", "192.0.2.1 is not an address of this machine. Choose another (--host)."),
        ("proxy.invalid", "HOST proxy.invalid is not an address of this machine: "),
    ],
)
def test_an_address_of_no_machine_is_reported(host: str, complaint: str) -> None:
    with pytest.raises(CannotListen) as caught:
        listen(host, 0)
    assert str(caught.value).startswith(complaint)
