"""Run the examples of the docs against the demo; only the address and a placeholder key differ."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import PROGRAM, Program
from tests.clients.snippets import PYTHON, SERVE_COMMAND
from tests.limits import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server without any settings and return its origin."""
    with Program(tmp_path_factory.mktemp("home")).start("serve", "--port", "0") as running:
        yield running.url().removesuffix("/v1")


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found, f"{document} has no example in {language}"
    return found


def example(document: str, language: str, origin: str) -> str:
    """Return the blocks that use the openai SDK or curl as one program, since later blocks build on earlier ones."""
    runs = {"python": lambda block: "langchain" not in block, "sh": lambda block: "curl " in block}[language]
    return with_origin("\n".join(filter(runs, blocks(document, language))), origin)


def with_origin(code: str, origin: str) -> str:
    assert "http://127.0.0.1:8223" in code
    return code.replace("http://127.0.0.1:8223", origin).replace("app-...", "app-demo-workflow")


def run(command: list[str], code: str, directory: Path) -> str:
    done = subprocess.run(
        command, input=code, cwd=directory, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_example_with_files(origin: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7\n")
    answers = run([sys.executable, "-W", "ignore", "-"], example("docs/files.md", "python", origin), tmp_path)
    assert "image/png" in answers
    assert "report.pdf (application/pdf" in answers


def test_python_example_of_human_input(origin: str, tmp_path: Path) -> None:
    answers = run([sys.executable, "-W", "ignore", "-"], example("docs/human-input.md", "python", origin), tmp_path)
    assert "May I continue? [note]\n\n[Yes] · [No]\n" in answers
    assert answers.endswith("\n Yes: \n Yes: fine\n Yes: \n Yes: by token\n")


def test_python_example_of_tools(origin: str, tmp_path: Path) -> None:
    client = f'from openai import OpenAI\nclient = OpenAI(base_url="{origin}/v1", api_key="any")\n'
    code = client + "\n".join(blocks("docs/tools.md", "python"))
    assert json.loads(run([sys.executable, "-"], code, tmp_path)) == {"city": "Paris"}


@pytest.mark.parametrize("document", PYTHON)
def test_python_example(document: str, origin: str, tmp_path: Path) -> None:
    assert "Hello!" in run([sys.executable, "-"], example(document, "python", origin), tmp_path)


def test_python_examples_of_responses(origin: str, tmp_path: Path) -> None:
    lines = run([sys.executable, "-"], example("docs/responses.md", "python", origin), tmp_path).splitlines()
    assert lines[0] == '["user", "Hello!"]'
    assert any(line.startswith("completed ") for line in lines)
    numbers = [int(line.split()[0]) for line in lines if line.endswith((".delta", ".done", ".added", ".completed"))]
    assert numbers == list(range(3, 3 + len(numbers)))
    items = [line for line in lines if line.startswith(("user ", "assistant "))]
    assert [line.split()[0] for line in items] == ["user", "assistant"] * 2
    assert items[0] == "user Good morning!"


@pytest.mark.parametrize("block", blocks("docs/clients.md", "js"), ids=["openai", "openai-compatible", "ai-sdk"])
def test_node_example(block: str, node: Path, node_clients: Path, origin: str, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_clients / "node_modules")
    printed = run([str(node), "--input-type=module", "-"], with_origin(block, origin), tmp_path)
    assert "Hello!" in printed
    if "writeFile" in block:
        assert format_of(tmp_path / "lighthouse.png") == "PNG"
    elif "generateImage" in block:
        assert printed.endswith("image/png\n")


def serve_commands() -> set[str]:
    documents = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    return {command for path in documents for command in SERVE_COMMAND.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("command", sorted(serve_commands()))
def test_serve_command(command: str, tmp_path: Path) -> None:
    settings = command.removesuffix(" openai-dify-proxy serve").split()
    with Program(tmp_path, ("env", *settings, PROGRAM)).start("serve", "--port", "0") as running:
        assert running.url().endswith("/v1")


def test_toml_example_of_the_demo(tmp_path: Path) -> None:
    (tmp_path / "apps.toml").write_text(blocks("docs/apps.md", "toml")[0], encoding="utf-8")
    with DemoServer() as dify:
        checked = Program(tmp_path).run("check", "--config", "apps.toml", DIFY_API_URL=dify.url)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "translator" in checked.stdout


def test_curl_examples(origin: str, tmp_path: Path) -> None:
    output = run(["bash", "-e", "-o", "pipefail"], example("README.md", "sh", origin), tmp_path)
    assert output.count('"content":"') > 3
    assert '"object": "chat.completion"' in output
    assert '"object":"chat.completion"' in output
    assert format_of(tmp_path / "picture.png") == "PNG"


def test_curl_example_of_the_start(origin: str, tmp_path: Path) -> None:
    assert '"object":"chat.completion"' in run(["sh", "-e"], example("docs/index.md", "sh", origin), tmp_path)


def test_curl_examples_of_images(origin: str, tmp_path: Path) -> None:
    output = run(["sh", "-e"], example("docs/images.md", "sh", origin), tmp_path)
    with Image.open(tmp_path / "fox.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (1024, 768))
    assert format_of(tmp_path / "spring.png") == "PNG"
    links = [picture["url"] for picture in json.loads(output)["data"]]
    assert len(set(links)) == 2
    for link in links:
        with urllib.request.urlopen(link, timeout=PATIENCE) as answer:
            assert answer.headers["content-type"] == "image/png"


def test_examples_of_audio(origin: str, tmp_path: Path) -> None:
    """The transcription of the demo is the hash of the file."""
    for command, language in (["sh", "-e"], "sh"), ([sys.executable, "-"], "python"):
        output = run(command, example("docs/audio.md", language, origin), tmp_path)
        speech = (tmp_path / "speech.mp3").read_bytes()
        assert speech.startswith(b"ID3")
        assert f"sha {hashlib.sha256(speech).hexdigest()[:12]}" in output
        (tmp_path / "speech.mp3").unlink()


def test_curl_example_of_the_demo(origin: str, tmp_path: Path) -> None:
    run(["sh", "-e"], example("docs/demo.md", "sh", origin), tmp_path)
    assert format_of(tmp_path / "picture.png") == "PNG"


def test_python_example_of_images(origin: str, tmp_path: Path) -> None:
    link = run([sys.executable, "-"], example("docs/images.md", "python", origin), tmp_path).strip()
    assert link.startswith(f"{origin}/pictures/")


def format_of(path: Path) -> str | None:
    with Image.open(path) as picture:
        return picture.format
