"""The messages of Replicate's HTTP API. Any object may have missing and extra keys."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.json import Decoder

from openai_dify_proxy.wire.numbers import read_float

TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
"""``aborted`` means that a deadline passed before the prediction started; Replicate's own clients ignore it."""


class Prediction(Struct):
    """``output`` is a URL, a list or object of URLs, or null; with ``Prefer: wait`` a URL may be a data URI."""

    id: str = ""
    status: str = "starting"
    output: Any = None
    error: Any = None
    logs: str | None = None
    metrics: dict[str, Any] | None = None
    data_removed: bool = False


class CreatePrediction(Struct):
    """``version`` may also be ``owner/name`` of an official model; the route of a deployment takes no version."""

    input: dict[str, Any]
    version: str | UnsetType = UNSET


class ModelVersion(Struct):
    id: str
    openapi_schema: dict[str, Any] | None = None


class ReplicateModel(Struct):
    latest_version: ModelVersion | None = None


class Release(Struct):
    model: str | None = None
    version: str | None = None


class Deployment(Struct):
    current_release: Release | None = None


class UploadedFile(Struct):
    id: str
    urls: dict[str, str] = field(default_factory=dict)


class InvalidField(Struct):
    field: str = ""
    type: str = ""
    description: str = ""


class ApiError(Struct):
    title: str | None = None
    detail: Any = None
    invalid_fields: list[InvalidField] | None = None
    retry_after: float | None = None


PREDICTION = Decoder(Prediction, float_hook=read_float)
MODEL = Decoder(ReplicateModel, float_hook=read_float)
MODEL_VERSION = Decoder(ModelVersion, float_hook=read_float)
DEPLOYMENT = Decoder(Deployment)
UPLOADED_FILE = Decoder(UploadedFile)
API_ERROR = Decoder(ApiError, float_hook=read_float)
