"""The ``Accept`` header of image requests."""

from __future__ import annotations

import pytest

from openai_dify_proxy.errors import NotAcceptable
from openai_dify_proxy.translate.pictures.accept import AcceptedFormats, read_accept
from openai_dify_proxy.translate.pictures.formats import OutputFormat

JSON = [
    "",
    "*/*",
    "application/json",
    "application/json, text/plain, */*",
    "text/html",
    "image/*;q=0",
    "image/png;q=0.5, application/json",
    "image/tiff, application/json;q=0.1",
    ",;q=1,",
]

# The header, the formats in order of preference, and the answer's format without a request for one.
PICTURES: list[tuple[str, list[str], str]] = [
    ("image/*", ["png", "jpg", "webp"], "png"),
    ("image/webp", ["webp"], "webp"),
    ("image/jpeg", ["jpg"], "jpg"),
    ("image/jpg", ["jpg"], "jpg"),
    ("IMAGE/WEBP ; Q=0.8 , image/png ; q=0.3", ["webp", "png"], "webp"),
    ("image/png;q=0.3, image/webp", ["png", "webp"], "webp"),
    ("image/webp, image/png", ["webp", "png"], "webp"),
    ("image/png;q=0, image/*", ["jpg", "webp"], "jpg"),
    ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", ["webp", "png", "jpg"], "webp"),
    ("image/tiff, */*;q=0.1", ["png", "jpg", "webp"], "png"),
    ("text/html, image/webp", ["webp"], "webp"),
    ("application/json, image/webp", ["webp"], "webp"),
    ("image/webp;q=high", ["webp"], "webp"),
    ("image/webp;q=7", ["webp"], "webp"),
    ("image/webp;v=1;q=0.5", ["webp"], "webp"),
]


@pytest.mark.parametrize("text", JSON)
def test_answers_in_json(text: str) -> None:
    assert read_accept(text) is None


@pytest.mark.parametrize(("text", "formats", "chosen"), PICTURES)
def test_answers_in_bytes(text: str, formats: list[str], chosen: str) -> None:
    accepted = read_accept(text)
    assert accepted is not None
    assert list(accepted.qualities) == formats
    assert accepted.choose(None, None) == chosen


@pytest.mark.parametrize("text", ["image/tiff", "image/gif;q=0.5, text/html", "image/avif, image/png;q=0"])
def test_formats_that_cannot_be_written(text: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        read_accept(text)
    assert (refused.value.status, refused.value.code, refused.value.param) == (406, "not_acceptable", "Accept")
    assert refused.value.message == (
        f"No picture can be sent as '{text}'. Accept image/png, image/jpeg, image/webp or application/json."
    )


@pytest.mark.parametrize(
    ("requested", "default", "chosen"),
    [
        ("png", None, "png"),
        ("jpg", None, "webp"),
        (None, "webp", "webp"),
        (None, "png", "webp"),
        (None, "jpg", "webp"),
        ("png", "webp", "png"),
    ],
)
def test_requested_formats_win_if_they_are_accepted(
    requested: OutputFormat | None, default: OutputFormat | None, chosen: str
) -> None:
    accepted = AcceptedFormats({"png": 0.1, "webp": 1})
    assert accepted.choose(requested, default) == chosen
