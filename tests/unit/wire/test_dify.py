from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from openai_dify_proxy.wire import dify
from openai_dify_proxy.wire.dify import DifyEvent, GenerateRequest, encode_generate_request
from openai_dify_proxy.wire.reading import UNREADABLE

RECORDINGS = Path(__file__).parents[2] / "recordings"

DATA: dict[str, Callable[[bytes], Any]] = {
    "text_chunk": dify.TEXT_CHUNK.decode,
    "reasoning_chunk": dify.REASONING_CHUNK.decode,
    "node_started": dify.NODE.decode,
    "node_finished": dify.NODE.decode,
    "node_retry": dify.NODE.decode,
    "agent_log": dify.AGENT_LOG.decode,
    "workflow_finished": dify.WORKFLOW_FINISHED.decode,
    "workflow_paused": dify.WORKFLOW_PAUSED.decode,
}
OUTPUTS: dict[str | None, Callable[[bytes], Any]] = {
    "llm": dify.LLM_OUTPUTS.decode,
    "knowledge-retrieval": dify.RETRIEVAL_OUTPUTS.decode,
}


def body_of(recording: Path) -> bytes:
    return recording.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[2]


def recorded(pattern: str) -> list[Path]:
    return sorted(RECORDINGS.glob(f"dify-*/{pattern}.response.txt"))


def read_event(payload: bytes) -> DifyEvent:
    """Decode every part of an event that the proxy may read."""
    event = dify.EVENT.decode(payload)
    if event.event in DATA:
        data = DATA[event.event](event.data)
        if isinstance(data, dify.NodeData) and data.outputs and data.node_type in OUTPUTS:
            OUTPUTS[data.node_type](data.outputs)
    if event.metadata:
        dify.MESSAGE_END_METADATA.decode(event.metadata)
    if event.files:
        dify.FILES.decode(event.files)
    return event


@pytest.mark.parametrize("version", sorted({path.parent.name for path in RECORDINGS.glob("dify-*/chat-*")}))
def test_every_recorded_event_can_be_decoded(version: str) -> None:
    read = 0
    for recording in sorted((RECORDINGS / version).glob("*.response.txt")):
        for line in body_of(recording).split(b"\n"):
            if not line.startswith(b"data: {"):
                continue
            try:
                whole = json.decode(line[6:])
            except ValueError:  # the recording ends inside this event
                continue
            if "event" in whole:
                event = read_event(line[6:])
                assert event.event == whole["event"], recording.name
                assert event.answer == whole.get("answer"), recording.name
                read += 1
    assert read > 100


def test_every_recorded_refusal_can_be_decoded() -> None:
    for recording in recorded("*"):
        head, body = recording.read_bytes().partition(b"\n")[0], body_of(recording)
        if b" 4" in head and body.startswith(b"{"):
            whole, error = json.decode(body), dify.ERROR_BODY.decode(body)
            assert (error.code, error.message, error.status) == tuple(map(whole.get, ("code", "message", "status")))


def test_every_recorded_description_of_an_app_can_be_decoded() -> None:
    infos = [dify.APP_INFO.decode(body_of(path)) for path in recorded("*info*") if b'"mode"' in body_of(path)]
    assert infos
    assert all(info.mode for info in infos)
    forms = [path for path in recorded("*") if body_of(path).startswith(b'{"opening_statement"')]
    assert forms
    for path in forms:
        whole = json.decode(body_of(path))
        parameters = dify.APP_PARAMETERS.decode(body_of(path))
        assert [list(item) for item in parameters.user_input_form] == [list(item) for item in whole["user_input_form"]]


BARE: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "event": (dify.EVENT.decode, b"{}"),
    "node": (dify.NODE.decode, b"{}"),
    "end of a run": (dify.WORKFLOW_FINISHED.decode, b'{"outputs":null,"files":null,"error":null}'),
    "metadata": (dify.MESSAGE_END_METADATA.decode, b'{"usage":null,"retriever_resources":null}'),
    "no metadata": (dify.MESSAGE_END_METADATA.decode, b"null"),
    "no outputs": (dify.LLM_OUTPUTS.decode, b"null"),
    "no results": (dify.RETRIEVAL_OUTPUTS.decode, b"null"),
    "no files": (dify.FILES.decode, b"null"),
    "refusal without a status": (dify.ERROR_BODY.decode, b'{"message":"Internal Server Error","code":"unknown"}'),
    "info of an old version": (dify.APP_INFO.decode, b'{"name":"old","description":"","tags":[]}'),
    "parameters": (dify.APP_PARAMETERS.decode, b"{}"),
}


@pytest.mark.parametrize(("decode", "body"), BARE.values(), ids=BARE)
def test_nearly_all_fields_are_optional(decode: Callable[[bytes], Any], body: bytes) -> None:
    decode(body)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"event":1}', b'{"event":"\xff"}', b'{"x":' + b"[" * 5000])
def test_other_bytes_raise_the_documented_error(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        dify.EVENT.decode(body)


def test_a_request_omits_unset_fields() -> None:
    assert json.decode(encode_generate_request(GenerateRequest({"a": 1}, "u"))) == {
        "inputs": {"a": 1},
        "user": "u",
        "response_mode": "streaming",
    }


@given(st.lists(st.text(st.sampled_from('"\\\\\n,\u2028\u00e9\U0001f600a') | st.characters(codec="utf-8"), max_size=5)))
def test_a_query_is_encoded_in_parts(parts: list[str]) -> None:
    request = GenerateRequest({}, "u", query=iter(parts), conversation_id="c")
    assert json.decode(encode_generate_request(request)) == {
        "inputs": {},
        "user": "u",
        "response_mode": "streaming",
        "query": "".join(parts),
        "conversation_id": "c",
    }
