"""The code blocks of the docs, and which of them the tests run."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

PYTHON = "README.md", "docs/clients.md", "docs/conversations.md", "docs/index.md"
"""Documents whose Python blocks are one program that prints the greeting."""

RUN = {
    *((document, "python") for document in PYTHON),
    ("docs/audio.md", "python"),
    ("docs/audio.md", "sh"),
    ("docs/clients.md", "js"),
    ("docs/demo.md", "python"),
    ("docs/demo.md", "sh"),
    ("docs/files.md", "python"),
    ("docs/human-input.md", "python"),
    ("docs/images.md", "python"),
    ("docs/images.md", "sh"),
    ("docs/index.md", "sh"),
    ("docs/keys.md", "sh"),
    ("docs/limits.md", "sh"),
    ("docs/responses.md", "python"),
    ("docs/tools.md", "python"),
    ("README.md", "sh"),
}
"""Documents and languages whose blocks run. In ``sh`` these are the blocks with ``curl``; of pages about keys, all."""

SERVE_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )+openai-dify-proxy serve$", re.MULTILINE)

NOT_RUN = {
    "uvx 'openai-dify-proxy[demo]' serve": "downloads the release; the tests of the packages install the wheels",
    "python3 -m venv .venv": "the same",
    "pip install 'openai-dify-proxy[otel]'": "the same",
    "from langchain_openai": "needs packages that only scripts/clients installs; its tests make the same calls",
    "async with turns.run(": "an excerpt of the code",
    "cline auth": "a program that is not installed; its recorded requests are played",
    "AUDIO_STT_ENGINE": "the environment of another program",
    "AUDIO_VOICES": "a setting; tests/unit/settings reads such values",
    "DIFY_API_URL=http://127.0.0.1:8224/v1 openai-dify-proxy check": "run on a free port, with the block of TOML above",
    "DIFY_API_URL=https://dify.example.com/v1\n": "the content of a .env file",
    "openai-dify-proxy serve ": "an overview; each command has its tests",
    "openai-dify-proxy serve\n": "the command of all these tests",
    "sqlite3 ~/": "needs the programs sqlite3 and rsync; the same backup with Python runs",
    'python3 -c "import sqlite3': "tests/components/test_backup.py runs it",
}
"""Beginnings of the commands and programs that no test runs as they are, with the reason."""


class Snippet(NamedTuple):
    """A code block; ``language`` is empty for plain text."""

    document: str
    language: str
    code: str


def snippets() -> list[Snippet]:
    """Return the code blocks of the README and of ``docs/``."""
    pattern = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
    return [
        Snippet(path.relative_to(ROOT).as_posix(), block[2], textwrap.dedent(block[3]))
        for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
        for block in pattern.finditer(path.read_text(encoding="utf-8"))
    ]


def is_run(snippet: Snippet) -> bool:
    """Return whether a test runs the block as it is."""
    document, language, code = snippet
    if language == "sh" and SERVE_COMMAND.search(code):
        return True
    if (document, language) not in RUN:
        return document == "docs/cli.md" and "| openai-dify-proxy chat" in code
    return language != "sh" or "curl " in code or document in ("docs/keys.md", "docs/limits.md")


def reason(snippet: Snippet) -> str | None:
    """Return the beginning in ``NOT_RUN`` that the block has."""
    return next((start for start in NOT_RUN if snippet.code.startswith(start)), None)
