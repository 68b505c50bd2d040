"""``GET /v1/models`` and ``GET /v1/models/{id}``: the apps as OpenAI models."""

from __future__ import annotations

import asyncio

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.services import Services, services_of
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.models import Model, ModelExtension, ModelList

DESCRIBE_SECONDS = 3.0
"""How long the list waits for Dify's descriptions, which are only an extra."""


async def list_models(request: Request) -> Response:
    services = services_of(request)
    caller = services.authenticator.admit(request)
    apps = [services.apps.choose(caller, None)] if caller.dify_key is not None else list(services.apps.all.values())
    models = await asyncio.gather(*(_model(services, caller, app, None) for app in apps))
    if caller.dify_key is None:
        models += [_image_model(services, name) for name in services.images.models]
    return json_response(ModelList(data=models))


async def retrieve_model(request: Request) -> Response:
    services = services_of(request)
    caller = services.authenticator.admit(request)
    name = request.path_params["model"]
    if caller.dify_key is None and name in services.images.models:
        return json_response(_image_model(services, name))
    return json_response(await _model(services, caller, services.apps.choose(caller, name), name))


async def _model(services: Services, caller: Caller, app: App, name: str | None) -> Model:
    """A request's own Dify key is tried here, so that a wrong one is told; a configured app is listed in any case."""
    profile = services.profiles.cached(app.dify)
    if profile is None:
        try:
            async with asyncio.timeout(DESCRIBE_SECONDS):
                profile = await services.profiles.get(app.dify, app.mode)
        except TimeoutError:
            profile = None
        except ProxyError:
            if caller.dify_key is not None:
                raise
    return Model(id=name or app.name, created=services.started, owned_by="dify", dify=_describe(app, profile))


def _image_model(services: Services, name: str) -> Model:
    return Model(id=name, created=services.started, owned_by="replicate")


def _describe(app: App, profile: AppProfile | None) -> ModelExtension | UnsetType:
    if profile is None:
        return UNSET
    info = profile.info
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
        list(app.aliases) or None,
    )
