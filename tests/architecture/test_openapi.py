"""The OpenAPI document describes every route, is valid, and refers to existing pages."""

from __future__ import annotations

import re
from pathlib import Path

import openapi_spec_validator
import pytest

from openai_dify_proxy.api.openapi.document import DOCS, build_document
from openai_dify_proxy.api.openapi.routes import DESCRIPTIONS
from openai_dify_proxy.app import ROUTES

ROOT = Path(__file__).parents[2]


def test_every_route_is_described() -> None:
    assert set(DESCRIPTIONS) == {f"{method} {path.replace(':path', '')}" for method, path, _ in ROUTES}, (
        "describe each route in api/openapi/routes.py"
    )


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(build_document())


@pytest.mark.parametrize("route", DESCRIPTIONS)
def test_the_page_of_a_route_exists(route: str) -> None:
    page, _, anchor = DESCRIPTIONS[route].docs.partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert anchor in {"", *anchors}


def test_every_component_is_used() -> None:
    document = build_document()
    components = {f"#/components/{kind}/{name}" for kind, named in document["components"].items() for name in named}
    references = set(re.findall(r"'(#/components/[^']+)'", str(document)))
    schemes = {f"#/components/securitySchemes/{name}" for name in document["components"]["securitySchemes"]}
    assert references == components - schemes
    assert DOCS.startswith("https://")
