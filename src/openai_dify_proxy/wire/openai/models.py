"""The messages of ``GET /v1/models``, with Dify's description of each app."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType


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


class Model(Struct, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    dify: ModelExtension | UnsetType = UNSET


class ModelList(Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]
