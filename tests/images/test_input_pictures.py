"""Masks given by URL: which ones the proxy downloads, and how it converts them."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from openai_dify_proxy.images.input_pictures import InputPictures
from openai_dify_proxy.images.picture_request import InputPicture
from openai_dify_proxy.translate.replicate.image_plan import ImagePlan
from openai_dify_proxy.translate.replicate.model_schema import ModelInput
from openai_dify_proxy.upstream.client_urls import ClientUrls
from openai_dify_proxy.upstream.fetch import GuardedFetcher
from openai_dify_proxy.upstream.replicate import ReplicateClient
from tests.limits import PATIENCE
from tests.upstream.raw_server import raw_server, reply

HEADER = "X-Replicate-Mask"


def png(mask: Image.Image) -> bytes:
    output = io.BytesIO()
    mask.save(output, "PNG")
    return output.getvalue()


def halves(left: object, right: object, mode: str) -> bytes:
    mask = Image.new(mode, (8, 4), right)  # type: ignore[arg-type]
    mask.paste(left, (0, 0, 4, 4))  # type: ignore[arg-type]
    return png(mask)


ALPHA = halves((9, 9, 9, 0), (9, 9, 9, 255), "RGBA")
"""A mask in OpenAI's form: transparent where to repaint, on the left."""

WHITE = halves(255, 0, "L")


@pytest.mark.parametrize("black_repaints", [False, True])
@pytest.mark.parametrize(("sent", "param"), [(ALPHA, "mask"), (WHITE, "mask"), (WHITE, HEADER)])
async def test_a_mask_by_url(sent: bytes, param: str, black_repaints: bool) -> None:
    fetcher = GuardedFetcher(connect_timeout=PATIENCE, public=lambda _: True)
    replicate = ReplicateClient("http://127.0.0.1:9/v1", "r8", connect_timeout=PATIENCE)
    async with raw_server(reply(200, sent)) as server:
        url = f"{server.origin}/m.png"
        inputs = InputPictures(replicate, fetcher, ClientUrls(()), limit=100_000)
        field = ModelInput(name="mask", kind="string")
        plan = ImagePlan(
            predictions=({},),
            n=1,
            output_format="png",
            convert=False,
            mask_input=field,
            invert_mask=black_repaints,
        )
        async with inputs.staged(plan, (), InputPicture(param, url)) as staged:
            placed = staged.add_to({})["mask"]
        assert len(server.requests) == (0 if param == HEADER and not black_repaints else 1)
    await fetcher.close()
    await replicate.close()
    if not server.requests:
        assert placed == url
        return
    with Image.open(io.BytesIO(base64.b64decode(placed.partition(",")[2]))) as mask:
        grey = mask.convert("L")
    left, right = grey.getpixel((0, 0)), grey.getpixel((7, 0))
    assert (left, right) == ((0, 255) if black_repaints else (255, 0))
