"""What files a Dify app accepts, as ``GET /parameters`` describes it.

An app whose uploads are off ignores files without an error, so the switch has to be checked first. Everything is
optional: versions and app modes describe themselves differently.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from openai_dify_proxy.translate.file_types import kind_of
from openai_dify_proxy.translate.turn_request import FileKind
from openai_dify_proxy.wire.dify import AppParameters, FormField, Mode, SystemParameters

FILE_INPUTS: Final = ("file", "file-list")
"""The kinds of inputs that take files."""

MAX_LISTED: Final = 10
"""Files in ``files``, or in an input of kind ``file-list``, if the app names no number."""

_MEGABYTE = 1024 * 1024
_DEFAULT_SIZES: dict[str, int] = {"image": 10, "audio": 50, "video": 100}
_DEFAULT_SIZE = 15
"""The largest file in MB if the app names no size."""


class FileRules(Struct, frozen=True):
    """The files that an app, or one of its inputs, accepts.

    A file whose kind is not in ``kinds`` is accepted as ``custom`` if its extension is listed. ``extensions`` maps
    extensions in lower case, without a dot, to their spelling in the app, which Dify compares exactly. ``remote`` and
    ``local`` say whether URLs and uploads are accepted.
    """

    kinds: frozenset[str]
    extensions: dict[str, str] = {}
    count: int = MAX_LISTED
    remote: bool = True
    local: bool = True

    def kind_for(self, kind: FileKind, extension: str) -> FileKind | None:
        """Return the kind to declare for a file, or None if it is not accepted."""
        if kind in self.kinds:
            return kind if kind != "custom" or not self.extensions or extension in self.extensions else None
        return "custom" if "custom" in self.kinds and extension in self.extensions else None

    @property
    def described(self) -> str:
        """The accepted types, for an error message."""
        names: list[str] = [name for name in ("image", "document", "audio", "video") if name in self.kinds]
        if "custom" in self.kinds:
            names += [f".{extension}" for extension in list(self.extensions)[:20]] or ["other files"]
        return ", ".join(names) or "none"


def rules_of_app(mode: Mode, parameters: AppParameters) -> FileRules | None:
    """Return what the app accepts in ``files``, or None if it would ignore them.

    The model of a new agent (mode ``agent``) receives no files, although its uploads are on (measured with 1.16).
    """
    upload = parameters.file_upload
    if upload is None or mode == "agent":
        return None
    image = upload.image
    vision = image is not None and bool(image.enabled)
    if not upload.enabled and not vision:
        return None
    kinds = _words(upload.allowed_file_types) if upload.enabled else ()
    methods = _words(upload.allowed_file_upload_methods) or _words(image.transfer_methods if image else None)
    count = upload.number_limits if upload.enabled else None
    return _rules(
        kinds or ("image",),
        _words(upload.allowed_file_extensions),
        methods,
        count or (image.number_limits if image else None),
    )


def rules_of_field(kind: str, field: FormField) -> FileRules | None:
    """Return what an input accepts, or None if it takes no files."""
    if kind not in FILE_INPUTS:
        return None
    return _rules(
        _words(field.allowed_file_types) or ("image", "document", "audio", "video"),
        _words(field.allowed_file_extensions),
        _words(field.allowed_file_upload_methods),
        1 if kind == "file" else field.max_length,
    )


def size_limit(kind: FileKind, extension: str, sizes: SystemParameters | None) -> int:
    """Return the largest size of a file in bytes. Dify chooses the limit by the extension."""
    kind = kind_of(extension) if extension else kind
    if sizes is None:
        return _DEFAULT_SIZES.get(kind, _DEFAULT_SIZE) * _MEGABYTE
    named = {
        "image": sizes.image_file_size_limit,
        "audio": sizes.audio_file_size_limit,
        "video": sizes.video_file_size_limit,
    }.get(kind, sizes.file_size_limit)
    return _number(named, _DEFAULT_SIZES.get(kind, _DEFAULT_SIZE)) * _MEGABYTE


def _rules(kinds: tuple[str, ...], extensions: tuple[str, ...], methods: tuple[str, ...], count: Any) -> FileRules:
    return FileRules(
        frozenset(kinds),
        {extension.lower().lstrip("."): extension.lstrip(".") for extension in extensions},
        _number(count, MAX_LISTED),
        remote=not methods or "remote_url" in methods,
        local=not methods or "local_file" in methods,
    )


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _words(value: Any) -> tuple[str, ...]:
    return tuple(word for word in value if isinstance(word, str)) if isinstance(value, list) else ()
