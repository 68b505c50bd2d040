from __future__ import annotations

from openai_dify_proxy.translate.openai.input_tokens import estimate_input_tokens
from openai_dify_proxy.translate.turn_request import (
    AnswerFormat,
    HistoryMessage,
    OutputRequest,
    Tool,
    ToolCall,
    TurnRequest,
)


def test_four_characters_are_one_token() -> None:
    assert estimate_input_tokens(TurnRequest("")) == 0
    assert estimate_input_tokens(TurnRequest("x")) == 1
    assert estimate_input_tokens(TurnRequest("x" * 8, system="y" * 4)) == 3


def test_the_history_tools_and_schema_count() -> None:
    call = HistoryMessage("assistant", "xx", (ToolCall("1", "ff", "{{{{"),))
    assert estimate_input_tokens(TurnRequest("", history=(call,)), [call]) == 4
    tools = (Tool("ffff", "dddd", b"{  }"), Tool("gggg"))
    assert estimate_input_tokens(TurnRequest("", output=OutputRequest(tools))) == 4
    for answer_format, tokens in ((AnswerFormat(b"{  }"), 1), (AnswerFormat(), 0)):
        assert estimate_input_tokens(TurnRequest("", output=OutputRequest(answer_format=answer_format))) == tokens
