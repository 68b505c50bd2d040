"""Fingerprints of histories, which identify a conversation.

A fingerprint is a keyed BLAKE2b hash over everything that reached Dify. Two histories have the same fingerprint only if
they agree in scope and in every part, and no one can compute one without the secret. The hashed bytes are the format's
version and a sequence of fields; a field is its tag, its length and its content, so that no two sequences have the same
bytes. A role begins a message, and the fields behind it belong to that message. A field that a message lacks takes no
bytes: a further kind of field leaves the fingerprints of messages without it as they are.

Differences that clients introduce are ignored: line ends, white space around a text, messages with no text, file or
call, and the white space and the order of keys in the JSON of arguments. A tool's result counts even if it is empty.
Reasoning in an assistant's message has already been removed. Indentation counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256

from msgspec import json, structs

from openai_dify_proxy.translate.turn_request import HistoryMessage, SentFile, ToolCall
from openai_dify_proxy.wire.reading import UNREADABLE, decode_text

VERSION = b"\x02"
"""The version of the format. Version 1 was a chain of HMAC-SHA256."""

FINGERPRINT_BYTES = 24
"""Short enough that Redis stores the index of a caller with few entries compactly."""

LINK = b"l"
"""The fingerprint that this one extends."""
SCOPE = b"s"
END_USER = b"e"
SYSTEM = b"y"
INPUTS = b"i"
CHAT = b"h"
STORED = b"p"
"""The id of a stored response or conversation."""
KIND = b"k"
ROLE = b"r"
TEXT = b"t"
TEXT_HASH = b"g"
"""The SHA-256 hash of a message's long text, in place of the text: most processors compute it in hardware."""
CALL = b"c"
"""A tool call; its content is the fields CALL_ID, NAME and ARGUMENTS."""
RESULT = b"o"
"""A tool's result; its content is the fields CALL_ID and TEXT."""
CALL_ID = b"d"
NAME = b"n"
ARGUMENTS = b"a"
FILE = b"f"
"""A file of a message: the hash of its content, or its URL or id if the client sent that."""

_PORTION = 16 * 1024
"""Bytes that are hashed at once: many small pieces cost calls, large ones miss the processor's cache."""

_LONG_TEXT = 2048
"""Bytes of a message's text from which on its hash takes its place."""

_Field = tuple[bytes, str]


class Fingerprint:
    """The fingerprint of a growing history, which extends the fingerprint ``link``."""

    __slots__ = ("_hash", "_link")

    def __init__(self, secret: bytes, link: bytes = b"") -> None:
        self._hash = _begun(secret, link).copy()
        self._link = link

    def add(self, *fields: _Field) -> None:
        """Add fields, pairs of a tag and a text."""
        if fields:
            self._hash.update(_joined(fields))
            self._link = b""

    def add_messages(self, messages: Iterable[HistoryMessage]) -> None:
        """Add the messages that have a text, files or calls, or are a tool's result."""
        pieces: list[bytes] = []
        size = 0
        for message in messages:
            text = normalize(message.text)
            if message.calls or message.call_id is not None:
                pieces += _call_pieces(message, text)
            elif text:
                tag, data = TEXT, text.encode("utf-8", "surrogatepass")
                if len(data) >= _LONG_TEXT:
                    tag, data = TEXT_HASH, sha256(data).digest()
                pieces += _role_piece(message.role), b"%b%d:" % (tag, len(data)), data
            elif message.files:
                pieces.append(_role_piece(message.role))
            else:
                continue
            if message.files:
                pieces += [piece for file in message.files for piece in _pieces(FILE, file.identity)]
            size += len(pieces[-1])
            if size >= _PORTION:
                self._update(pieces[:-1])
                self._update(pieces[-1:])  # a long text is not copied
                pieces.clear()
                size = 0
        self._update(pieces)

    def copy(self) -> Fingerprint:
        copied = Fingerprint.__new__(Fingerprint)
        copied._hash, copied._link = self._hash.copy(), self._link
        return copied

    def after(self, messages: Iterable[HistoryMessage]) -> bytes:
        """Return the fingerprint of the history with these messages at its end."""
        extended = self.copy()
        extended.add_messages(messages)
        return extended.digest()

    def digest(self) -> bytes:
        """Return the fingerprint: ``link`` itself if nothing was added to it."""
        return self._link or self._hash.digest()

    def _update(self, pieces: Sequence[bytes]) -> None:
        if pieces:
            self._hash.update(b"".join(pieces))
            self._link = b""


