"""Streams that a hostile Dify sends to make the proxy work or remember too much.

At the sizes here, quadratic work would take hours. No test measures time.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import Event, FileProduced, TextDelta, TextReplaced, TurnFailed, TurnFinished, TurnIds
from openai_dify_proxy.translate.dify.answer_text import MAX_RESTATED_TEXT
from openai_dify_proxy.translate.dify.attachments import MAX_LINK_SEARCHES
from openai_dify_proxy.translate.dify.dedupe import MAX_COMPARED_ANSWERS
from openai_dify_proxy.translate.dify.event_decoder import MAX_ANSWER_CHARACTERS, DifyEventDecoder
from openai_dify_proxy.translate.dify.sse import FrameSplitter
from openai_dify_proxy.translate.openai.chat_answers import AnswerHead
from openai_dify_proxy.translate.openai.chat_streams import ChatStreamEncoder
from openai_dify_proxy.translate.think import MAX_BLOCKS
from tests.dify_streams import agent_message, message, message_end, node, stream, workflow_finished

MIB = 1 << 20

pytestmark = pytest.mark.timeout(120)


def failure(events: list[Event]) -> ProxyError:
    (failed,) = [event for event in events if isinstance(event, TurnFailed)]
    return failed.error


@pytest.mark.parametrize("line", [b"data: 0123456789\n", b"data: 0123456789\r\n", b"\r", b"x"], ids=repr)
def test_an_event_that_arrives_in_very_many_reads(line: bytes) -> None:
    splitter = FrameSplitter(32 * MIB)
    for _ in range(500_000):
        assert splitter.feed(line) == []
    assert not splitter.too_large


def test_an_event_in_small_reads_takes_little_more_memory_than_its_bytes() -> None:
    splitter = FrameSplitter(32 * MIB)
    tracemalloc.start()
    try:
        for number in range(100_000):
            splitter.feed(b"data:%5d" % number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1_000_000


def test_a_node_that_is_retried_very_often() -> None:
    """One megabyte in small pieces, then a hundred thousand retries, some of which repeat its beginning."""
    decoder = DifyEventDecoder("advanced-chat")
    decoder.feed(stream(message("x" * 1000, "llm")) * 1000)
    retries = stream(node("node_retry", "llm"), message("x", "llm")) * 100
    for _ in range(500):
        assert decoder.feed(retries) == []
    decoder.feed(stream(message("x" * 1000, "llm")) * 1000)
    assert decoder.feed(stream(message_end(), workflow_finished())) == [TurnFinished("stop")]


def test_a_retry_in_very_small_pieces() -> None:
    decoder = DifyEventDecoder("advanced-chat")
    decoder.feed(stream(message("x" * 2 * MIB, "llm"), node("node_retry", "llm")))
    piece = stream(message("xx", "llm")) * 1000
    for _ in range(200):
        assert decoder.feed(piece) == []


def test_retries_that_repeat_a_long_text_end_the_turn() -> None:
    """Each one restarts the client's answer, with all of the text."""
    decoder = DifyEventDecoder("advanced-chat")
    events = decoder.feed(stream(message("x" * MIB)))

    def retries() -> Iterator[Event]:
        for number in range(1000):
            yield from decoder.feed(
                stream(message("a", str(number)), node("node_retry", str(number)), message("b", str(number)))
            )

    events += retries()
    assert "cannot be read" in failure(events).message
    restated = sum(len(event.text) for event in events if isinstance(event, TextReplaced))
    assert restated <= MAX_RESTATED_TEXT
    assert restated > MAX_RESTATED_TEXT - 2 * MIB


def test_an_agent_that_closes_its_answer_very_often() -> None:
    decoder = DifyEventDecoder("agent")
    decoder.feed(stream(agent_message("x" * 100)) * 50_000)
    closings = stream(message("y")) * 1000
    repeated = MAX_COMPARED_ANSWERS - 1
    new = "".join(event.text for _ in range(100) for event in decoder.feed(closings) if isinstance(event, TextDelta))
    assert len(new) == 100_000 - repeated


def test_very_many_files_beside_a_long_text() -> None:
    count = 20_000
    decoder = DifyEventDecoder("advanced-chat")
    files = [{"url": f"/files/{number}", "type": "image", "transfer_method": "tool_file"} for number in range(count)]
    events = decoder.feed(
        stream(message("/file " * 200_000 + "/files/7 "), message_end(files=files), workflow_finished())
    )
    linked = [event.linked for event in events if isinstance(event, FileProduced)]
    assert (len(linked), linked.index(True), sum(linked)) == (count, 7, 1)
    assert count > MAX_LINK_SEARCHES
    encoder = ChatStreamEncoder(AnswerHead("chatcmpl-1", 0, "m"), include_usage=False)
    assert encoder.encode(events, TurnIds()).count(b"[image](/files/") == count - 1


@pytest.mark.parametrize("unit", ["<think>a</think>", "a<think>b</think>", "<think>a</think>\n"])
def test_an_event_with_very_many_blocks_of_reasoning(unit: str) -> None:
    decoder = DifyEventDecoder("advanced-chat")
    events = decoder.feed(stream(message(unit * 300_000)))
    assert len(events) <= 2 * MAX_BLOCKS + 2


def test_an_event_with_very_many_values_is_not_decoded() -> None:
    decoder = DifyEventDecoder("workflow")
    outputs = (
        b'{"event":"workflow_finished","data":{"status":"succeeded","outputs":{"a":[' + b"{}," * 300_000 + b"{}]}}}"
    )
    assert decoder.feed(stream({"event": "text_chunk", "data": {"text": "Hel"}})) == [TextDelta("Hel")]
    assert "cannot be read" in failure(decoder.feed(b"data: " + outputs + b"\n\n")).message


def test_an_endless_answer_ends_at_its_limit() -> None:
    decoder = DifyEventDecoder("chat")
    event = stream(message("x" * MIB))
    reads = 0
    events: list[Event] = []
    while not decoder.ended and reads < 100:
        events = decoder.feed(event)
        reads += 1
    assert reads == MAX_ANSWER_CHARACTERS // MIB + 1
    assert "16777216 characters" in failure(events).message
