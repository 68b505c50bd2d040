"""The services that the image routes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.pictures.service import Pictures
from openai_dify_proxy.turns.callers import Caller

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.generator import ImageGenerator


class ImageService(Struct, frozen=True, kw_only=True):
    """The services. ``generator`` is None without a Replicate token, ``uploads`` without an IPFS node."""

    pictures: Pictures
    uploads: IpfsUploads | None
    generator: ImageGenerator | None
    max_picture_bytes: int
    ipfs_timeout: float

    def allows(self, caller: Caller, name: str) -> bool:
        """Return whether the caller may use the image model."""
        return self.generator is None or self.generator.allows(caller, name)

    def models_for(self, caller: Caller) -> list[str]:
        """Return the names for ``GET /v1/models``."""
        return [] if self.generator is None else self.generator.models_for(caller)
