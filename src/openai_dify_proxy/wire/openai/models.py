"""The messages of ``GET /v1/models``, with Dify's description of each app."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType


class AppFinding(Struct):
    """What does not work in an app (``problem``), or is worth knowing about it (``note``)."""

    kind: Literal["problem", "note"]
    text: str


class ModelExtension(Struct, omit_defaults=True):
    name: str | None = None
    description: str | None = None
    mode: str | None = None
    tags: list[str] | None = None
    author_name: str | None = None
    inputs: list[dict[str, Any]] | None = None
    opening_statement: str | None = None
    suggested_questions: list[str] | None = None
    aliases: list[str] | None = None
    alias_of: str | None = None
    """The app that answers, if ``id`` is not its own name."""
    version: str | None = None
    """The version of Dify. This and the fields below are those of a single model only."""
    features: list[str] | None = None
    """What is switched on in the app."""
    findings: list[AppFinding] | None = None


class ImageHeaderSupport(Struct, omit_defaults=True):
    """The effect of a header on an image model. Without ``takes`` the model does not support it.

    ``options``, ``minimum`` and ``maximum`` are the values of ``takes`` for programs. ``input`` is the model's input
    for the header, and ``by`` the part of the proxy that implements it for a model without one.
    """

    header: str
    takes: str | None = None
    options: list[str] = []
    minimum: float | None = None
    maximum: float | None = None
    input: str | None = None
    by: str | None = None
    note: str | None = None


class ImageModelExtension(Struct):
    """``model`` is the name at Replicate."""

    model: str
    headers: list[ImageHeaderSupport]


class Model(Struct, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    type: Literal["chat", "image"] = "chat"
    """Not part of OpenAI's API: what the model makes."""
    dify: ModelExtension | UnsetType = UNSET
    replicate: ImageModelExtension | UnsetType = UNSET


class ModelList(Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]
