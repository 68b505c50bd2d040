"""The routes of the scripted Replicate: its API, and the origin of its outputs."""

from __future__ import annotations

from starlette.responses import Response
from starlette.routing import Route

from openai_dify_proxy_demo.replicate import files, predictions
from openai_dify_proxy_demo.replicate.calls import ReplicateCall, endpoint, json_response
from openai_dify_proxy_demo.replicate.downloads import serve_output
from openai_dify_proxy_demo.replicate.errors import not_found
from openai_dify_proxy_demo.replicate.models import CREATED_AT, DEMO_DEPLOYMENTS, DemoModel, find_model


async def account(call: ReplicateCall) -> Response:
    return json_response({"type": "user", "username": "demo", "name": "Demo", "github_url": None})


async def model(call: ReplicateCall) -> Response:
    return json_response(_model(call).body())


async def version(call: ReplicateCall) -> Response:
    found = _model(call)
    if call.path["version"] != found.version:
        raise not_found()
    return json_response(found.version_body())


async def deployment(call: ReplicateCall) -> Response:
    owner, name = call.path["owner"], call.path["name"]
    model = DEMO_DEPLOYMENTS.get(f"{owner}/{name}")
    if model is None:
        raise not_found()
    release = {"number": 1, "model": model.name, "version": model.version, "created_at": CREATED_AT}
    return json_response({"owner": owner, "name": name, "current_release": release})


async def versions(call: ReplicateCall) -> Response:
    return json_response({"previous": None, "next": None, "results": [_model(call).version_body()]})


def _model(call: ReplicateCall) -> DemoModel:
    found = find_model(f"{call.path['owner']}/{call.path['name']}")
    if found is None:
        raise not_found()
    return found


API_ROUTES = [
    Route("/v1/account", endpoint(account)),
    Route("/v1/models/{owner}/{name}", endpoint(model)),
    Route("/v1/models/{owner}/{name}/versions", endpoint(versions)),
    Route("/v1/models/{owner}/{name}/versions/{version}", endpoint(version)),
    Route("/v1/models/{owner}/{name}/predictions", endpoint(predictions.create_by_model), methods=["POST"]),
    Route("/v1/deployments/{owner}/{name}", endpoint(deployment)),
    Route("/v1/deployments/{owner}/{name}/predictions", endpoint(predictions.create_by_deployment), methods=["POST"]),
    Route("/v1/predictions", endpoint(predictions.create), methods=["POST"]),
    Route("/v1/predictions/{id}", endpoint(predictions.get)),
    Route("/v1/predictions/{id}/cancel", endpoint(predictions.cancel), methods=["POST"]),
    Route("/v1/files", endpoint(files.upload), methods=["POST"]),
    Route("/v1/files/{id}", endpoint(files.get)),
    Route("/v1/files/{id}", endpoint(files.delete), methods=["DELETE"]),
    Route("/v1/files/{id}/download", endpoint(files.download)),
]

OUTPUT_ROUTES = [Route("/{path:path}", serve_output, methods=["GET", "HEAD", "POST", "PUT", "DELETE"])]
