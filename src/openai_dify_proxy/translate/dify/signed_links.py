"""The form of Dify's signed links to files, matched in text that may end anywhere.

Dify signs a link when it sends it; the link is dead after five minutes (``FILES_ACCESS_TIMEOUT``). Its host is the one
that Dify was configured with: none, Dify's own, or a host that only Dify's servers reach. The host is not signed.
Source: Dify's ``core/file/helpers.py`` and ``core/tools/signature.py``, and recordings of 1.11 to 1.16.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from msgspec import Struct

_FILES: Final = "/files/"
_SCHEMES: Final = ("http://", "https://")
_INSIDE: Final = r"0-9A-Za-z/\\=%&?#@._~+$-"
_INSIDE_ADDRESS = re.compile(f"[{_INSIDE}]")
"""A character before a link: the text is then a part of another address, or of a word."""

_INTERNAL_DOMAINS = ("localhost", "local", "internal", "svc", "lan", "docker", "arpa")

Miss = Literal["no", "unfinished"]
"""Text that is no link, and text that is one so far but ends too early."""


class SignedLink(NamedTuple):
    """A link in a text, up to ``end``. ``target`` is its path and query, from ``/files/`` on."""

    target: str
    end: int

    @property
    def path(self) -> str:
        """The path, which identifies the file: Dify signs it again each time."""
        return self.target.partition("?")[0]

    @property
    def extension(self) -> str:
        """The extension in the path, or an empty string."""
        return self.path.rpartition(".")[2].lower() if "." in self.path else ""


class _Some(Struct, frozen=True):
    """A number of characters of a set, at most ``most``; ``pattern`` matches that many or fewer."""

    pattern: re.Pattern[str]
    least: int
    most: int


def _some(characters: str, least: int, most: int) -> _Some:
    return _Some(re.compile(f"[{characters}]{{0,{most}}}"), least, most)


_ID = _some("0-9a-f-", 36, 36)
_HOST = _some(r"0-9A-Za-z._:\[\]-", 1, 270)
_SIGNATURE: Final = (
    "?timestamp=",
    _some("0-9", 1, 12),
    "&nonce=",
    _some("0-9A-Za-z", 1, 64),
    "&sign=",
    _some("0-9A-Za-z_=-", 1, 128),
)
_FORMS: Final[tuple[tuple[str | _Some, ...], ...]] = (
    ("tools/", _ID, ".", _some("0-9A-Za-z", 1, 10), *_SIGNATURE),
    (_ID, "/file-preview", *_SIGNATURE),
    (_ID, "/image-preview", *_SIGNATURE),
)


class SignedLinks:
    """Recognizes the links of the Dify at ``base_url``, which has no ``/v1``; ``origin`` is where its files are."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._host = (parts.hostname or "").lower()
        prefix = parts.path.rstrip("/")
        self._starts = (_FILES, prefix + _FILES) if prefix else (_FILES,)
        seconds = re.escape("".join({start[1] for start in self._starts}))
        self.start = re.compile(rf"(?<![{_INSIDE}])(?:https?:/|(?<!:)/(?=[{seconds}]|\Z)|h(?:t(?:t(?:ps?:?)?)?)?\Z)")
        """Finds the places at which a link may begin: at most of the slashes in a text none does."""

    def match(self, text: str, at: int, before: str, *, ended: bool) -> SignedLink | Miss:
        """Return the link that begins at ``at``, behind the character ``before`` (or an empty string).

        ``ended`` means that no more text follows.
        """
        relative = text[at] == "/"
        if _INSIDE_ADDRESS.match(before) or (relative and before == ":"):
            return "no"
        name = _literals(text, at, self._starts) if relative else self._absolute(text, at)
        if isinstance(name, int):
            return _signed(text, name, ended=ended)
        return "no" if ended else name

    def _absolute(self, text: str, at: int) -> int | Miss:
        """Return where the name of the file begins, behind scheme, host and ``/files/``."""
        scheme = _literals(text, at, _SCHEMES)
        if not isinstance(scheme, int):
            return scheme
        end = _run(text, scheme, _HOST)
        if not isinstance(end, int):
            return end
        if text[end] != "/" or not self._is_ours(text[scheme:end]):
            return "no"
        return _literals(text, end, self._starts)

    def _is_ours(self, authority: str) -> bool:
        try:
            host = urlsplit(f"//{authority}").hostname or ""
        except ValueError:  # unbalanced brackets
            return False
        return bool(host) and (host == self._host or is_internal(host))


def is_internal(host: str) -> bool:
    """Return whether only machines of a private network can connect to ``host``, a name or an address."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.rstrip(".").rpartition(".")[2] in _INTERNAL_DOMAINS


def _signed(text: str, name: int, *, ended: bool) -> SignedLink | Miss:
    end = _best([_form(text, name, form, ended=ended) for form in _FORMS])
    return SignedLink(_FILES + text[name:end], end) if isinstance(end, int) else end


def _literals(text: str, at: int, literals: tuple[str, ...]) -> int | Miss:
    """Return the end of the literal at ``at``."""
    return _best([_literal(text, at, literal) for literal in literals])


def _best(results: list[int | Miss]) -> int | Miss:
    """Return the end of the alternative that matches, else whether one may still match."""
    end = next((result for result in results if isinstance(result, int)), None)
    if end is not None:
        return end
    return "unfinished" if "unfinished" in results else "no"


def _literal(text: str, at: int, literal: str) -> int | Miss:
    if text.startswith(literal, at):
        return at + len(literal)
    rest = len(text) - at
    return "unfinished" if rest < len(literal) and literal.startswith(text[at:]) else "no"


def _run(text: str, at: int, some: _Some) -> int | Miss:
    """Return the end of the characters at ``at``, which is not the end of the text."""
    found = some.pattern.match(text, at)
    assert found is not None  # it matches nothing too
    end = found.end()
    if end == len(text) and (some.least != some.most or end - at < some.most):
        return "unfinished"
    return end if end - at >= some.least else "no"


def _form(text: str, at: int, form: tuple[str | _Some, ...], *, ended: bool) -> int | Miss:
    """Return the end of a text of this form. More characters of its last set, or a further parameter, spoil it."""
    for unit in form:
        end = _literal(text, at, unit) if isinstance(unit, str) else _run(text, at, unit)
        if not isinstance(end, int):
            if not ended:
                return end
            return len(text) if end == "unfinished" and unit is form[-1] and at < len(text) else "no"
        at = end
    return "no" if _CONTINUES.match(text, at) else at


_CONTINUES = re.compile(r"[0-9A-Za-z_=%&#-]")
