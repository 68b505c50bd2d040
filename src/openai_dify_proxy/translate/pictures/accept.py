"""The ``Accept`` header of image requests: whether the answer is a picture or JSON, and in which format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from openai_dify_proxy.errors import NotAcceptable
from openai_dify_proxy.translate.pictures.formats import OutputFormat

MEDIA_TYPES: Final[dict[str, OutputFormat]] = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
"""The media types that the proxy can write."""

_SYNONYMS: Final = {"image/jpg": "image/jpeg"}
_MAX_SHOWN = 100


class AcceptedFormats(Struct, frozen=True):
    """The formats that a client accepts, with their quality values from 0 (exclusive) to 1.

    Formats with the same quality value are in the order of the client.
    """

    qualities: dict[OutputFormat, float]

    def choose(self, requested: OutputFormat | None, default: OutputFormat | None) -> OutputFormat:
        """Return the format of the answer.

        ``requested`` wins if the client accepts it at all, ``default`` if the client prefers no other format to it.
        """
        if requested is not None and requested in self.qualities:
            return requested
        best = max(self.qualities.values())
        preferred = [name for name, quality in self.qualities.items() if quality == best]
        return default if default is not None and default in preferred else preferred[0]


def read_accept(text: str) -> AcceptedFormats | None:
    """Return the accepted formats of an answer in bytes; None for an answer in JSON.

    An answer in bytes requires an image type in the header, and no higher quality value for JSON. Raises NotAcceptable
    if the header has image types that the proxy cannot write, and does not accept JSON.
    """
    ranges = dict(_ranges(text))
    if not any(name.startswith("image/") and quality > 0 for name, quality in ranges.items()):
        return None
    order = [*(name for name in ranges if name in MEDIA_TYPES), *MEDIA_TYPES]
    qualities = {MEDIA_TYPES[name]: _quality(name, ranges) for name in order}
    accepted = {name: quality for name, quality in qualities.items() if quality > 0}
    json_quality = ranges.get("application/json", 0.0)
    if json_quality > max(accepted.values(), default=0.0):
        return None
    if not accepted:
        raise NotAcceptable(
            f"No picture can be sent as '{text[:_MAX_SHOWN]}'. Accept image/png, image/jpeg, image/webp or "
            "application/json.",
            param="Accept",
        )
    return AcceptedFormats(accepted)


def _ranges(text: str) -> Iterator[tuple[str, float]]:
    for part in text.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name:
            weights = [value for value in parameters if value.startswith("q=")]
            yield _SYNONYMS.get(name, name), _weight(weights[0][2:]) if weights else 1.0


def _weight(text: str) -> float:
    """Return a quality value; 1, the default, for a malformed one."""
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return quality if 0 <= quality <= 1 else 1.0


def _quality(name: str, ranges: dict[str, float]) -> float:
    """Return the quality value of the most specific matching range (RFC 9110, section 12.5.1)."""
    return next((ranges[pattern] for pattern in (name, "image/*", "*/*") if pattern in ranges), 0.0)
