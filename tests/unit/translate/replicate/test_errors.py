"""Translate failures of Replicate's API and models to the errors that clients receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.translate.replicate.errors import (
    name_picture_as_sent,
    throttle_delay,
    translate_api_error,
    translate_failed,
)
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters, ImagePlan
from openai_dify_proxy.translate.replicate.model_schema import ModelInput
from openai_dify_proxy.wire.replicate import Prediction


@dataclass(frozen=True)
class Translated:
    status: int
    code: str | None
    param: str | None = None
    started: bool = False


def summary(error: ProxyError) -> Translated:
    return Translated(error.status, error.code, error.param, error.started)


def invalid(field: str, kind: str = "enum", description: str = "must be one of …") -> dict[str, Any]:
    return {
        "detail": f"- {field}: {description}\n",
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [{"type": kind, "field": field, "description": description}],
    }


UNAUTHENTICATED = {
    "title": "Unauthenticated",
    "detail": "You did not pass a valid authentication token",
    "status": 401,
}
CREDIT = {
    "title": "Insufficient credit",
    "detail": "You have insufficient credit to run this model. Go to https://replicate.com/account/billing to …",
    "status": 402,
}
VERSION = {
    "title": "Invalid version or not permitted",
    "detail": "The specified version does not exist (or perhaps you don't have permission to use it?)",
    "status": 422,
}
THROTTLED = {
    "detail": "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute "
    "with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~5s.",
    "status": 429,
}

ANSWERS: dict[str, tuple[int, Any, Translated]] = {
    "a wrong token": (401, UNAUTHENTICATED, Translated(502, "upstream_auth_error")),
    "a token without rights": (403, {"detail": "no"}, Translated(502, "upstream_auth_error")),
    "no credit": (402, CREDIT, Translated(429, "insufficient_quota")),
    "no such model": (404, {"detail": "Not found"}, Translated(404, "model_not_found", "model")),
    "no such version": (422, VERSION, Translated(404, "model_not_found", "model")),
    "throttled": (429, THROTTLED, Translated(429, "rate_limit_exceeded")),
    "a header's enum": (422, invalid("input.output_format"), Translated(400, None, "X-Output-Format")),
    "another spelling": (
        422,
        invalid("input.guidance", "number_lte"),
        Translated(400, None, "X-Replicate-Guidance-Scale"),
    ),
    "the prompt": (422, invalid("input.prompt", "invalid_type"), Translated(400, None, "prompt")),
    "a picture": (422, invalid("input.image", "format"), Translated(400, None, "input.image")),
    "a picture by another name": (422, invalid("input.img", "format"), Translated(400, None, "input.img")),
    "an input of the model's own": (422, invalid("input.go_fast"), Translated(400, None, "input.go_fast")),
    "a missing input": (422, invalid("input", "required", "prompt is required"), Translated(400, None)),
    "a key of the body": (422, invalid("", "additional_property_not_allowed"), Translated(400, None)),
    "no fields": (422, {"detail": "no", "invalid_fields": []}, Translated(400, None)),
    "a detail that is none": (422, {"detail": [{"loc": ["body"]}], "title": "Bad"}, Translated(400, None)),
    "not JSON": (422, None, Translated(400, None)),
    "an error": (500, {"title": "Version error", "detail": "Internal"}, Translated(502, "upstream_error", None, True)),
    "a balancer's page": (502, None, Translated(502, "upstream_error", None, True)),
    "a teapot": (418, {"title": "Teapot"}, Translated(502, "upstream_error")),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_that_are_errors(case: str) -> None:
    status, body, expected = ANSWERS[case]
    raw = b"<html>sorry</html>" if body is None else json.encode(body)
    assert summary(translate_api_error(status, {}, raw)) == expected


@pytest.mark.parametrize("case", ["a wrong token", "no credit"])
def test_account_problems_are_only_logged(case: str) -> None:
    status, body, _ = ANSWERS[case]
    error = translate_api_error(status, {}, json.encode(body))
    assert body["detail"] in str(error.log)
    assert "billing" not in error.message
    assert "authentication token" not in error.message
    assert not error.retryable


def test_a_wrong_token_is_reported_in_two_sentences() -> None:
    error = translate_api_error(401, {}, json.encode(UNAUTHENTICATED))
    assert error.log == (
        "Replicate answered 401: You did not pass a valid authentication token. Set a valid REPLICATE_API_TOKEN."
    )
    assert translate_api_error(401, {}, b"").log == "Replicate answered 401. Set a valid REPLICATE_API_TOKEN."


def test_invalid_inputs_are_reported_in_replicates_words() -> None:
    error = translate_api_error(422, {}, json.encode(invalid("input.steps", description="Must be at most 50")))
    assert error.message == "Replicate rejected 'steps': Must be at most 50."
    nameless = translate_api_error(422, {}, json.encode(invalid("input.steps", description="")))
    assert nameless.message == "Replicate rejected 'steps': - input.steps."


def test_pictures_are_named_as_sent() -> None:
    parameters = ImageParameters(prompt="A fox", init_param="image[]", mask_param="X-Replicate-Mask")
    images, mask = ModelInput("input_images", "array"), ModelInput("mask", "string")
    plan = ImagePlan(predictions=(), n=1, output_format="png", convert=False, init_input=images, mask_input=mask)
    without = ImagePlan(predictions=(), n=1, output_format="png", convert=False)
    for name, as_sent in (("input_images", "image[]"), ("mask", "X-Replicate-Mask"), ("go_fast", "input.go_fast")):
        error = translate_api_error(422, {}, json.encode(invalid(f"input.{name}")))
        name_picture_as_sent(error, parameters, without)
        assert error.param == f"input.{name}"
        name_picture_as_sent(error, parameters, plan)
        assert error.param == as_sent


def test_messages_contain_no_token_and_are_shortened() -> None:
    error = translate_api_error(422, {}, json.encode({"detail": f"token r8_abcdefgh12 is bad {'x' * 9000}"}))
    assert "r8_abcdefgh12" not in error.message
    assert len(error.message) < 600


DELAYS: dict[str, tuple[dict[str, str], Any, float]] = {
    "in the header": ({"retry-after": "7", "ratelimit-reset": "9"}, {"retry_after": 8}, 7),
    "in the body": ({"ratelimit-reset": "9"}, {"retry_after": 8.5}, 8.5),
    "by the window": ({"ratelimit-reset": "9"}, THROTTLED, 9),
    "in words": ({}, THROTTLED, 5),
    "in words, with decimals": ({}, {"detail": "resets in 1.5 s"}, 1.5),
    "as a date": ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, {"retry_after": 3}, 3),
    "below nothing": ({"retry-after": "-1"}, {}, 5),
    "without end": ({"retry-after": "inf"}, {}, 5),
    "no number": ({"retry-after": "nan"}, {}, 5),
    "at once": ({"retry-after": "0"}, {}, 0),
    "nowhere": ({}, {"detail": "Request was throttled."}, 5),
    "not JSON": ({}, None, 5),
}


@pytest.mark.parametrize("case", DELAYS)
def test_retry_after_of_a_429(case: str) -> None:
    headers, body, seconds = DELAYS[case]
    raw = b"slow down" if body is None else json.encode(body)
    assert throttle_delay(headers, raw) == seconds
    assert translate_api_error(429, headers, raw).retry_after == seconds


FAILED: dict[str, tuple[str, Any, Translated]] = {
    "a filter": (
        "failed",
        "NSFW content detected. Try running it again, or try a different prompt.",
        Translated(400, "content_policy_violation", "prompt", True),
    ),
    "a filter for all": (
        "failed",
        "All generated images contained NSFW content. Try running it again with a different prompt.",
        Translated(400, "content_policy_violation", "prompt", True),
    ),
    "E005": (
        "failed",
        "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
        Translated(400, "content_policy_violation", "prompt", True),
    ),
    "out of memory": ("failed", "CUDA out of memory.", Translated(502, "prediction_failed", None, True)),
    "interrupted": (
        "failed",
        "Prediction interrupted; please retry (code: PA)",
        Translated(502, "prediction_failed", None, True),
    ),
    "without a reason": ("failed", None, Translated(502, "prediction_failed", None, True)),
    "with an odd reason": ("failed", {"code": 7}, Translated(502, "prediction_failed", None, True)),
    "canceled": ("canceled", None, Translated(504, "prediction_canceled", None, True)),
    "aborted": ("aborted", None, Translated(504, "prediction_canceled", None, True)),
}


@pytest.mark.parametrize("case", FAILED)
def test_failed_predictions(case: str) -> None:
    status, error, expected = FAILED[case]
    error_of_prediction = translate_failed(Prediction(id="p", status=status, error=error))
    assert summary(error_of_prediction) == expected
    assert status != "failed" or error is None or str(error) in error_of_prediction.message
