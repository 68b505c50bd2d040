"""Maps Replicate's errors to the proxy's. Details of the operator's account go to the log only."""

from __future__ import annotations

import re
from collections.abc import Mapping

from openai_dify_proxy.errors import (
    SEE_LOG,
    ContentBlocked,
    InvalidRequest,
    ModelNotFound,
    ProxyError,
    QuotaExceeded,
    RateLimited,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamMisconfigured,
    UpstreamTimeout,
)
from openai_dify_proxy.translate.replicate.candidates import CANDIDATES
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, ImagePlan
from openai_dify_proxy.translate.sentences import with_detail
from openai_dify_proxy.wire.reading import UNREADABLE
from openai_dify_proxy.wire.replicate import API_ERROR, ApiError, Prediction

THROTTLE_SECONDS = 5.0
"""The delay for a 429 that names none: the usual one in Replicate's texts."""

_RESETS_IN = re.compile(r"resets in ~?(\d+(?:\.\d+)?)\s*s")
_REJECTED = re.compile(r"nsfw|flagged as sensitive|\(E005\)|content policy|safety", re.IGNORECASE)
_TOKEN = re.compile(r"\br8_[A-Za-z0-9]{4,}")
_MAX_LENGTH = 500


def translate_api_error(status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
    """Return the error for a response of Replicate's API with a status other than 2xx."""
    try:
        error = API_ERROR.decode(body)
    except UNREADABLE:
        error = ApiError()
    detail = _clean(error.detail if isinstance(error.detail, str) else error.title or "")
    if status in (401, 403):
        return UpstreamMisconfigured(
            f"Replicate rejected this server's token. {SEE_LOG}",
            code="upstream_auth_error",
            log=f"{with_detail(f'Replicate answered {status}', detail)} Set a valid REPLICATE_API_TOKEN.",
        )
    if status == 402:
        return QuotaExceeded(
            f"This server's Replicate account cannot pay for the prediction. {SEE_LOG}",
            log=with_detail("Replicate answered 402", detail),
        )
    if status == 404 or (status == 422 and "version" in (error.title or "").lower()):
        return ModelNotFound(
            with_detail("Replicate does not have this model, or does not let this server use it", detail), param="model"
        )
    if status == 422:
        return _invalid(error, detail)
    if status == 429:
        return RateLimited(
            "Replicate's rate limit for this server is exceeded. Retry after the delay in Retry-After.",
            retry_after=throttle_delay(headers, body),
        )
    kind = UpstreamGarbled if status >= 500 else UpstreamFailed
    return kind(with_detail(f"Replicate failed with HTTP {status}", detail), started=status >= 500)


def throttle_delay(headers: Mapping[str, str], body: bytes) -> float:
    """Return the seconds to wait after a 429, from its headers, its body or the text in it."""
    try:
        error = API_ERROR.decode(body)
    except UNREADABLE:
        error = ApiError()
    match = _RESETS_IN.search(error.detail) if isinstance(error.detail, str) else None
    for candidate in (
        headers.get("retry-after"),
        error.retry_after,
        headers.get("ratelimit-reset"),
        match[1] if match else None,
    ):
        try:
            seconds = float(candidate) if candidate is not None else -1.0
        except ValueError:  # a date
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return THROTTLE_SECONDS


def translate_failed(prediction: Prediction) -> ProxyError:
    """Return the error for a prediction that ended without success."""
    error = _clean(str(prediction.error or ""))
    if prediction.status in ("canceled", "aborted"):
        return UpstreamTimeout(
            "The prediction was cancelled before it returned a picture. Send the request again.",
            code="prediction_canceled",
            started=True,
        )
    if _REJECTED.search(error):
        return ContentBlocked(with_detail("The model rejected the request", error), param="prompt", started=True)
    return UpstreamFailed(
        with_detail("The model failed", error or "no reason given"), code="prediction_failed", started=True
    )


def name_picture_as_sent(error: ProxyError, parameters: ImageParameters, plan: ImagePlan) -> None:
    """Set the error's ``param`` to the field or header of a picture, if it is the model's input for that picture."""
    for parameter, field in (("init_image", plan.init_input), ("mask", plan.mask_input)):
        if field is not None and error.param == f"input.{field.name}":
            error.param = parameters.sent_as(parameter)


def _invalid(error: ApiError, detail: str) -> ProxyError:
    """Return the error for the first invalid field, by its header or as ``input.<name>``."""
    for invalid in error.invalid_fields or []:
        name = invalid.field.removeprefix("input.")
        description = _clean(invalid.description) or detail
        return InvalidRequest(
            with_detail(f"Replicate rejected '{name}'", description), param=_param_of(name), started=False
        )
    return InvalidRequest(with_detail("Replicate rejected the request", detail))


def _param_of(name: str) -> str | None:
    if name == "prompt":
        return name
    for parameter, candidates in CANDIDATES.items():
        if name in candidates and parameter not in ("init_image", "mask"):
            return HEADER_OF[parameter]
    return f"input.{name}" if name and name != "input" else None


def _clean(text: str) -> str:
    return _TOKEN.sub("r8_…", text).strip()[:_MAX_LENGTH]
