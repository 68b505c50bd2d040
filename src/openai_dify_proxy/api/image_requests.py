"""Parses image requests: a JSON or form body, and headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from openai_dify_proxy.api.bodies import BodyReader
from openai_dify_proxy.api.responder import record_of
from openai_dify_proxy.errors import BadPicture, InvalidRequest
from openai_dify_proxy.images.picture_request import InputPicture, PictureRequest
from openai_dify_proxy.translate.openai.parameter_errors import check_range, invalid_value, unreadable_request
from openai_dify_proxy.translate.pictures.accept import read_accept
from openai_dify_proxy.translate.pictures.formats import sniff
from openai_dify_proxy.translate.replicate.counts import MAX_PICTURES
from openai_dify_proxy.translate.replicate.headers import HEADER_OF, read_image_headers
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters
from openai_dify_proxy.translate.replicate.model_schema import INT64
from openai_dify_proxy.translate.replicate.outputs import DATA_URI, decode_data_uri
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.images import IMAGE_REQUEST, ImageReference, ImageRequest
from openai_dify_proxy.wire.reading import UNREADABLE, decode_text

ImageOperation = Literal["generation", "edit", "variation"]

BODY_FIELDS = ("size", "quality", "style", "output_format", "output_compression", "background", "user", "seed")
_PICTURE_FIELDS = ("image", "image[]", "mask")
MAX_FILES = 16
MAX_FIELDS = 64


class ParsedImageRequest(Struct, frozen=True, kw_only=True):
    """An image request and the form of its answer."""

    request: PictureRequest
    by: Literal["b64_json", "url", "ipfs"]
    """The form of each picture in a JSON answer."""
    stream: bool
    partial_images: int


class _Body(Struct):
    """The fields and the pictures of a body."""

    fields: ImageRequest
    init: list[InputPicture]
    mask: InputPicture | None


async def read_image_request(
    request: Request, bodies: BodyReader, caller: Caller, operation: ImageOperation, *, limit: int
) -> ParsedImageRequest:
    """Parse a request; ``limit`` is the largest picture in bytes. Pictures are not decoded or fetched yet.

    Raises ProxyError.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = await _read_form(request, bodies, limit)
    else:
        body = _read_json(await bodies.read_json(request, IMAGE_REQUEST), limit)
    headers = read_image_headers(request.headers.items())
    _add_pictures(body, headers.values)
    fields = body.fields
    _check(body, operation)
    as_json = bool(fields.stream or fields.return_ipfs)
    parameters = ImageParameters(
        prompt=fields.prompt or None,
        n=fields.n,
        headers=headers.values,
        unknown=headers.unknown,
        body={name: value for name in BODY_FIELDS if (value := getattr(fields, name)) is not None},
        extra=fields.input,
        has_init=bool(body.init),
        has_mask=body.mask is not None,
        init_param=body.init[0].param if body.init else HEADER_OF["init_image"],
        more_param=body.init[1].param if len(body.init) > 1 else None,
        mask_param=body.mask.param if body.mask is not None else HEADER_OF["mask"],
        accepted=None if as_json else read_accept(", ".join(request.headers.getlist("accept"))),
    )
    return ParsedImageRequest(
        request=PictureRequest(
            caller=caller,
            model=fields.model,
            parameters=parameters,
            init=tuple(body.init),
            mask=body.mask,
            record=record_of(request.scope),
        ),
        by="ipfs" if fields.return_ipfs else "url" if fields.response_format == "url" else "b64_json",
        stream=bool(fields.stream),
        partial_images=fields.partial_images or 0,
    )


def _check(body: _Body, operation: ImageOperation) -> None:
    fields = body.fields
    if fields.response_format not in (None, "b64_json", "url"):
        raise invalid_value("response_format", fields.response_format, ("b64_json", "url"))
    if fields.n is not None:
        check_range("n", fields.n, 1, MAX_PICTURES)
    if fields.seed is not None and fields.seed not in INT64:
        problem, limit = ("large", INT64[-1]) if fields.seed > 0 else ("small", INT64[0])
        raise InvalidRequest(f"seed is too {problem}. The limit is {limit}.", param="seed")
    if operation != "variation" and not fields.prompt and "prompt" not in fields.input:
        raise InvalidRequest(
            "The request has no prompt. Send the field prompt.", param="prompt", code="missing_required_parameter"
        )
    if operation != "generation" and not body.init:
        raise InvalidRequest(
            "The request has no image. Send the field image.", param="image", code="missing_required_parameter"
        )


