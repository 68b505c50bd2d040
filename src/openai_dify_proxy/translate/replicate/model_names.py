"""The names of image models in requests."""

from __future__ import annotations

import re

from msgspec import Struct

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}/{_PART}")
_VERSION = re.compile(r"[0-9a-f]{64}")
_OPENAI_NAMES = re.compile(r"dall-e-.*|(chatgpt|gpt)-image-.*")
_DEPLOYMENT = "deployment:"


class ModelRef(Struct, frozen=True):
    """A model on Replicate.

    One of: ``owner/name`` (``name``), ``owner/name:version`` (both), a version alone (``version``), or the
    ``owner/name`` of a deployment (``deployment``).
    """

    name: str | None = None
    version: str | None = None
    deployment: str | None = None

    def __str__(self) -> str:
        if self.deployment is not None:
            return _DEPLOYMENT + self.deployment
        return ":".join(part for part in (self.name, self.version) if part is not None)


def parse_model(text: str) -> ModelRef | None:
    """Parse the name of a model; None if it has none of the forms."""
    if text.startswith(_DEPLOYMENT):
        deployment = text.removeprefix(_DEPLOYMENT)
        return ModelRef(deployment=deployment) if _NAME.fullmatch(deployment) else None
    name, colon, version = text.partition(":")
    if not colon and _VERSION.fullmatch(name):
        return ModelRef(version=name)
    if not _NAME.fullmatch(name) or (colon and not _VERSION.fullmatch(version)):
        return None
    return ModelRef(name, version or None)


def is_openai_name(text: str) -> bool:
    """Return whether ``text`` is the name of one of OpenAI's image models, which some clients hard-code."""
    return bool(_OPENAI_NAMES.fullmatch(text))
