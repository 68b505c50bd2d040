"""Resolves image model names to models on Replicate, and loads the inputs of each model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import structlog
from msgspec import Struct

from openai_dify_proxy.errors import ModelNotFound, ProxyError
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.replicate.known_models import (
    KNOWN_MODELS,
    UNKNOWN_MODEL,
    Colour,
    repainted_colour,
    suggest_model,
)
from openai_dify_proxy.translate.replicate.model_names import ModelRef, is_openai_name, parse_model
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs, read_model_inputs
from openai_dify_proxy.upstream.cache import Loaded, RefreshingCache, is_outage
from openai_dify_proxy.upstream.replicate import ReplicateClient

FRESH_SECONDS = 300.0
SCHEMA_SECONDS = 10.0
"""How long a request waits for a schema before it uses the previous one or the built-in table."""

MAX_SCHEMAS = 200

log = structlog.get_logger(__name__)


class ImageModel(Struct, frozen=True):
    """A model with its settings.

    ``defaults`` are inputs, ``upscaler`` is the model that upscales its pictures, and ``mask_repaints`` the colour of
    the areas of a mask that it repaints.
    """

    ref: ModelRef
    defaults: Mapping[str, Any] = {}
    upscaler: ModelRef | None = None
    mask_repaints: Colour = "white"


class ImageModels:
    """Resolves names and caches schemas. ``now`` is a clock in seconds."""

    def __init__(self, settings: Settings, replicate: ReplicateClient, now: Callable[[], float]) -> None:
        self._replicate = replicate
        self._default = settings.image_model
        configured = settings.image_models.get(settings.image_model)
        self._own_default = () if configured is not None and configured.model is None else (settings.image_model,)
        self._upscaler = None if settings.image_upscaler is None else _required(settings.image_upscaler)
        self._aliases = {
            name: ImageModel(
                ref := _required(model.model),
                model.inputs,
                self._upscaler if model.upscaler is None else _required(model.upscaler),
                model.mask_repaints or repainted_colour(ref.name),
            )
            for name, model in settings.image_models.items()
            if model.model is not None
        }
        self._latest: dict[ModelRef, str] = {}
        self._pinned: set[ModelRef] = set()
        self._inputs: RefreshingCache[ModelRef, ModelInputs] = RefreshingCache(now, max_entries=MAX_SCHEMAS)

    def names_of(self, name: str | None, model: ImageModel) -> tuple[str, ...]:
        """Return all names of the ``model`` that the request's ``name`` chose: of the request, here, on Replicate."""
        names = [str(model.ref), model.ref.name or ""]
        if not name or (is_openai_name(name) and name not in self._aliases):
            names.append(self._default)
        if name and (is_openai_name(name) or name in self._aliases):
            names.append(name)
        return tuple(filter(None, names))

    @property
    def listed(self) -> list[str]:
        """The names for ``GET /v1/models``: the aliases and the default."""
        return list(dict.fromkeys([*self._aliases, *self._own_default]))

    def choose(self, name: str | None) -> ImageModel:
        """Resolve the name in a request; None is the default. Raises ModelNotFound for a malformed name."""
        if not name or (is_openai_name(name) and name not in self._aliases):
            name = self._default
        alias = self._aliases.get(name)
        if alias is not None:
            return alias
        ref = parse_model(name)
        if ref is None:
            suggested = suggest_model(name)
            hint = f" Did you mean '{suggested}'?" if suggested else ""
            raise ModelNotFound(
                f"There is no image model '{name[:200]}'.{hint} Send owner/name, owner/name:version, a version or "
                f"deployment:owner/name of Replicate, or one of: {', '.join(self.listed)}.",
                param="model",
            )
        return ImageModel(ref, {}, self._upscaler, repainted_colour(ref.name))

    async def inputs(self, ref: ModelRef) -> ModelInputs:
        """Return the inputs of a model; those of the built-in table if Replicate is down or slow.

        Raises ProxyError if Replicate rejects the model or the server's token.
        """
        try:
            return await self._inputs.get(ref, lambda: self._load(ref), timeout=SCHEMA_SECONDS)
        except TimeoutError:
            log.warning("schema_timed_out", model=str(ref))
        except ProxyError as error:
            if not is_outage(error):
                raise
            log.warning("schema_load_failed", model=str(ref), error=error.message, detail=error.log)
        return _built_in(ref)

    def target(self, ref: ModelRef) -> ModelRef:
        """Return the model in the form for creating predictions: only official models run without a version."""
        if ref in self._pinned:
            return ModelRef(ref.name, self._latest[ref])
        return ref

    def pin(self, rejected: ModelRef) -> ModelRef | None:
        """Pin a model that Replicate rejected without a version to its latest one, and return the new target.

        None if the target had a version, or the latest one is unknown.
        """
        if rejected.name is None or rejected.version is not None or rejected not in self._latest:
            return None
        self._pinned.add(rejected)
        return self.target(rejected)

    async def _load(self, ref: ModelRef) -> Loaded[ModelInputs]:
        """Load a schema. A version's schema never changes; a name means the latest version."""
        version, schema = await self._replicate.schema(ref)
        if version is not None:
            self._latest[ref] = version
        inputs = read_model_inputs(schema)
        if not inputs.fields:
            return Loaded(_built_in(ref), FRESH_SECONDS)
        return Loaded(inputs, FRESH_SECONDS if ref.version is None else inf)


def _built_in(ref: ModelRef) -> ModelInputs:
    return KNOWN_MODELS.get(ref.name or "", UNKNOWN_MODEL)


def _required(name: str) -> ModelRef:
    """Parse a name from the settings, which have been validated."""
    ref = parse_model(name)
    if ref is None:
        raise ValueError(f"{name!r} is not the name of a model on Replicate")
    return ref
