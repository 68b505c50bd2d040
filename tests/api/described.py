"""Compares answers with the description of the API in ``/openapi.json``."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

Json = dict[str, Any]
REFERENCE = "https://api.example/openapi.json"


class Described:
    """The description of the API. ``check`` records which answers it has seen."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self.seen: set[tuple[str, int, str]] = set()
        """The route, status and content type of each answer."""
        registry = jsonschema_rs.Registry([(REFERENCE, {"$schema": DRAFT, **_closed(document)})])
        self._registry = registry

    @property
    def routes(self) -> set[str]:
        """The described routes, such as ``GET /v1/models``."""
        return {f"{method.upper()} {path}" for path, methods in self.document["paths"].items() for method in methods}

    def check(self, route: str, status: int, content_type: str, body: bytes) -> None:
        """Raise AssertionError unless this is an answer that the description of ``route`` contains."""
        method, path = route.split(" ")
        answers = self.document["paths"][path][method.lower()]["responses"]
        assert str(status) in answers, f"{route} answers {status}: {body[:300]!r}"
        pointer = f"/paths/{_escaped(path)}/{method.lower()}/responses/{status}"
        answer = answers[str(status)]
        if "$ref" in answer:
            pointer = answer["$ref"].removeprefix("#")
            answer = _at(self.document, pointer)
        kind = content_type.partition(";")[0]
        self.seen.add((route, status, kind))
        if "content" not in answer:
            assert not body, route
            return
        if "*/*" in answer["content"]:
            return
        assert kind in answer["content"], f"{route} answers {kind}"
        schema = {"$schema": DRAFT, "$ref": f"{REFERENCE}#{pointer}/content/{_escaped(kind)}/schema"}
        validator = jsonschema_rs.Draft202012Validator(schema, registry=self._registry)
        for value in _values(kind, body):
            problems = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]
            assert not problems, f"{route}: {problems[:3]} in {str(value)[:500]}"


DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _values(kind: str, body: bytes) -> Iterator[Any]:
    if kind == "application/json":
        yield json.loads(body)
    elif kind == "text/event-stream":
        frames = re.findall(r"^data: (.*)$", body.decode(), re.MULTILINE)
        assert frames
        yield from (json.loads(frame) for frame in frames if frame != "[DONE]")


def _closed(document: Json) -> Json:
    """Return the document with schemas that allow described fields only, so that a check finds forgotten ones."""
    closed = copy.deepcopy(document)
    for schema in closed["components"]["schemas"].values():
        schema["additionalProperties"] = False
    return closed


def _escaped(part: str) -> str:
    """Return a part of a JSON pointer, in the form that URLs need."""
    return part.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


def _at(document: Json, pointer: str) -> Json:
    for part in pointer.strip("/").split("/"):
        document = document[part]
    return document
