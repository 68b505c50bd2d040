from __future__ import annotations

import pytest

from openai_dify_proxy.translate.replicate.model_names import ModelRef, is_openai_name, parse_model

HASH = "7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc"

NAMED = {
    "stability-ai/sdxl": ModelRef("stability-ai/sdxl"),
    "black-forest-labs/flux-1.1-pro": ModelRef("black-forest-labs/flux-1.1-pro"),
    f"stability-ai/sdxl:{HASH}": ModelRef("stability-ai/sdxl", HASH),
    HASH: ModelRef(version=HASH),
    "deployment:demo/schnell": ModelRef(deployment="demo/schnell"),
}
NOT_NAMED = (
    *("", "/", "sdxl", "owner/", "/name", "a/b/c", "a b/c", "../x", "a/..", "a/b?c", "a/b#c", "ä/b", "a/b\n"),
    *("owner/name:", "owner/name:latest", f"owner/name:{HASH[1:]}", f"owner/name:{HASH.upper()}", HASH[1:], f":{HASH}"),
    *("deployment:", "deployment:name", f"deployment:{HASH}", f"deployment:a/b:{HASH}", "Deployment:a/b"),
)


@pytest.mark.parametrize("text", NAMED)
def test_forms_of_a_name(text: str) -> None:
    ref = parse_model(text)
    assert ref == NAMED[text]
    assert str(ref) == text


@pytest.mark.parametrize("text", NOT_NAMED)
def test_invalid_names(text: str) -> None:
    assert parse_model(text) is None


def test_names_that_clients_hard_code() -> None:
    ours = ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "chatgpt-image-latest"]
    assert [
        name for name in [*ours, "dall-e", "gpt-4o", "my-gpt-image-1", "owner/gpt-image-1"] if is_openai_name(name)
    ] == ours
