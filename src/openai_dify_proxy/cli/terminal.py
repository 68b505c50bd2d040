"""Output to terminals and files that are not UTF-8."""

from __future__ import annotations

import codecs
import io
import sys

_SUBSTITUTES = {"…": "...", "–": "-", "“": '"', "”": '"', "←": "<-", "→": "->"}


def accept_any_encoding() -> None:
    """Let standard output and error replace characters that their encoding lacks, instead of raising."""
    codecs.register_error("openai_dify_proxy.substitute", _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="openai_dify_proxy.substitute")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(character) or _escape(character) for character in characters), error.end


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
