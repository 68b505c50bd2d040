"""Which model of Replicate a request means, and what that model takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from msgspec import Struct

from openai_dify_proxy.errors import ModelNotFound, ProxyError
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.replicate.known_models import KNOWN_MODELS, UNKNOWN_MODEL, Colour, repainted_colour
from openai_dify_proxy.translate.replicate.model_names import ModelRef, is_openai_name, parse_model
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs, read_model_inputs
from openai_dify_proxy.upstream.replicate import ReplicateClient

FRESH_SECONDS = 300.0
SCHEMA_SECONDS = 10.0
"""How long a request waits for a schema before it makes do with what is known; the question goes on meanwhile."""

MAX_SCHEMAS = 200

log = structlog.get_logger(__name__)


class ImageModel(Struct, frozen=True):
    """A model and what the settings say of it.

    ``upscaler`` is the model that enlarges its pictures, ``mask_repaints`` the colour of a mask where it paints.
    """

    ref: ModelRef
    defaults: Mapping[str, Any] = {}
    upscaler: ModelRef | None = None
    mask_repaints: Colour = "white"


class ImageModels:
    """Model names and schemas. ``now`` is a clock in seconds."""

    def __init__(self, settings: Settings, replicate: ReplicateClient, now: Callable[[], float]) -> None:
        self._replicate = replicate
        self._now = now
        self._default = settings.image_model
        self._upscaler = None if settings.image_upscaler is None else _required(settings.image_upscaler)
        self._aliases = {
            name: ImageModel(
                ref := _required(model.model),
                model.inputs,
                self._upscaler if model.upscaler is None else _required(model.upscaler),
                model.mask_repaints or repainted_colour(ref.name),
            )
            for name, model in settings.image_models.items()
        }
        self._latest: dict[ModelRef, str] = {}
        self._pinned: set[ModelRef] = set()
        self._schemas: dict[ModelRef, tuple[ModelInputs, float]] = {}
        self._asking: dict[ModelRef, asyncio.Task[ModelInputs]] = {}

    @property
    def listed(self) -> list[str]:
        """The names for ``GET /v1/models``: the aliases and the default."""
        return list(dict.fromkeys([*self._aliases, self._default]))

    def choose(self, name: str | None) -> ImageModel:
        """Raises ModelNotFound for a name that is none of the forms."""
        if not name or (is_openai_name(name) and name not in self._aliases):
            name = self._default
        alias = self._aliases.get(name)
        if alias is not None:
            return alias
        ref = parse_model(name)
        if ref is None:
            raise ModelNotFound(
                f"There is no image model '{name[:200]}'. Name one of Replicate's as owner/name, owner/name:version, a "
                f"version, or deployment:owner/name; or one of: {', '.join(self.listed)}.",
                param="model",
            )
        return ImageModel(ref, {}, self._upscaler, repainted_colour(ref.name))

    async def inputs(self, ref: ModelRef) -> ModelInputs:
        """What the model takes. A version's schema never changes; a name's is asked again after some minutes."""
        known = self._schemas.get(ref)
        if known is not None and known[1] > self._now():
            return known[0]
        task = self._asking.get(ref)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(ref))
            self._asking[ref] = task
            task.add_done_callback(lambda _: self._asking.pop(ref, None))
        try:
            async with asyncio.timeout(SCHEMA_SECONDS):
                return await asyncio.shield(task)
        except TimeoutError:
            log.warning("schema_late", model=str(ref))
            return known[0] if known is not None else _built_in(ref)
        except ProxyError as error:
            if error.status < 500 or error.code == "upstream_auth_error":
                raise
            log.warning("schema_unknown", model=str(ref), error=error.message, detail=error.log)
            return known[0] if known is not None else _built_in(ref)

    def target(self, ref: ModelRef) -> ModelRef:
        """What to create predictions of: only official models go by their name alone, others need a version."""
        if ref in self._pinned:
            return ModelRef(ref.name, self._latest[ref])
        return ref

    def instead_of(self, refused: ModelRef) -> ModelRef | None:
        """What to ask for after Replicate refused a target; None if there is nothing else that it could mean."""
        if refused.name is None or refused.version is not None or refused not in self._latest:
            return None
        self._pinned.add(refused)
        return self.target(refused)

    async def _ask(self, ref: ModelRef) -> ModelInputs:
        version, schema = await self._replicate.schema(ref)
        if version is not None:
            self._latest[ref] = version
        inputs = read_model_inputs(schema)
        forever = ref.version is not None and bool(inputs.fields)
        until = float("inf") if forever else self._now() + FRESH_SECONDS
        if not inputs.fields:
            inputs = _built_in(ref)
        if len(self._schemas) >= MAX_SCHEMAS:
            self._schemas.pop(next(iter(self._schemas)))
        self._schemas[ref] = inputs, until
        return inputs


def _built_in(ref: ModelRef) -> ModelInputs:
    return KNOWN_MODELS.get(ref.name or "", UNKNOWN_MODEL)


def _required(name: str) -> ModelRef:
    """A model that the settings name; they are checked when they are read."""
    ref = parse_model(name)
    if ref is None:
        raise ValueError(f"{name!r} is no model of Replicate")
    return ref
