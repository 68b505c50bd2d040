"""Parses image requests: JSON or a form, and headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from openai_dify_proxy.api.bodies import BodyReader
from openai_dify_proxy.errors import BadPicture, InvalidRequest
from openai_dify_proxy.images.picture_request import InputPicture, PictureRequest
from openai_dify_proxy.translate.openai.parameter_errors import unreadable_request
from openai_dify_proxy.translate.pictures.formats import sniff
from openai_dify_proxy.translate.replicate.counts import MAX_PICTURES
from openai_dify_proxy.translate.replicate.headers import HEADER_OF, read_image_headers
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters
from openai_dify_proxy.translate.replicate.outputs import DATA_URI, decode_data_uri
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.images import IMAGE_REQUEST, ImageReference, ImageRequest
from openai_dify_proxy.wire.reading import UNREADABLE

ImageOperation = Literal["generation", "edit", "variation"]

BODY_FIELDS = ("size", "quality", "style", "output_format", "output_compression", "background", "user", "seed")
_PICTURE_FIELDS = ("image", "image[]", "mask")
MAX_FILES = 16
MAX_FIELDS = 64


class ParsedImageRequest(Struct, frozen=True, kw_only=True):
    """What to generate, and the shape of the answer."""

    request: PictureRequest
    by: Literal["b64_json", "url", "ipfs"]
    stream: bool
    partial_images: int


class _FormParts(Struct):
    """The fields and the pictures of a body."""

    fields: ImageRequest
    init: list[InputPicture]
    mask: InputPicture | None


async def read_image_request(
    request: Request, bodies: BodyReader, caller: Caller, operation: ImageOperation, *, limit: int
) -> ParsedImageRequest:
    """``limit`` bounds a picture in bytes. Pictures are neither decoded nor fetched here. Raises ProxyError."""
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        parts = await _read_form(request, bodies, limit)
    else:
        parts = _read_json(await bodies.read_json(request, IMAGE_REQUEST), limit)
    headers = read_image_headers(request.headers)
    if "init_image" in headers:
        parts.init = [_by_header("init_image", headers)]
    if "mask" in headers:
        parts.mask = _by_header("mask", headers)
    fields = parts.fields
    _check(fields, operation, parts)
    parameters = ImageParameters(
        prompt=fields.prompt or None,
        n=fields.n,
        headers=headers,
        body={name: value for name in BODY_FIELDS if (value := getattr(fields, name)) is not None},
        extra=fields.input,
        has_init=bool(parts.init),
        has_more=len(parts.init) > 1,
        has_mask=parts.mask is not None,
    )
    return ParsedImageRequest(
        request=PictureRequest(
            caller=caller, model=fields.model, parameters=parameters, init=tuple(parts.init), mask=parts.mask
        ),
        by="ipfs" if fields.return_ipfs else "url" if fields.response_format == "url" else "b64_json",
        stream=bool(fields.stream),
        partial_images=fields.partial_images or 0,
    )


def _check(fields: ImageRequest, operation: ImageOperation, parts: _FormParts) -> None:
    if fields.response_format not in (None, "b64_json", "url"):
        raise InvalidRequest("response_format must be b64_json or url.", param="response_format")
    if fields.n is not None and not 1 <= fields.n <= MAX_PICTURES:
        raise InvalidRequest(f"n must be from 1 to {MAX_PICTURES}.", param="n")
    if operation != "variation" and not fields.prompt and "prompt" not in fields.input:
        raise InvalidRequest("The request lacks a prompt.", param="prompt", code="missing_required_parameter")
    if operation != "generation" and not parts.init:
        raise InvalidRequest("The request lacks an image.", param="image", code="missing_required_parameter")


def _by_header(parameter: str, headers: Mapping[str, Any]) -> InputPicture:
    return InputPicture(HEADER_OF[parameter], headers[parameter])


def _read_json(fields: ImageRequest, limit: int) -> _FormParts:
    init = [_reference(image, f"images[{index}]", limit) for index, image in enumerate(fields.images or [])]
    if fields.image is not None:
        images = [fields.image] if isinstance(fields.image, str) else fields.image
        init += [_reference(ImageReference(url), "image", limit) for url in images]
    mask = ImageReference(fields.mask) if isinstance(fields.mask, str) else fields.mask
    return _FormParts(fields, init, None if mask is None else _reference(mask, "mask", limit))


def _reference(image: ImageReference, param: str, limit: int) -> InputPicture:
    if image.image_url is None:
        raise InvalidRequest(
            f"{param} must hold an image_url: files by id are not kept here.",
            param=param,
            code="unsupported_parameter",
        )
    if image.image_url.startswith(DATA_URI):
        try:
            data = decode_data_uri(image.image_url, limit)
        except BadPicture as error:
            raise InvalidRequest(error.message, param=param) from error
        return _picture(data, param)
    return InputPicture(param, image.image_url)


def _picture(data: bytes, param: str) -> InputPicture:
    if sniff(data) is None:
        raise InvalidRequest(f"{param} must be a PNG, JPEG, WebP or GIF picture.", param=param)
    return InputPicture(param, data=data)


async def _read_form(request: Request, bodies: BodyReader, limit: int) -> _FormParts:
    form = await bodies.read_form(request, max_files=MAX_FILES, max_fields=MAX_FIELDS)
    try:
        return await _form_parts(form, limit)
    finally:
        await form.close()  # large files lie on the disk


async def _form_parts(form: FormData, limit: int) -> _FormParts:
    plain: dict[str, Any] = {}
    init: list[InputPicture] = []
    mask: InputPicture | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            data = await value.read()
            if len(data) > limit:
                raise InvalidRequest(f"{name} is larger than {limit} bytes.", param=name)
            picture = _picture(data, name)
        elif name in _PICTURE_FIELDS:
            if value == "":
                continue
            picture = _reference(ImageReference(value), name, limit)
        else:
            plain[name] = value
            continue
        if name == "mask":
            mask = picture
        elif name in _PICTURE_FIELDS:
            init.append(picture)
        else:
            raise InvalidRequest(f"There is no file field '{name}' here: send image and mask.", param=name)
    return _FormParts(_fields(plain), init, mask)


def _fields(plain: Mapping[str, Any]) -> ImageRequest:
    """Convert a form's fields, which are all texts, to their types."""
    values = {name: value for name, value in plain.items() if value != ""}
    if isinstance(values.get("input"), str):
        try:
            values["input"] = msgspec.json.decode(values["input"])
        except UNREADABLE:
            raise InvalidRequest("input must be a JSON object.", param="input") from None
    try:
        return msgspec.convert(values, ImageRequest, strict=False)
    except UNREADABLE as exc:
        raise unreadable_request(exc, values, ImageRequest) from None
