"""For bodies that are not JSON, the message names the reason and the position and quotes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.api.bodies import read_json
from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import unreadable_request

DECODER = json.Decoder(dict[str, Any])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is empty. Send a JSON object."),
        (b" \n ", "is empty. Send a JSON object."),
        (b'{"a": 1', "is not valid JSON: it ends in the middle of a value, after 7 bytes."),
        (b'{"a": 1,}', "is not valid JSON: trailing comma in object near line 1, column 9."),
        (b"model=secret", "is not valid JSON: invalid character near line 1, column 1."),
        (b'{\n  "a": 1,\n  b: 2}', "is not valid JSON: object keys must be strings near line 3, column 3."),
        (b'{"a": 1} x', "is not valid JSON: trailing characters near line 1, column 11."),
        (b'{"a": "cut \\ud83d"}', "is not valid JSON: unpaired surrogate at line 1, column 12."),
        (b'{"a": "\\ud83d\\ude00', "is not valid JSON: it ends in the middle of a value, after 19 bytes."),
        (b'{"a":\n "b\xff"}', "is not valid UTF-8: invalid bytes at line 2, column 4."),
        (b'{"a":' * 100_000, "has more than 500 levels of nested arrays and objects. Send fewer."),
    ],
    ids=range(11),
)
def test_message_for_a_body_that_is_not_json(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as rejected:
        read_json(body, DECODER)
    assert rejected.value.message == f"The request body {message}"
    assert rejected.value.param is None


def test_message_for_a_body_that_the_decoder_finds_too_deep() -> None:
    error = unreadable_request(RecursionError(), b"[]", dict)
    assert error.message == "The request body is nested too deeply."
