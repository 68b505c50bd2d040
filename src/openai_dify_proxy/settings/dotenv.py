"""The file ``.env``: variables as python-dotenv reads them, and the lines that it rejects."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables


class Dotenv(NamedTuple):
    """The content of a file."""

    variables: dict[str, str | None]
    """Values by name; ``None`` for a name without ``=``."""
    malformed: list[int]
    """Numbers of the lines without a valid assignment. python-dotenv itself only logs them."""
    unreadable: set[str]
    """The names on those lines."""


def read_dotenv(path: Path, env: Mapping[str, str]) -> Dotenv:
    """Read a file. ``${NAME}`` stands for an earlier variable of the file, else for one of ``env``.

    Raises OSError and UnicodeDecodeError.
    """
    content = Dotenv({}, [], set())
    known = ChainMap[str, str | None](content.variables, dict(env))
    # Windows editors begin a file with a byte order mark.
    with path.open(encoding="utf-8-sig") as file:
        for binding in parse_stream(file):
            if binding.error:
                content.malformed.append(_line_number(binding))
                content.unreadable.update(_NAME.findall(binding.original.string))
            elif binding.key is not None:
                content.variables[binding.key] = _expand(binding.value, known)
    return content


_NAME = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=", re.MULTILINE)


def _expand(value: str | None, known: Mapping[str, str | None]) -> str | None:
    return None if value is None else "".join(part.resolve(known) for part in parse_variables(value))


def _line_number(binding: Binding) -> int:
    """Return the line of the statement; its binding begins at the blank lines above it."""
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + blank.count("\n")
