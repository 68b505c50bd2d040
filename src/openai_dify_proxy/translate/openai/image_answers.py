"""Pictures as OpenAI's answers: one document, or a stream of events."""

from __future__ import annotations

import base64

from msgspec import UNSET, Struct, json

from openai_dify_proxy.wire.openai.images import ImageData, ImageEvent, ImagesResponse

_NAMES = {"jpg": "jpeg"}


class ShownPicture(Struct, frozen=True, kw_only=True):
    """A picture as an answer shows it. ``link`` is where it can be read again, ``cid`` its name on IPFS.

    ``format`` is what the bytes are: png, jpg, webp or gif.
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
    """The body of an answer; ``by`` is b64_json, url or ipfs.

    For ``ipfs`` the first address also stands at the top, where an older proxy's clients look for it.
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
    """A frame of a streamed answer. ``kind`` is image_generation or image_edit; ``partial`` a picture's number when
    others are still being made."""
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
    """OpenAI's name of a format."""
    return _NAMES.get(extension, extension)


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
