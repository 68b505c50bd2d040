"""The checks of the soak find what they look for. The soak itself runs by hand: ``scripts/soak``."""

from __future__ import annotations

import io
import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from bench.client import Answer
from soak.answers import Failed, Wrong, chat_stream, envelope, failed_response, response_stream, text_of_chat
from soak.clients import SHARES, Failure, Outcomes, kinds
from soak.cluster import BUDGET
from soak.faults import SPENDERS, Faults, Phase
from soak.questions import Question, picture, questions_in
from soak.report import Result, Samples, plots, table
from soak.upstreams import Report

QUESTION = Question("c1-1", events=3, gap=10)


def answer(body: bytes, status: int = 200) -> Answer:
    return Answer(asked_at=0.0, status=status, parts=[body])


def chat(*pieces: str, finish: str | None = "stop", done: bool = True) -> Answer:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    chunks.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    frames = [json.dumps(chunk) for chunk in chunks] + (["[DONE]"] if done else [])
    return answer("".join(f"data: {frame}\n\n" for frame in frames).encode())


def test_questions_are_found_in_any_text() -> None:
    other = Question("c22-3", events=10, gap=1000, fault="cut")
    assert questions_in(f"User: {QUESTION.text}\nAssistant: no\n{other.text} TOOL lookup") == [QUESTION, other]
    assert questions_in("SOAK") == []


def test_answers_of_two_questions_share_no_piece() -> None:
    assert not set(QUESTION.pieces) & set(Question("c1-2", events=3, gap=10).pieces)


def test_pictures_are_valid_and_different() -> None:
    with Image.open(io.BytesIO(picture("c1-1"))) as opened:
        opened.load()
        assert (opened.format, opened.size) == ("PNG", (16, 16))
    assert picture("c1-1") != picture("c1-2")


def test_a_complete_stream_has_its_text() -> None:
    assert chat_stream(chat(*QUESTION.pieces)) == QUESTION.answer


def test_a_stream_without_its_end_is_cut() -> None:
    with pytest.raises(Failed, match="stream_cut"):
        chat_stream(chat(*QUESTION.pieces, done=False))


@pytest.mark.parametrize("finish", [None, "length"])
def test_a_stream_that_claims_success_without_stop_is_wrong(finish: str | None) -> None:
    with pytest.raises(Wrong, match="finish reason"):
        chat_stream(chat(*QUESTION.pieces, finish=finish))


def test_errors_in_streams_are_failures() -> None:
    error = {"error": {"message": "…", "type": "api_error", "param": None, "code": "upstream_incomplete"}}
    body = b'data: {"choices":[]}\n\ndata: ' + json.dumps(error, separators=(",", ":")).encode() + b"\n\n"
    with pytest.raises(Failed, match="upstream_incomplete"):
        chat_stream(answer(body))


def test_responses_need_their_terminal_event() -> None:
    item = {"type": "message", "content": [{"text": "Hi"}]}
    done = {"type": "response.completed", "response": {"output": [{"type": "reasoning"}, item]}}
    assert response_stream(answer(f"data: {json.dumps(done)}\n\ndata: [DONE]\n\n".encode())) == "Hi"
    with pytest.raises(Failed, match="stream_cut"):
        response_stream(answer(b'data: {"type":"response.output_text.delta"}\n\n'))
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error"}}}
    with pytest.raises(Failed, match="server_error"):
        response_stream(answer(f"data: {json.dumps(failed)}\n\n".encode()))


def test_failures_of_background_responses_are_told_apart() -> None:
    def code(error: dict[str, str] | None) -> str:
        return failed_response({"status": "cancelled", "error": error}).code

    assert (
        code({"code": "server_error", "message": "The server process that ran the response has died."}) == "worker_died"
    )
    assert code({"code": "server_error", "message": "The run failed."}) == "server_error"
    assert code(None) == "cancelled"


def test_an_error_needs_an_envelope() -> None:
    with pytest.raises(Failed, match="balancer_502"):
        raise envelope(answer(b"<h1>502</h1><hr>nginx", 502))
    with pytest.raises(Wrong):
        envelope(answer(b"Internal Server Error", 500))
    with pytest.raises(Failed, match="queue_full"):
        text_of_chat(answer(b'{"error":{"code":"queue_full","type":"rate_limit_error"}}', 429))


def test_there_is_a_client_of_every_kind() -> None:
    assert set(kinds(len(SHARES))) == set(SHARES)
    many = kinds(2000)
    assert many.count("chat") > 1000
    assert len(many) == 2000


def result(**counted: Any) -> Result:
    outcomes: dict[str, Any] = {"verified": {"chat": 2}, "first_text": [(101.0, 0.5), (102.5, 0.7)]}
    upstream: dict[str, Any] = {"runs": {"c1-1": 1}, "crossed": [], "over_admitted": [], "peak": 2}
    for name in ("failures", "lost", "crossed", "wrong"):
        outcomes[name] = counted.get(name, [])
    upstream |= {name: counted[name] for name in ("runs", "over_admitted") if name in counted}
    faults = Faults(cluster=None, seconds=10, small_disk=True)  # type: ignore[arg-type] # nothing runs
    faults.phases = [Phase("calm", 100.0, 104.0), Phase("reload", 104.0, 106.0), Phase("disk full", 106.0, 107.0, "no")]
    faults.revoked_answers = counted.get("revoked_answers", [401])
    faults.budget_answers = counted.get("budget_answers", [200] * (BUDGET + SPENDERS) + [429])
    samples = Samples([100.0, 101.0], [2**20, 2**21])
    return Result(Outcomes(**outcomes), Report(**upstream), faults, samples, limit=2, grace=40, seconds=10)


def broken(at: float, code: str = "connection_lost", *, seconds: float = 39.0, asked_for: bool = False) -> Failure:
    return Failure(at, seconds, "chat", code, asked_for)


@pytest.mark.parametrize(
    ("counted", "figure"),
    [
        ({"lost": ["x"]}, "lost"),
        ({"runs": {"c1-1": 2}}, "doubled"),
        ({"crossed": ["x"]}, "crossed"),
        ({"wrong": ["x"]}, "wrongly successful"),
        ({"revoked_answers": [401, 200]}, "wrongly successful"),
        ({"over_admitted": [105.0]}, "over-admitted"),
        ({"budget_answers": [200] * (BUDGET + SPENDERS + 1) + [429]}, "over-budget"),
        ({"failures": [broken(105.0)]}, "broken by a reload or roll"),
    ],
)
def test_a_violation_is_counted(counted: dict[str, Any], figure: str) -> None:
    assert {name: count for name, count in result(**counted).counters.items() if count} == {figure: 1}
    assert figure in table(result(**counted))


def test_honest_failures_are_no_violation() -> None:
    failures = [broken(103.0), broken(105.0, asked_for=True), broken(105.0, "upstream_unreachable")]
    failures.append(broken(105.0, "shutting_down", seconds=41.0))
    assert not any(result(failures=failures).counters.values())
    assert "calm: connection_lost" in table(result(failures=failures))


def test_the_plots_are_svg() -> None:
    drawn = ET.fromstring(plots(result(failures=[broken(103.0)])))
    names = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "reload" in names
    assert "disk full" not in names
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 4