def keyed_hash(secret: bytes, *fields: _Field, link: bytes = b"") -> bytes:
    """Return the hash of fields, in the format of a fingerprint that extends ``link``."""
    digest = _begun(secret, link).copy()
    digest.update(_joined(fields))
    return digest.digest()


class KeyedHasher:
    """Computes ``keyed_hash`` for fields that differ only in the last; ``fields``, those before it, are hashed once."""

    __slots__ = ("_hash",)

    def __init__(self, secret: bytes, *fields: _Field, link: bytes = b"") -> None:
        self._hash = _begun(secret, link).copy()
        self._hash.update(_joined(fields))

    def hash(self, tag: bytes, text: str) -> bytes:
        """Return the hash of all fields, of which the last has this tag and text."""
        digest = self._hash.copy()
        data = text.encode("utf-8", "surrogatepass")
        digest.update(b"%b%d:%b" % (tag, len(data), data))
        return digest.digest()


@lru_cache(maxsize=4096)
def _begun(secret: bytes, link: bytes) -> blake2b:
    """Return the hash of a fingerprint that extends ``link``, to be copied."""
    start = b"%b%b%d:%b" % (VERSION, LINK, len(link), link)
    return blake2b(start, digest_size=FINGERPRINT_BYTES, key=secret[: blake2b.MAX_KEY_SIZE])


def _joined(fields: Iterable[_Field]) -> bytes:
    pieces = []
    for tag, text in fields:
        data = text.encode("utf-8", "surrogatepass")
        pieces.append(b"%b%d:" % (tag, len(data)))
        pieces.append(data)
    return b"".join(pieces)


def _pieces(tag: bytes, text: str) -> tuple[bytes, bytes]:
    data = text.encode("utf-8", "surrogatepass")
    return b"%b%d:" % (tag, len(data)), data


@lru_cache(maxsize=16)
def _role_piece(role: str) -> bytes:
    return b"".join(_pieces(ROLE, role))


def _call_pieces(message: HistoryMessage, text: str) -> list[bytes]:
    """Return the fields of a message with calls, or of a tool's result."""
    pieces = [_role_piece(message.role)]
    if message.call_id is not None:
        pieces += _nested(RESULT, *_pieces(CALL_ID, message.call_id), *_pieces(TEXT, text))
    elif text:
        pieces += _pieces(TEXT, text)
    for call in message.calls:
        arguments = _pieces(ARGUMENTS, _canonical_arguments(call))
        pieces += _nested(CALL, *_pieces(CALL_ID, call.id), *_pieces(NAME, call.name), *arguments)
    return pieces


def _nested(tag: bytes, *content: bytes) -> tuple[bytes, bytes]:
    data = b"".join(content)
    return b"%b%d:" % (tag, len(data)), data


def _canonical_arguments(call: ToolCall) -> str:
    """Return arguments as compact JSON with sorted keys; free text and invalid JSON as they are."""
    if call.custom:
        return call.arguments
    try:
        return json.encode(decode_text(call.arguments), order="sorted").decode()
    except UNREADABLE:
        return call.arguments


def replies(messages: Iterable[HistoryMessage]) -> list[HistoryMessage]:
    """Return the messages without the user's texts, for clients that rewrite these."""
    return [
        message if message.role == "assistant" or message.call_id is not None else structs.replace(message, text="")
        for message in messages
        if message.role == "assistant" or message.call_id is not None or message.files
    ]


def with_files(messages: tuple[HistoryMessage, ...], files: tuple[SentFile, ...]) -> tuple[HistoryMessage, ...]:
    """Return the messages, and one with the files behind them if there are any."""
    return (*messages, HistoryMessage("user", "", files=files)) if files else messages


def has_content(messages: Iterable[HistoryMessage]) -> bool:
    """Return whether any message counts in a fingerprint."""
    return any(
        message.text.strip() or message.calls or message.call_id is not None or message.files for message in messages
    )


def normalize(text: str) -> str:
    """Normalize line ends and remove outer white space, which clients change."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip()


def last_question(history: Sequence[HistoryMessage]) -> str | None:
    """Return the last user message that has text, or None."""
    questions = (message.text.strip() for message in reversed(history) if message.role == "user")
    return next(filter(None, questions), None)
