from __future__ import annotations

import json

from openai_dify_proxy.errors import InvalidRequest, QuotaExceeded
from openai_dify_proxy.translate.openai.errors import encode_error, encode_error_frame


def test_the_envelope_always_has_four_keys() -> None:
    assert json.loads(encode_error(InvalidRequest("No.", param="messages", code="empty"))) == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": "messages", "code": "empty"}
    }
    assert json.loads(encode_error(InvalidRequest("No."))) == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}
    }


def test_messages_for_the_operator_are_excluded() -> None:
    assert b"hush" not in encode_error(InvalidRequest("No.", log="hush"))


def test_a_frame_is_one_line_of_data() -> None:
    assert encode_error_frame(QuotaExceeded("a\nb")) == (
        b'data: {"error":{"message":"a\\nb","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}\n\n'
    )
