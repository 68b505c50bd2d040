"""The docs cover all settings, routes, errors, commands and flags, and their links lead to existing files."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import typer.main
from starlette.routing import Route
from typer.core import TyperCommand, TyperGroup

import openai_dify_proxy_demo as demo
from openai_dify_proxy import errors
from openai_dify_proxy.app import create_app
from openai_dify_proxy.cli.main import app as cli
from openai_dify_proxy.settings import AppSettings, ClientKeySettings, ImageModelSettings, Settings
from openai_dify_proxy.settings.descriptions import Model, described_fields
from openai_dify_proxy.settings.model import SECTIONS
from openai_dify_proxy.settings.names import ALIASES
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy.translate.replicate.candidates import CANDIDATES
from openai_dify_proxy.translate.replicate.headers import HEADERS, ImageHeader
from openai_dify_proxy.translate.tool_template import TEMPLATE as TOOLS_TEMPLATE
from openai_dify_proxy_demo import replicate
from scripts import settings_docs

ROOT = Path(__file__).parents[2]
DOCS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("bench/*.md")),
    *sorted(ROOT.glob("soak/*.md")),
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def env_example() -> dict[str, str]:
    """Return the settings of .env.example with their values."""
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", read(".env.example"), re.MULTILINE))


def test_settings_page_and_env_example_are_generated() -> None:
    stale = [str(path) for path, text in settings_docs.generated().items() if read_path(path) != text]
    assert stale == [], "run scripts/docs"


def test_every_model_of_settings_has_its_table() -> None:
    models: list[Model] = [*SECTIONS, AppSettings, ClientKeySettings, ImageModelSettings]
    tables = re.findall(r"<!-- settings: (\w+) -->", read("docs/settings.md"))
    assert sorted(tables) == sorted(model.__name__ for model in models)


@pytest.mark.parametrize("model", [Settings, AppSettings, ClientKeySettings, ImageModelSettings])
def test_every_setting_is_described_and_every_choice_is_named(model: Model) -> None:
    for name, field in described_fields(model).items():
        assert field.description, name
        choices = re.findall(r"Literal\[([^\]]*)\]", str(field.annotation))
        words = re.findall(r"'([^']+)'", "".join(choices))
        assert [word for word in words if f"`{word}`" not in field.description] == [], name


@pytest.mark.parametrize("alias", sorted(alias for aliases in ALIASES.values() for alias in aliases))
def test_variable_of_another_proxy_is_documented(alias: str) -> None:
    assert f"`{alias}`" in section(read("docs/settings.md"), "## Variables of other proxies")


def test_env_example_shows_the_defaults() -> None:
    shown = {name: value for name, value in env_example().items() if value and name != "DIFY_API_URL"}
    assert load_settings(env=shown, dotenv=None) == load_settings(env={}, dotenv=None)


def test_toml_examples_are_valid(tmp_path: Path) -> None:
    examples = [
        block for document in DOCS for block in re.findall(r"```toml\n(.*?)```", read_path(document), re.DOTALL)
    ]
    assert len(examples) >= 2
    for example in examples:
        config = tmp_path / "apps.toml"
        config.write_text(example.replace("app-…", "app-1"), encoding="utf-8")
        names = re.findall(r'api_key_env = "(\w+)"', example)
        env = {"DIFY_API_URL": "http://127.0.0.1/v1"} | dict.fromkeys(names, "app-2")
        env |= dict.fromkeys(re.findall(r'\bkey_env = "(\w+)"', example), "sk-0123456789abcdef")
        settings = load_settings(env=env, dotenv=None, config=config)
        table = tomllib.loads(example)
        assert settings.apps.keys() == table.get("apps", {}).keys()
        assert settings.keys.keys() == table.get("keys", {}).keys()
        assert settings.image_models.keys() == table.get("images", {}).get("models", {}).keys()


def routes() -> Iterator[tuple[str, str]]:
    for route in create_app(load_settings(env={}, dotenv=None)).routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD", "OPTIONS"}:
            yield method, re.sub(r":\w+}", "}", route.path)


def test_every_route_is_documented() -> None:
    documented = set(re.findall(r"^\| `([A-Z]+) (/[^`]*)`", read("docs/api.md"), re.MULTILINE))
    # Without the /v1 prefix the routes are the same; the page says so once.
    assert {(method, path.removeprefix("/v1")) for method, path in routes()} == {
        (method, path.removeprefix("/v1")) for method, path in documented
    }


def error_classes(root: type[errors.ProxyError] = errors.ProxyError) -> Iterator[type[errors.ProxyError]]:
    for child in root.__subclasses__():
        yield child
        yield from error_classes(child)


ERRORS = list(error_classes())


@pytest.mark.parametrize("error", ERRORS, ids=[error.__name__ for error in ERRORS])
def test_error_is_documented(error: type[errors.ProxyError]) -> None:
    code = "–" if error.default_code is None else f"`{error.default_code}`"
    abstract = error in (errors.ClientError, errors.ServerError)
    assert abstract or f"| {code} | {error.status} | `{error.type}` |" in read("docs/errors.md")


def test_every_code_is_documented() -> None:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("src/**/*.py")]
    codes = {code for source in sources for code in re.findall(r'\bcode="(\w+)"', source)}
    assert codes
    assert {code for code in codes if f"`{code}`" not in read("docs/errors.md")} == set()


COMMANDS = cast(TyperGroup, typer.main.get_command(cli)).commands


def subcommands(command: object) -> list[TyperCommand]:
    return cast(list[TyperCommand], list(command.commands.values())) if isinstance(command, TyperGroup) else []


def test_every_command_and_flag_is_documented() -> None:
    page = read("docs/cli.md")
    missing = [
        f"{name} {flag}"
        for name, command in COMMANDS.items()
        for parameter in [*command.params, *(more for sub in subcommands(command) for more in sub.params)]
        for flag in [*parameter.opts, *parameter.secondary_opts]
        if flag.startswith("--") and flag != "--help" and f"`{flag}" not in section(page, f"## `{name}`")
    ]
    assert missing == []


def demo_section(heading: str) -> str:
    return section(read("docs/demo.md"), heading)


@pytest.mark.parametrize("word", sorted(set(re.findall(r"`([A-Z]{2,})\b", demo.__doc__ or ""))))
def test_keyword_of_the_demo_is_documented(word: str) -> None:
    assert f"`{word}" in demo_section("## Keywords") + demo_section("## Faults, for tests")


@pytest.mark.parametrize("word", sorted(set(re.findall(r"`([A-Z]{2,}[A-Z_]*)\b", replicate.__doc__ or ""))))
def test_keyword_of_the_demo_for_pictures_is_documented(word: str) -> None:
    assert f"`{word}" in demo_section("## Pictures") + demo_section("## Faults, for tests")


@pytest.mark.parametrize("header", HEADERS, ids=[header.name for header in HEADERS])
def test_header_for_images_is_documented(header: ImageHeader) -> None:
    table = section(read("docs/images.md"), "## Headers")
    row = next(line for line in table.splitlines() if line.startswith(f"| `{header.name}` |"))
    candidates = CANDIDATES.get(header.parameter, ())
    assert [name for name in candidates if f"`{name}`" not in row] == []


def section(page: str, heading: str) -> str:
    _, found, rest = page.partition(heading)
    assert found, f"no section {heading}"
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("document", DOCS, ids=[str(path.relative_to(ROOT)) for path in DOCS])
def test_commands_in_docs_exist(document: Path) -> None:
    text = read_path(document)
    for script in set(re.findall(r"\bscripts/([a-z][a-z-]*)", text)):
        assert os.access(ROOT / "scripts" / script, os.X_OK), script
    assert set(re.findall(r"openai-dify-proxy ([a-z]+)\b", text)) <= COMMANDS.keys()


RECIPE_PATH = re.compile(r"`((?:src|tests|docs|demo|scripts)/[\w./-]*|[\w.]+\.(?:toml|md|lock))`")


def test_recipes_name_paths_that_exist() -> None:
    paths = RECIPE_PATH.findall(read("CONTRIBUTING.md"))
    assert len(paths) >= 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("package", sorted(path.parent for path in ROOT.glob("src/**/__init__.py")), ids=str)
def test_docstring_of_a_package_begins_with_a_sentence(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse(read_path(package / "__init__.py")))
    assert docstring
    assert docstring.partition("\n")[0].endswith(".")


PACKAGE = ROOT / "src" / "openai_dify_proxy"


@pytest.mark.parametrize(
    "name", sorted(path.name for path in PACKAGE.iterdir() if re.fullmatch(r"[a-z]+(\.py)?", path.name))
)
def test_architecture_describes_package(name: str) -> None:
    shown = f"{name}/" if (PACKAGE / name).is_dir() else name
    assert f"| `{shown}` |" in read("docs/architecture.md")


@pytest.mark.parametrize("document", DOCS, ids=[str(path.relative_to(ROOT)) for path in DOCS])
def test_links_lead_to_existing_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read_path(document)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", read_path(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def read_path(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_named_tests_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read("docs/security.md"))
    assert len(named) > 30
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in read(path)] == []
    lines = [line for line in read("docs/security.md").splitlines() if line.startswith("| ")]
    threats = [line for line in lines if not line.startswith("| Threat |")]
    assert [line for line in threats if "`tests/" not in line] == []


def test_changelog_begins_with_this_version() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    headings = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == version


def test_readme_links_every_page() -> None:
    assert [path.name for path in ROOT.glob("docs/*.md") if f"(docs/{path.name})" not in read("README.md")] == []


def test_default_instructions_about_tools_are_shown() -> None:
    assert f"```text\n{TOOLS_TEMPLATE}\n```" in read("docs/tools.md")
