"""Builds the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from openai_dify_proxy.api.openapi.operations import TEXT, AnswerDescription, Operation, Parameter
from openai_dify_proxy.api.openapi.routes import DESCRIPTIONS
from openai_dify_proxy.api.openapi.schemas import Json, components_of, reference
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.wire.openai.chat import ErrorEnvelope

DOCS = "https://github.com/OWNER/openai-dify-proxy/blob/main/docs/"

COMMON_ERRORS = (400, 405, 408, 414, 431, 500, 503)
"""The errors of HTTP itself, of a bug, and of a server that is full or shutting down."""

KEY_ERRORS = (401, 403)

_HEADERS = {
    "X-Request-Id": "The id of the request, which is in the server's log.",
    "X-Dify-Conversation-Id": "The conversation in Dify.",
    "X-Dify-Message-Id": "The message in Dify.",
    "X-Unsupported-Parameters": "Names of fields and tools that have no effect.",
    "X-Queue-Position": "The position of the turn when it entered the queue for Dify.",
    "x-ratelimit-limit-requests": "The requests per minute of the client key.",
    "x-ratelimit-limit-tokens": "The tokens per minute of the client key.",
    "x-ratelimit-remaining-requests": "The requests that are left now.",
    "x-ratelimit-remaining-tokens": "The tokens that are left now.",
    "x-ratelimit-reset-requests": "The time until all requests are left again, such as `1.5s`.",
    "x-ratelimit-reset-tokens": "The time until all tokens are left again, such as `6m0s`.",
    "Content-Location": "The link of the picture.",
    "ETag": "The version of the content.",
    "Retry-After": "Seconds until a retry may succeed.",
    "X-Should-Retry": "`false` if a retry would fail, or could be billed twice.",
}

_SCHEMES = {
    "ClientKey": {"type": "http", "scheme": "bearer", "description": "A client key of the server, or a Dify key."},
    "ApiKey": {"type": "apiKey", "in": "header", "name": "api-key", "description": "A client key of the server."},
    "DifyKey": {"type": "apiKey", "in": "header", "name": "X-Dify-Api-Key", "description": "The key of a Dify app."},
}
_CLIENT_KEYS: list[Json] = [{"ClientKey": []}, {"ApiKey": []}]
_ALL_KEYS = [*_CLIENT_KEYS, {"DifyKey": []}]
_SECURITY: dict[str, list[Json]] = {
    "client": _ALL_KEYS,
    "spender": _CLIENT_KEYS,
    "optional": [*_ALL_KEYS, {}],
    "none": [],
}

_PATH_PARAMETER = re.compile(r"{(\w+)}")


def build_document() -> Json:
    """Return the OpenAPI document of the described routes."""
    components = components_of(_types(_requests()), [*_types(_answers()), ErrorEnvelope])
    paths: dict[str, Json] = {}
    for route, operation in DESCRIPTIONS.items():
        method, path = route.split(" ")
        paths.setdefault(path, {})[method.lower()] = _operation(operation, method, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenAI Dify Proxy",
            "version": version("openai-dify-proxy"),
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "The OpenAI API for Dify apps. Every path also works without the prefix `/v1`.",
        },
        "servers": [{"url": "/"}],
        "externalDocs": {"url": f"{DOCS}api.md"},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in DESCRIPTIONS.values())],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {f"Error{status}": _error(status) for status in sorted(_error_codes())},
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
            "securitySchemes": _SCHEMES,
        },
    }


def _requests() -> Iterator[Any]:
    for operation in DESCRIPTIONS.values():
        yield from operation.body.values()


def _answers() -> Iterator[Any]:
    for operation in DESCRIPTIONS.values():
        for answer in operation.answers:
            yield from answer.content.values()


def _types(contents: Iterable[Any]) -> Iterator[Any]:
    """Yield the types among schemas; a form with files is a pair of its fields and its files."""
    for content in contents:
        if isinstance(content, tuple):
            yield content[0]
        elif not isinstance(content, dict):
            yield content


def _operation(operation: Operation, method: str, path: str) -> Json:
    names = _PATH_PARAMETER.findall(path)
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
        *map(_parameter, operation.parameters),
    ]
    statuses = {*COMMON_ERRORS, *operation.errors, *(() if operation.key == "none" else KEY_ERRORS)}
    described: Json = {
        "operationId": _operation_id(method, path),
        "summary": operation.summary,
        "tags": [operation.tag],
        "externalDocs": {"url": DOCS + operation.docs},
        "parameters": parameters,
        "responses": {
            **{str(answer.status): _answer(answer) for answer in operation.answers},
            **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(statuses)},
        },
        "security": _SECURITY[operation.key],
    }
    if operation.body:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {media: {"schema": _content(kind)} for media, kind in operation.body.items()},
        }
    return described


def _operation_id(method: str, path: str) -> str:
    """Return a name for functions of generated clients, such as ``getResponsesByResponseId``."""
    words = path.removeprefix("/v1").replace("{", "by_").replace("}", "").replace(".", "_")
    return method.lower() + "".join(word.capitalize() for word in re.split(r"[/_]", words))


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": parameter.schema or TEXT,
    }


def _answer(answer: AnswerDescription) -> Json:
    described: Json = {
        "description": answer.description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *answer.headers)},
    }
    if answer.content:
        described["content"] = {media: {"schema": _content(kind)} for media, kind in answer.content.items()}
    return described


def _content(kind: Any) -> Json:
    """Return the schema of a content."""
    if isinstance(kind, dict):
        return kind
    if isinstance(kind, tuple):
        fields, files = kind
        return {"allOf": [reference(fields), {"type": "object", "properties": files, "required": list(files)}]}
    return reference(kind)


def _error(status: int) -> Json:
    codes = ", ".join(f"`{code}`" for code in sorted(_error_codes()[status]))
    return {
        "description": f"An error{f': {codes}, or another code' if codes else ''}.",
        "headers": {
            name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", "Retry-After", "X-Should-Retry")
        },
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
    }


def _error_codes() -> dict[int, set[str]]:
    """Return the default codes of the errors by their status."""
    codes: dict[int, set[str]] = {}
    for error in _subclasses(ProxyError):
        found = codes.setdefault(error.status, set())
        if error.default_code is not None:
            found.add(error.default_code)
    return codes


def _subclasses(root: type[ProxyError]) -> Iterator[type[ProxyError]]:
    for child in root.__subclasses__():
        yield child
        yield from _subclasses(child)
