"""The examples in the docs, run as they stand there against the demo; only the address and a placeholder key differ."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.program import Program
from tests.limits import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server started with nothing configured."""
    with Program(tmp_path_factory.mktemp("home")).start("serve", "--port", "0") as running:
        yield running.url().removesuffix("/v1")


def example(document: str, language: str, origin: str) -> str:
    """The blocks of ``language`` that use the openai SDKs or curl, in their order: later ones build on the first."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    own = [block for block in blocks if "langchain" not in block and "scripts/" not in block]
    assert own, f"{document} has no example in {language}"
    code = "\n".join(own)
    assert "http://127.0.0.1:8223" in code
    return code.replace("http://127.0.0.1:8223", origin).replace("app-...", "app-demo-workflow")


def run(command: list[str], code: str, directory: Path) -> str:
    done = subprocess.run(
        command, input=code, cwd=directory, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("document", ["README.md", "docs/clients.md", "docs/conversations.md"])
def test_python_example(document: str, origin: str, tmp_path: Path) -> None:
    assert "Hello!" in run([sys.executable, "-"], example(document, "python", origin), tmp_path)


def test_python_examples_of_responses(origin: str, tmp_path: Path) -> None:
    said = run([sys.executable, "-"], example("docs/responses.md", "python", origin), tmp_path).splitlines()
    assert said[0] == '["user", "Hello!"]'
    assert any(line.startswith("completed ") for line in said)
    numbers = [int(line.split()[0]) for line in said if line.endswith((".delta", ".done", ".added", ".completed"))]
    assert numbers == list(range(3, 3 + len(numbers)))
    items = [line for line in said if line.startswith(("user ", "assistant "))]
    assert [line.split()[0] for line in items] == ["user", "assistant"] * 2
    assert items[0] == "user Good morning!"


def test_node_example(node: Path, node_clients: Path, origin: str) -> None:
    code = example("docs/clients.md", "js", origin)
    assert "Hello!" in run([str(node), "--input-type=module", "-"], code, node_clients)


def test_curl_examples(origin: str, tmp_path: Path) -> None:
    said = run(["sh", "-e"], example("README.md", "sh", origin), tmp_path)
    assert said.count("data: ") > 3
    assert "data: [DONE]" in said
    assert '"object":"chat.completion"' in said
    assert format_of(tmp_path / "picture.png") == "PNG"


def test_curl_examples_of_images(origin: str, tmp_path: Path) -> None:
    said = run(["sh", "-e"], example("docs/images.md", "sh", origin), tmp_path)
    with Image.open(tmp_path / "fox.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (1024, 768))
    assert format_of(tmp_path / "spring.png") == "PNG"
    links = [picture["url"] for picture in json.loads(said)["data"]]
    assert len(set(links)) == 2
    for link in links:
        with urllib.request.urlopen(link, timeout=PATIENCE) as answer:
            assert answer.headers["content-type"] == "image/png"


def test_python_example_of_images(origin: str, tmp_path: Path) -> None:
    link = run([sys.executable, "-"], example("docs/images.md", "python", origin), tmp_path).strip()
    assert link.startswith(f"{origin}/pictures/")


def format_of(path: Path) -> str | None:
    with Image.open(path) as picture:
        return picture.format
