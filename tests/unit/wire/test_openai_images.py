from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import json

from openai_dify_proxy.wire.openai.images import IMAGE_REQUEST, ImageData, ImageReference


def test_fields_that_the_proxy_does_not_support_are_skipped() -> None:
    request = IMAGE_REQUEST.decode(
        json.encode(
            {
                "model": "gpt-image-1",
                "prompt": "A fox",
                "n": 2,
                "size": "1024x1024",
                "quality": "high",
                "moderation": "low",
                "input_fidelity": "high",
                "safety_identifier": "u1",
                "partial_images": 2,
                "stream": True,
                "user": "u1",
            }
        )
    )
    assert (request.model, request.prompt, request.n, request.size) == ("gpt-image-1", "A fox", 2, "1024x1024")
    assert (request.stream, request.partial_images, request.input, request.return_ipfs) == (True, 2, {}, False)


def test_pictures_of_json_edits() -> None:
    request = IMAGE_REQUEST.decode(
        b'{"images":[{"image_url":"https://a"},{"file_id":"f"}],"mask":{"image_url":"https://m"},"input":{"tile":9}}'
    )
    assert request.images == [ImageReference("https://a"), ImageReference(None, "f")]
    assert request.mask == ImageReference("https://m")
    assert request.input == {"tile": 9}
    plain = IMAGE_REQUEST.decode(b'{"image":["https://a","https://b"],"mask":"https://m"}')
    assert (plain.image, plain.mask) == (["https://a", "https://b"], "https://m")


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"n": "two"}, "$.n"),
        ({"prompt": ["A fox"]}, "$.prompt"),
        ({"size": 1024}, "$.size"),
        ({"input": [1]}, "$.input"),
        ({"images": ["https://a"]}, "$.images[0]"),
        ({"stream": "yes"}, "$.stream"),
        ({"output_compression": 80.5}, "$.output_compression"),
    ],
)
def test_faults_have_a_path(body: dict[str, Any], at: str) -> None:
    with pytest.raises(msgspec.ValidationError) as fault:
        IMAGE_REQUEST.decode(json.encode(body))
    assert f"at `{at}`" in str(fault.value)


def test_a_picture_omits_unknown_fields() -> None:
    assert json.encode(ImageData(url="https://a")) == b'{"url":"https://a"}'
    assert json.encode(ImageData(b64_json="AA", seed=0)) == b'{"b64_json":"AA","seed":0}'
