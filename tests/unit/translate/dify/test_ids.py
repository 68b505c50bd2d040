from __future__ import annotations

import pytest

from openai_dify_proxy.events import TurnIds
from openai_dify_proxy.translate.dify.ids import NO_IDS, add_ids
from openai_dify_proxy.wire.dify import DifyEvent

UUID = "0b1d1e5e-7c1d-4d6e-9d3a-2f6b1c9d8e7f"


@pytest.mark.parametrize("invalid", ["a\r\nSet-Cookie: b", "a b", "\x00", "é", "", "x" * 129, "x" * 1_000_000])
def test_invalid_ids_count_as_absent(invalid: str) -> None:
    ids = add_ids(
        NO_IDS,
        DifyEvent("message", task_id=invalid, message_id=invalid, conversation_id=invalid, workflow_run_id=invalid),
    )
    assert ids == NO_IDS
    ids = add_ids(ids, DifyEvent("message", task_id=UUID, message_id=UUID, conversation_id="x" * 128))
    assert ids == TurnIds(UUID, UUID, "x" * 128)
