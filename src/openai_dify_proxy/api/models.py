"""``GET /v1/models`` and ``GET /v1/models/{id}``: apps and image models as OpenAI models."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.headers import client_address
from openai_dify_proxy.api.services import Services, services_of
from openai_dify_proxy.errors import ModelNotAllowed, ModelNotFound, ProxyError
from openai_dify_proxy.translate.dify.app_findings import app_features, app_findings
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.models import (
    AppFinding,
    ImageHeaderSupport,
    ImageModelExtension,
    Model,
    ModelExtension,
    ModelList,
)

DESCRIBE_SECONDS = 3.0
"""How long the list waits for Dify's descriptions, which are optional."""


async def list_models(request: Request) -> Response:
    services = services_of(request)
    caller = services.authenticator.admit(request)
    if caller.dify_key is not None:
        app = services.apps.choose(caller, None)
        return json_response(ModelList(data=[await _model(request, caller, app, app.name)]))
    found = services.apps.names_for(caller)
    models = await asyncio.gather(*(_model(request, caller, app, name) for name, app in found))
    models += [_image_model(services, name) for name in services.images.models_for(caller)]
    return json_response(ModelList(data=models))


async def retrieve_model(request: Request) -> Response:
    """Return one model. An alias, or any name that the default app answers, is marked with ``dify.alias_of``."""
    name = request.path_params["model"].rstrip("/")
    if not name:  # /v1/models/ matches this route
        return await list_models(request)
    services = services_of(request)
    caller = services.authenticator.admit(request)
    if caller.dify_key is None and services.apps.names_image_model(name):
        if not services.images.allows(caller, name):
            raise ModelNotFound(f"There is no model '{name[:200]}' for your API key.", param="model")
        return json_response(await _described_image_model(services, name))
    try:
        app = services.apps.choose(caller, name)
    except ModelNotAllowed as error:
        raise ModelNotFound(error.message, param="model") from None
    model = await _model(request, caller, app, name)
    profile = services.profiles.cached(app.dify)
    if profile is not None and isinstance(model.dify, ModelExtension):
        _examine(model.dify, app, profile)
    return json_response(model)


async def _model(request: Request, caller: Caller, app: App, name: str) -> Model:
    """Return the app as a model. Raises ProxyError if Dify rejects the key that the request brought.

    A configured app is listed even if Dify does not describe it.
    """
    services = services_of(request)
    profile = services.profiles.cached(app.dify)
    if profile is None:
        try:
            async with asyncio.timeout(DESCRIBE_SECONDS):
                profile = await services.profiles.get(app.dify, app.mode, client_address(request))
        except TimeoutError:
            profile = None
        except ProxyError:
            if caller.dify_key is not None:
                raise
    alias_of = app.name if caller.dify_key is None and name != app.name else None
    return Model(id=name, created=services.started, owned_by="dify", dify=_describe(app, profile, alias_of))


def _examine(described: ModelExtension, app: App, profile: AppProfile) -> None:
    described.version = profile.version
    described.features = list(app_features(profile))
    findings = app_findings(app.rules, app.mode, profile)
    described.findings = [AppFinding(finding.kind, finding.text) for finding in findings]


def _image_model(services: Services, name: str) -> Model:
    owner: Literal["dify", "replicate"] = "dify" if name in services.images.app_models else "replicate"
    return Model(id=name, created=services.started, owned_by=owner, type="image")


async def _described_image_model(services: Services, name: str) -> Model:
    """Return an image model with the effect of each header on it, unless Replicate does not describe it in time."""
    described = _image_model(services, name)
    if services.images.generator is None:
        return described
    try:
        async with asyncio.timeout(DESCRIBE_SECONDS):
            model, rows = await services.images.generator.describe(name)
    except (ProxyError, TimeoutError):
        return described
    headers = [msgspec.convert(row, ImageHeaderSupport, from_attributes=True) for row in rows]
    described.replicate = ImageModelExtension(str(model.ref), headers)
    return described


def _describe(app: App, profile: AppProfile | None, alias_of: str | None) -> ModelExtension | UnsetType:
    if profile is None:
        return UNSET if alias_of is None else ModelExtension(alias_of=alias_of)
    info, parameters = profile.info, profile.parameters
    inputs: list[dict[str, object]] = [
        {
            "name": field.name,
            "kind": field.kind,
            "label": field.label,
            "required": field.required,
            "options": list(field.options) or None,
            "default": field.default,
        }
        for field in profile.form
    ]
    return ModelExtension(
        info.name,
        info.description,
        info.mode or app.mode,
        info.tags,
        info.author_name,
        inputs or None,
        parameters.opening_statement or None,
        parameters.suggested_questions or None,
        list(app.aliases) or None,
        alias_of,
    )
