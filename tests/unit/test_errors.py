from __future__ import annotations

import re

import pytest

from openai_dify_proxy import errors
from openai_dify_proxy.errors import SEE_LOG, ImagesOff, InvalidRequest, ProxyError, RateLimited, StreamCut


def tree(root: type[ProxyError]) -> list[type[ProxyError]]:
    return [root, *(error for child in root.__subclasses__() for error in tree(child))]


ERRORS = tree(ProxyError)

STATUS_OF_TYPE = {
    "invalid_request_error": {400, 404, 405, 406, 408, 409, 412, 413, 414, 415, 416, 431},
    "authentication_error": {401},
    "permission_error": {403},
    "rate_limit_error": {429},
    "insufficient_quota": {429},
    "api_error": {502, 503, 504},
    "server_error": {500, 503},
}
"""OpenAI's error types and the statuses that its SDKs map to them."""


@pytest.mark.parametrize("error", ERRORS)
def test_status_and_type_fit(error: type[ProxyError]) -> None:
    assert error.status in STATUS_OF_TYPE[error.type]


def test_the_drawing_in_the_module_docstring_is_the_tree() -> None:
    drawing = errors.__doc__ or ""
    drawn = dict[str, str](re.findall(r"[├└]── (\w+)\s+(\d{3})\b", drawing))
    leaves = {error.__name__: str(error.status) for error in ERRORS if error.__name__ in drawn}
    assert leaves == drawn
    abstract = {"ProxyError", "ClientError", "UpstreamError", "ServerError"}
    assert {error.__name__ for error in ERRORS} == set(drawn) | abstract


def test_a_code_argument_overrides_the_classs_code() -> None:
    assert InvalidRequest("No.").code is None
    assert RateLimited("No.").code == "rate_limit_exceeded"
    assert RateLimited("No.", code="theirs").code == "theirs"


def test_attributes_of_an_error() -> None:
    error = StreamCut("It broke off.", param="stream", retry_after=2, started=True, log="for the operator")
    assert str(error) == error.message == "It broke off."
    assert (error.param, error.retry_after, error.started, error.log) == ("stream", 2, True, "for the operator")
    plain = StreamCut("It broke off.")
    assert (plain.param, plain.retry_after, plain.started, plain.log) == (None, None, False, None)


def test_the_operator_reads_the_reason_instead_of_the_reference_to_it() -> None:
    assert (
        StreamCut(f"It broke off. {SEE_LOG}", log="The port is wrong.").with_reason
        == "It broke off. The port is wrong."
    )
    assert StreamCut("It broke off.", log="The port is wrong.").with_reason == "It broke off. The port is wrong."
    assert StreamCut("It broke off.").with_reason == "It broke off."


def test_a_server_without_images_names_the_setting() -> None:
    error = ImagesOff()
    assert (error.status, error.code) == (502, "images_not_configured")
    assert "REPLICATE_API_TOKEN" in str(error)
