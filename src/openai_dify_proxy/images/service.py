"""The services that the image routes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.pictures.service import Pictures
from openai_dify_proxy.translate.replicate.model_names import is_openai_name
from openai_dify_proxy.turns.callers import Caller

if TYPE_CHECKING:  # generators load Pillow and aiohttp
    from openai_dify_proxy.images.app_generator import AppGenerator
    from openai_dify_proxy.images.generated import PictureGenerator
    from openai_dify_proxy.images.generator import ImageGenerator


class ImageService(Struct, frozen=True, kw_only=True):
    """The services. ``generator`` is None without a Replicate token, ``uploads`` without an IPFS node.

    ``configured`` are the names of configured models, and ``app_models`` those that Dify apps serve, with
    ``app_generator``. ``default`` is ``IMAGE_MODEL``.
    """

    pictures: Pictures
    uploads: IpfsUploads | None
    generator: ImageGenerator | None
    app_generator: AppGenerator | None = None
    configured: frozenset[str] = frozenset()
    app_models: frozenset[str] = frozenset()
    default: str = ""
    max_picture_bytes: int
    ipfs_timeout: float

    @property
    def available(self) -> bool:
        """Whether any model makes pictures."""
        return self.generator is not None or self.app_generator is not None

    def allows(self, caller: Caller, name: str) -> bool:
        """Return whether the caller may use the image model."""
        if name in self.app_models:
            return caller.may_use(name)
        return self.generator is None or self.generator.allows(caller, name)

    def models_for(self, caller: Caller) -> list[str]:
        """Return the names for ``GET /v1/models``."""
        own = [] if self.generator is None else self.generator.models_for(caller)
        return list(dict.fromkeys([*own, *(name for name in sorted(self.app_models) if caller.may_use(name))]))

    def model_of(self, name: str | None) -> str:
        """Return the model for the name in a request: the default one also for OpenAI's names."""
        return name if name and (name in self.configured or not is_openai_name(name)) else self.default

    def generator_of(self, model: str) -> PictureGenerator[Any] | None:
        """Return the generator for a result of ``model_of``; None if image generation is off for it."""
        return self.app_generator if model in self.app_models else self.generator
