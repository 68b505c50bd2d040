from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import BadPicture
from openai_dify_proxy.translate.replicate.outputs import decode_data_uri, encode_data_uri, picture_urls

URL = "https://replicate.delivery/xezq/out-0.png"
DATA = "data:image/png;base64,iVBORw0K"

OUTPUTS: list[tuple[Any, list[str]]] = [
    (URL, [URL]),
    (DATA, [DATA]),
    ([URL, DATA, URL], [URL, DATA, URL]),
    ({"image": URL, "mask": [DATA], "seed": 7, "text": "fox"}, [URL, DATA]),
    ([{"image": URL}, None, "fox"], [URL]),
    (None, []),
    ([], []),
    ("A fox.", []),
    ("file:///etc/passwd", []),
    (7, []),
    (True, []),
]


@pytest.mark.parametrize(("output", "urls"), OUTPUTS)
def test_urls_in_outputs_of_every_form(output: Any, urls: list[str]) -> None:
    assert picture_urls(output) == urls


def test_a_data_uri_is_decoded() -> None:
    assert encode_data_uri(b"\x89PNG\r\n", "image/png") == "data:image/png;base64,iVBORw0K"
    assert decode_data_uri(DATA, 6) == b"\x89PNG\r\n"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "data:image/png;base64",
        "data:image/png,abc",
        "data:image/png;base64,ab*d",
        "data:image/png;base64,abc",
        "data:image/png;base64,iVBO\nRw0K",
        "datum:image/png;base64,iVBORw0K",
    ],
)
def test_malformed_data_uris(uri: str) -> None:
    with pytest.raises(BadPicture, match="malformed"):
        decode_data_uri(uri, 1000)


def test_a_data_uri_has_a_limit() -> None:
    with pytest.raises(BadPicture, match="The limit is 99 bytes"):
        decode_data_uri(encode_data_uri(bytes(120), "image/png"), 99)
