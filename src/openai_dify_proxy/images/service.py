"""The services that the image routes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.pictures.service import Pictures

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.generator import ImageGenerator


class ImageService(Struct, frozen=True, kw_only=True):
    """The services. ``generator`` is None without a Replicate token, ``uploads`` without an IPFS node."""

    pictures: Pictures
    uploads: IpfsUploads | None
    generator: ImageGenerator | None
    max_picture_bytes: int
    ipfs_timeout: float

    @property
    def models(self) -> list[str]:
        """The names for ``GET /v1/models``."""
        return [] if self.generator is None else self.generator.models
