"""An image request, independent of the API."""

from __future__ import annotations

from msgspec import Struct, field

from openai_dify_proxy.telemetry import RequestRecord
from openai_dify_proxy.translate.replicate.image_plan import ImageParameters
from openai_dify_proxy.turns.callers import Caller


class InputPicture(Struct, frozen=True):
    """A picture that the client sent as ``data`` or as a ``url``, in the field or header ``param``."""

    param: str
    url: str | None = None
    data: bytes | None = None


class PictureRequest(Struct, frozen=True, kw_only=True):
    """The model, parameters and pictures of a request. ``init`` holds the initial images.

    ``record`` is that of the request, to which the predictions are added.
    """

    caller: Caller
    model: str | None
    parameters: ImageParameters
    init: tuple[InputPicture, ...] = ()
    mask: InputPicture | None = None
    record: RequestRecord = field(default_factory=RequestRecord)

    @property
    def inputs(self) -> tuple[InputPicture, ...]:
        """All pictures: the initial images and the mask."""
        return self.init if self.mask is None else (*self.init, self.mask)
