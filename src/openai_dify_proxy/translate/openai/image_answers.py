"""Encode pictures as answers of the Images API: one document, or a stream of events."""

from __future__ import annotations

import base64

from msgspec import UNSET, Struct, json

from openai_dify_proxy.wire.openai.images import ImageData, ImageEvent, ImagesResponse

_FORMAT_NAMES = {"jpg": "jpeg"}


class ShownPicture(Struct, frozen=True, kw_only=True):
    """A picture in an answer.

    ``link`` is its URL at the proxy, ``cid`` its IPFS content identifier, and ``format`` the format of the bytes: png,
    jpg, webp or gif.
    """

    data: bytes
    format: str
    media_type: str
    width: int
    height: int
    link: str
    cid: str | None = None
    ipfs: str | None = None
    seed: int | None = None
    prediction_id: str | None = None
    revised_prompt: str | None = None


def encode_images(created: int, pictures: list[ShownPicture], *, by: str) -> bytes:
    """Return the body of an answer; ``by`` is b64_json, url or ipfs.

    For ``ipfs`` the top level holds the first URL too, where clients of an older proxy look for it.
    """
    data = [_image(picture, by) for picture in pictures]
    top = data[0].url if by == "ipfs" and data else None
    return json.encode(
        ImagesResponse(
            created=created,
            data=data,
            output_format=format_name(pictures[0].format) if pictures else "png",
            url=UNSET if top is None else top,
        )
    )


def encode_image_event(kind: str, created: int, picture: ShownPicture, *, by: str, partial: int | None = None) -> bytes:
    """Return a frame of a streamed answer.

    ``kind`` is image_generation or image_edit. ``partial`` is the index of a picture while others are still in
    progress.
    """
    name = f"{kind}.{'completed' if partial is None else 'partial_image'}"
    event = ImageEvent(
        type=name,
        b64_json="" if by != "b64_json" else base64.b64encode(picture.data).decode(),
        created_at=created,
        output_format=format_name(picture.format),
        size=f"{picture.width}x{picture.height}",
        partial_image_index=UNSET if partial is None else partial,
        url=UNSET if by == "b64_json" else _address(picture, by),
        revised_prompt=picture.revised_prompt or UNSET,
    )
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.encode(event))


def format_name(extension: str) -> str:
    """Return OpenAI's name of a format."""
    return _FORMAT_NAMES.get(extension, extension)


def _image(picture: ShownPicture, by: str) -> ImageData:
    return ImageData(
        b64_json=base64.b64encode(picture.data).decode() if by == "b64_json" else None,
        url=None if by == "b64_json" else _address(picture, by),
        revised_prompt=picture.revised_prompt,
        seed=picture.seed,
        prediction_id=picture.prediction_id,
        cid=picture.cid,
        ipfs=picture.ipfs,
    )


def _address(picture: ShownPicture, by: str) -> str:
    return f"ipfs://{picture.cid}" if by == "ipfs" else picture.link
