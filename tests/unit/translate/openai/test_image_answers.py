"""Image answers, as read by the official client."""

from __future__ import annotations

import base64

import pytest
from msgspec import json
from openai.types import ImageEditCompletedEvent, ImageGenCompletedEvent, ImageGenPartialImageEvent, ImagesResponse

from openai_dify_proxy.translate.openai.image_answers import (
    ShownPicture,
    encode_image_event,
    encode_images,
    format_name,
)

DATA = b"\x89PNG\r\n\x1a\n picture"
ENCODED = base64.b64encode(DATA).decode()
LINK = "http://127.0.0.1:8223/pictures/ab.png"
PLAIN = ShownPicture(data=DATA, format="png", media_type="image/png", width=1024, height=768, link=LINK)
RICH = ShownPicture(
    data=DATA,
    format="jpg",
    media_type="image/jpeg",
    width=64,
    height=64,
    link=LINK,
    cid="bafkreib",
    ipfs="sent",
    seed=42,
    prediction_id="gm3q",
    revised_prompt="A fox, in loving detail",
)

DOCUMENTS = {
    "b64_json": (
        [PLAIN, PLAIN],
        "b64_json",
        {"created": 7, "data": [{"b64_json": ENCODED}, {"b64_json": ENCODED}], "output_format": "png"},
    ),
    "url": ([PLAIN], "url", {"created": 7, "data": [{"url": LINK}], "output_format": "png"}),
    "ipfs": (
        [RICH],
        "ipfs",
        {
            "created": 7,
            "data": [
                {
                    "url": "ipfs://bafkreib",
                    "revised_prompt": "A fox, in loving detail",
                    "seed": 42,
                    "prediction_id": "gm3q",
                    "cid": "bafkreib",
                    "ipfs": "sent",
                }
            ],
            "output_format": "jpeg",
            "url": "ipfs://bafkreib",
        },
    ),
    "nothing": ([], "ipfs", {"created": 7, "data": [], "output_format": "png"}),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents(case: str) -> None:
    pictures, by, expected = DOCUMENTS[case]
    encoded = encode_images(7, pictures, by=by)
    assert json.decode(encoded) == expected
    ImagesResponse.model_validate_json(encoded, strict=True)


def event_of(frame: bytes) -> tuple[str, bytes]:
    assert frame.endswith(b"\n\n")
    first, second = frame.decode().strip().split("\n")
    return first.removeprefix("event: "), second.removeprefix("data: ").encode()


def test_events() -> None:
    name, data = event_of(encode_image_event("image_generation", 7, PLAIN, by="b64_json"))
    assert json.decode(data) == {
        "type": "image_generation.completed",
        "b64_json": ENCODED,
        "created_at": 7,
        "output_format": "png",
        "size": "1024x768",
        "quality": "auto",
        "background": "auto",
    }
    assert name == "image_generation.completed"
    event = ImageGenCompletedEvent.model_construct(**json.decode(data))
    assert (event.type, event.b64_json) == (name, ENCODED)


def test_partial_events_are_numbered() -> None:
    name, data = event_of(encode_image_event("image_generation", 7, PLAIN, by="b64_json", partial=0))
    assert name == "image_generation.partial_image"
    assert json.decode(data)["partial_image_index"] == 0
    assert set(ImageGenPartialImageEvent.model_fields) - set(json.decode(data)) == set()


@pytest.mark.parametrize(("by", "url"), [("url", LINK), ("ipfs", "ipfs://bafkreib")])
def test_events_that_name_a_picture(by: str, url: str) -> None:
    name, data = event_of(encode_image_event("image_edit", 7, RICH, by=by))
    event = json.decode(data)
    assert (name, event["url"], event["b64_json"]) == ("image_edit.completed", url, "")
    assert event["revised_prompt"] == "A fox, in loving detail"
    required = {name for name, field in ImageEditCompletedEvent.model_fields.items() if field.is_required()}
    assert required - set(event) == {"usage"}  # counts tokens, which are unknown


def test_formats_have_openais_names() -> None:
    assert [format_name(extension) for extension in ("png", "jpg", "webp", "gif")] == ["png", "jpeg", "webp", "gif"]
