"""The wheels, sdists and SBOM of ``scripts/build``: contents, metadata, and a server installed from them."""

from __future__ import annotations

import json
import re
import signal
import tarfile
import tomllib
import urllib.request
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.metadata import Metadata

from tests.cli.program import Program
from tests.packaging.commands import ROOT, run

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

DISTRIBUTIONS = {"openai_dify_proxy": ROOT, "openai_dify_proxy_demo": ROOT / "demo"}
"""The distributions and their directories; each holds the package of the same name."""

each_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def wheel(dist: Path, name: str) -> Path:
    return dist / f"{name}-{VERSION}-py3-none-any.whl"


def sdist(dist: Path, name: str) -> Path:
    return dist / f"{name}-{VERSION}.tar.gz"


def metadata(dist: Path, name: str) -> Metadata:
    raw = contents(wheel(dist, name))[f"{name}-{VERSION}.dist-info/METADATA"]
    return Metadata.from_email(raw, validate=True)


def readme(dist: Path, name: str) -> str:
    description = metadata(dist, name).description
    assert description is not None
    return description


def sources(name: str) -> set[str]:
    """The files of the package, from its root: Python modules, the marker of typed packages, the console's page."""
    root = DISTRIBUTIONS[name] / "src"
    files = {path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    page = Path(name) / "console" / "static"
    assert {path for path in files if path.suffix != ".py" and page not in path.parents} == {Path(name) / "py.typed"}
    return {path.as_posix() for path in files}


def test_build_writes_a_wheel_and_an_sdist_of_each_and_an_sbom(dist: Path) -> None:
    expected = {path(dist, name) for path in (wheel, sdist) for name in DISTRIBUTIONS}
    written = {path for path in dist.iterdir() if path.name != ".gitignore"}
    assert written == expected | {dist / f"openai_dify_proxy-{VERSION}.cdx.json"}


@each_distribution
def test_wheel_holds_the_package_and_nothing_else(dist: Path, name: str) -> None:
    information = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}
    if name == "openai_dify_proxy":
        information.add("entry_points.txt")
    expected = sources(name) | {f"{name}-{VERSION}.dist-info/{file}" for file in information}
    assert contents(wheel(dist, name)).keys() == expected


@each_distribution
def test_sdist_holds_the_package_and_its_documents(dist: Path, name: str) -> None:
    documents = {"README.md", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"}
    if name == "openai_dify_proxy":
        documents.add("CHANGELOG.md")
    with tarfile.open(sdist(dist, name)) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert files == documents | {f"src/{file}" for file in sources(name)}


def test_wheels_from_the_sdists_and_from_the_checkout_are_equal(dist: Path, uv: Path, tmp_path: Path) -> None:
    run(
        uv, "build", "--quiet", "--wheel", "--all-packages", "--no-build-isolation", "--offline", "--out-dir", tmp_path
    )  # fmt: skip
    for name in DISTRIBUTIONS:
        assert wheel(dist, name).read_bytes() == wheel(tmp_path, name).read_bytes()


@each_distribution
def test_metadata_is_valid(dist: Path, name: str) -> None:
    valid = metadata(dist, name)
    assert (valid.name, str(valid.version)) == (name.replace("_", "-"), VERSION)
    assert valid.license_expression == "MIT"
    assert valid.description_content_type == "text/markdown"
    assert valid.summary


@each_distribution
def test_readme_has_no_relative_links(dist: Path, name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", readme(dist, name))
    assert [link for link in links if not link.startswith(("https://", "http://", "#"))] == []


def test_links_of_the_readme_lead_to_this_version(dist: Path) -> None:
    assert f"]({REPOSITORY}/blob/v{VERSION}/docs/settings.md)" in readme(dist, "openai_dify_proxy")


def test_sbom_names_the_locked_packages_of_users(dist: Path) -> None:
    bom = json.loads((dist / f"openai_dify_proxy-{VERSION}.cdx.json").read_text())
    assert (bom["bomFormat"], bom["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    locked = {
        (package["name"], package.get("version"))
        for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    }
    components = {(component["name"], component.get("version")) for component in bom["components"]}
    assert components < locked
    names = {name for name, _ in components}
    assert names >= {"starlette", "obstore", "redis", "openai-dify-proxy-demo"}
    assert not names & {"pytest", "mypy", "langchain-openai"}


def test_installed_wheels_serve_a_streamed_answer(installed: Path, tmp_path: Path) -> None:
    program = Program(tmp_path, [installed / "openai-dify-proxy"])
    assert program.run("--version").stdout == f"openai-dify-proxy {VERSION}\n"
    question = {"model": "demo-chat", "stream": True, "messages": [{"role": "user", "content": "SAY<<from a wheel>>"}]}
    with program.start("serve", "--port", "0") as server:
        request = urllib.request.Request(
            f"{server.url()}/chat/completions",
            data=json.dumps(question).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            frames = response.read().decode().split("\n\n")
        assert server.end(signal.SIGTERM) == 0
    assert frames[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    assert (
        "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        == "from a wheel"
    )
