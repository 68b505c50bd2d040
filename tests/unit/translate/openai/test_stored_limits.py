"""The limits of stored conversations and responses."""

from __future__ import annotations

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.conversation_items import MAX_ITEM_TEXT, MAX_ITEMS_TEXT, check_items
from openai_dify_proxy.translate.openai.responses_request import MAX_STORED_BODY, check_storable
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.openai.responses import ResponsesRequest

LONGEST = HistoryMessage("user", "x" * MAX_ITEM_TEXT)


@pytest.mark.parametrize("items", [[], [LONGEST], [LONGEST] * (MAX_ITEMS_TEXT // MAX_ITEM_TEXT)])
def test_items_within_the_limits(items: list[HistoryMessage]) -> None:
    check_items(items)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([HistoryMessage("user", "x" * (MAX_ITEM_TEXT + 1))], "more than 1048576 characters"),
        ([LONGEST] * 9, "more than 8388608 characters in all"),
    ],
)
def test_items_beyond_the_limits(items: list[HistoryMessage], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        check_items(items)
    assert (caught.value.param, caught.value.code) == ("items", "string_above_max_length")


@pytest.mark.parametrize(("store", "size"), [(None, MAX_STORED_BODY), (True, 1), (False, MAX_STORED_BODY + 1)])
def test_requests_whose_response_may_be_stored(store: bool | None, size: int) -> None:
    check_storable(ResponsesRequest(store=store), size)


@pytest.mark.parametrize("store", [None, True])
def test_a_request_that_is_too_large_to_store_its_response(store: bool | None) -> None:
    with pytest.raises(InvalidRequest, match="more than 16777216 bytes") as caught:
        check_storable(ResponsesRequest(store=store), MAX_STORED_BODY + 1)
    assert caught.value.param == "store"
