"""Quote foreign text in the proxy's messages."""

from __future__ import annotations

import pytest

from openai_dify_proxy.translate.sentences import as_sentence, with_detail

SENTENCES = {
    "Access token is invalid": "Access token is invalid.",
    " Access token is invalid.\n": "Access token is invalid.",
    "Really?": "Really?",
    "cut off…": "cut off…",
    "令牌无效。": "令牌无效。",
    'He said "no."': 'He said "no."',
    "one of ['a', 'b']": "one of ['a', 'b'].",
    "- input.steps:": "- input.steps.",
    "": "",
    "  ": "",
}


@pytest.mark.parametrize(("text", "sentence"), SENTENCES.items())
def test_foreign_text_ends_like_a_sentence(text: str, sentence: str) -> None:
    assert as_sentence(text) == sentence


def test_a_detail_is_optional() -> None:
    assert with_detail("Dify failed", "no reason given") == "Dify failed: no reason given."
    assert with_detail("Dify failed", " ") == "Dify failed."
