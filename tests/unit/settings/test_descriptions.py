"""Types, defaults and summaries of settings as the docs and ``--help`` show them."""

from __future__ import annotations

import pytest

from openai_dify_proxy.settings import AppSettings, ImageModelSettings, Settings
from openai_dify_proxy.settings.descriptions import described_fields, details, plain, shown_default, summary, type_name


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("port", "integer from 0 to 65535", "`8223`"),
        ("workers", "integer of at least 1", "`1`"),
        ("allow_anonymous", "boolean", "`false`"),
        ("max_body_bytes", "size", "`64MB`"),
        ("connect_timeout", "duration", "`10s`"),
        ("turn_timeout", "duration", "`21m`"),
        ("conversation_ttl", "duration", "`30d`"),
        ("picture_retention", "duration", "forever"),
        ("api_keys", "list of keys", "none"),
        ("dify_api_key", "key", "–"),
        ("dify_api_url", "URL", "–"),
        ("heartbeat", "choice", "`chunk`"),
        ("input_variable", "text", "detected"),
        ("ipfs_upload_form", "list of pairs", "none"),
    ],
)
def test_type_and_default(name: str, kind: str, default: str) -> None:
    field = described_fields(Settings)[name]
    assert (type_name(field), shown_default(field)) == (kind, default)


def test_keys_of_tables() -> None:
    assert shown_default(described_fields(AppSettings)["api_key"]) == "–"
    assert shown_default(described_fields(AppSettings)["api_url"]) == "`DIFY_API_URL`"
    assert type_name(described_fields(ImageModelSettings)["upscaler"]) == "Replicate model"


def test_summary_is_the_first_paragraph_as_plain_text() -> None:
    field = described_fields(Settings)["dify_api_url"]
    assert summary(field) == "The base URL of the Dify API, such as https://api.dify.ai/v1; /v1 is optional."
    assert details(field).startswith("The base URL of the Dify API, such as `https://api.dify.ai/v1`; `/v1` is")
    assert details(field).endswith(" `serve` offers the [demo](demo.md) apps.")
    assert plain("`a` [b c](d.md#e) `f`") == "a b c f"