def _add_pictures(body: _Body, headers: Mapping[str, Any]) -> None:
    """Add the pictures of headers. Raises InvalidRequest if the body has different ones."""
    if "init_image" in headers:
        picture = InputPicture(HEADER_OF["init_image"], headers["init_image"])
        _reject_other(body.init, picture)
        body.init = [picture]
    if "mask" in headers:
        picture = InputPicture(HEADER_OF["mask"], headers["mask"])
        _reject_other([] if body.mask is None else [body.mask], picture)
        body.mask = picture


def _reject_other(sent: Sequence[InputPicture], by_header: InputPicture) -> None:
    for picture in sent:
        if picture.url != by_header.url:
            raise InvalidRequest(
                f"{by_header.param} and {picture.param} are different pictures. Send one of them.",
                param=by_header.param,
            )


def _read_json(fields: ImageRequest, limit: int) -> _Body:
    init = [_reference(image, f"images[{index}]", limit) for index, image in enumerate(fields.images or [])]
    if fields.image is not None:
        images = [fields.image] if isinstance(fields.image, str) else fields.image
        init += [_reference(ImageReference(url), "image", limit) for url in images]
    mask = ImageReference(fields.mask) if isinstance(fields.mask, str) else fields.mask
    return _Body(fields, init, None if mask is None else _reference(mask, "mask", limit))


def _reference(image: ImageReference, param: str, limit: int) -> InputPicture:
    if image.image_url is None:
        raise InvalidRequest(
            f"{param} has no image_url. Files by id are not supported; send an http(s) URL or a data URI.",
            param=param,
            code="unsupported_parameter",
        )
    if image.image_url.startswith(DATA_URI):
        try:
            data = decode_data_uri(image.image_url, limit)
        except BadPicture as error:
            raise InvalidRequest(error.message, param=param) from error
        return _picture(data, param)
    if not image.image_url.lower().startswith(("http://", "https://")):
        raise InvalidRequest(
            f"{param} must be an http(s) URL or a data URI such as data:image/png;base64,….", param=param
        )
    return InputPicture(param, image.image_url)


def _picture(data: bytes, param: str) -> InputPicture:
    if sniff(data) is None:
        raise InvalidRequest(f"{param} must be a PNG, JPEG, WebP or GIF picture.", param=param)
    return InputPicture(param, data=data)


async def _read_form(request: Request, bodies: BodyReader, limit: int) -> _Body:
    form = await bodies.read_form(request, max_files=MAX_FILES, max_fields=MAX_FIELDS)
    try:
        return await _form_parts(form, limit)
    finally:
        await form.close()  # removes temporary files


async def _form_parts(form: FormData, limit: int) -> _Body:
    plain: dict[str, Any] = {}
    init: list[InputPicture] = []
    mask: InputPicture | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            data = await value.read()
            if len(data) > limit:
                raise InvalidRequest(f"{name} is too large. The limit is {limit} bytes.", param=name)
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
            raise InvalidRequest(f"Unknown file field '{name}'. Send files as image, image[] or mask.", param=name)
    return _Body(_fields(plain), init, mask)


def _fields(plain: Mapping[str, Any]) -> ImageRequest:
    """Convert the fields of a form from text to their types."""
    values = {name: value for name, value in plain.items() if value != ""}
    if isinstance(values.get("input"), str):
        try:
            values["input"] = decode_text(values["input"])
        except UNREADABLE:
            raise InvalidRequest("input must be a JSON object.", param="input") from None
    try:
        return msgspec.convert(values, ImageRequest, strict=False)
    except UNREADABLE as exc:
        raise unreadable_request(exc, values, ImageRequest) from None
