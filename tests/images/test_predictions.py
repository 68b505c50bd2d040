"""The life of a prediction: waiting, cancelling, and never paying twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from openai_dify_proxy.errors import (
    ContentBlocked,
    InvalidRequest,
    ProxyError,
    QuotaExceeded,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
)
from openai_dify_proxy.images.predictions import Predictions
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.upstream.replicate import ReplicateClient
from openai_dify_proxy.wire.replicate import Prediction
from openai_dify_proxy_demo.replicate import DemoReplicate, ReplicateTiming
from tests.limits import PATIENCE
from tests.upstream.raw_server import Answer, RawServer, Request, by_path, in_turn, raw, raw_server, reply

SCHNELL = ModelRef("black-forest-labs/flux-schnell")
BRISK = ReplicateTiming(start=0.0, run=0.0, settle=0.0, second=0.2)
"""`Prefer: wait` and `Cancel-After` run five times as fast: a creation is answered after a second."""


@pytest.fixture(scope="module")
def shared_demo() -> Iterator[DemoReplicate]:
    with DemoReplicate(timing=BRISK, faults=True) as running:
        yield running


@pytest.fixture
def demo(shared_demo: DemoReplicate) -> Iterator[DemoReplicate]:
    """Return an empty demo; fail if requests or predictions are still running after the test."""
    shared_demo.log.clear()
    yield shared_demo
    shared_demo.log.wait(lambda log: log.open_requests == 0)
    assert not shared_demo.log.leaked_tokens


@asynccontextmanager
async def predicting(
    url: str, token: str = "r8_demo", *, max_throttle: float = 30.0, close: float = 10.0
) -> AsyncIterator[Predictions]:
    client = ReplicateClient(url, token, connect_timeout=PATIENCE)
    predictions = Predictions(client, first_poll=0.05, max_throttle=max_throttle)
    try:
        yield predictions
    finally:
        await predictions.close(close)
        await client.close()


@asynccontextmanager
async def scripted_predictions(
    answer: Answer, *, max_throttle: float = 30.0, close: float = 10.0
) -> AsyncIterator[tuple[RawServer, Predictions]]:
    """Start a Replicate with scripted answers; yield it and predictions on it."""
    async with (
        raw_server(answer) as server,
        predicting(f"{server.origin}/v1", max_throttle=max_throttle, close=close) as predictions,
    ):
        yield server, predictions


@pytest.fixture
async def predictions(demo: DemoReplicate) -> AsyncIterator[Predictions]:
    async with predicting(demo.url, demo.token) as running:
        yield running


async def run(predictions: Predictions, prompt: str, seconds: float = 60, **inputs: object) -> Prediction:
    return await predictions.run(SCHNELL, {"prompt": prompt, **inputs}, seconds=seconds)


async def until(demo: DemoReplicate, creations: int) -> None:
    await asyncio.to_thread(demo.log.wait, lambda log: log.creations() >= creations)


# --- Running to the end


@pytest.mark.parametrize(
    "words", ["", "SETTLED", "SLOW:1.2", "COLD:1.2", "POLLCRASH:2", "BADPOLL:1", "HOLD:0.3", "OBJECT", "PARTIAL"]
)
async def test_a_prediction_is_followed_to_its_end(demo: DemoReplicate, predictions: Predictions, words: str) -> None:
    prediction = await run(predictions, f"a fox {words}")
    assert prediction.status == "succeeded"
    assert demo.output_origin in str(prediction.output), "early answers contain files, later ones link to them"
    assert demo.log.creations() == demo.log.attempts() == 1
    assert not demo.log.cancels
    assert demo.log.predictions[0].cancel_after == "70s", "a little after the proxy's own limit"


async def test_early_outputs_are_reported(demo: DemoReplicate, predictions: Predictions) -> None:
    """They are reported one by one, each once."""
    seen: list[list[str]] = []

    async def progress(urls: list[str]) -> None:
        seen.append(urls)

    inputs = {"prompt": "PARTIAL SLOW:0.2", "num_outputs": 3}
    prediction = await predictions.run(SCHNELL, inputs, seconds=60, progress=progress)
    assert len(prediction.output) == 3
    counts = [len(urls) for urls in seen]
    assert counts[0] == 1
    assert counts == sorted(set(counts))
    assert demo.log.creations() == 1


async def test_early_outputs_come_as_data_uris_with_the_creation_and_as_links_in_polls() -> None:
    seen: list[list[str]] = []

    async def progress(urls: list[str]) -> None:
        seen.append(urls)

    first, link, last = (
        "data:image/webp;base64,AAAA",
        "https://replicate.delivery/1.webp",
        "https://replicate.delivery/2.webp",
    )
    created = reply(201, {"id": "p1", "status": "processing", "output": [first]})
    polls = in_turn(
        reply(200, {"id": "p1", "status": "processing", "output": [link, last]}),
        reply(200, {"id": "p1", "status": "succeeded", "output": [link, last]}),
    )
    async with scripted_predictions(by_path({"POST /v1/predictions": created, "/v1/predictions/p1": polls})) as (
        _,
        predictions,
    ):
        await predictions.run(SCHNELL, {"prompt": "a fox"}, seconds=60, progress=progress)
    assert seen == [[first], [link, last]]


async def test_an_error_with_an_early_output_ends_the_prediction(demo: DemoReplicate, predictions: Predictions) -> None:
    async def progress(urls: list[str]) -> None:
        raise UpstreamFailed("no picture")

    with pytest.raises(UpstreamFailed, match="no picture"):
        await predictions.run(SCHNELL, {"prompt": "PARTIAL", "num_outputs": 4}, seconds=60, progress=progress)
    await predictions.close(10)
    assert len(demo.log.cancels) <= 1, "the prediction may have ended meanwhile"
    assert demo.log.creations() == 1


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("ABORT", UpstreamTimeout, "prediction_canceled: The prediction was cancelled before it returned a picture"),
        ("CANCELED", UpstreamTimeout, "prediction_canceled: The prediction was cancelled before it returned a picture"),
        ("FAIL", UpstreamFailed, "prediction_failed: The model failed: CUDA out of memory"),
        ("FAIL:PA", UpstreamFailed, "prediction_failed: The model failed: Prediction interrupted"),
        ("FAIL SLOW:1.2", UpstreamFailed, "prediction_failed: The model failed: CUDA out of memory"),
        ("NSFW", ContentBlocked, "content_policy_violation: The model rejected the request: NSFW"),
        ("NSFW:all", ContentBlocked, "content_policy_violation: The model rejected the request: All generated images"),
        (
            "NSFW:E005",
            ContentBlocked,
            "content_policy_violation: The model rejected the request: The input or output was flagged",
        ),
        ("NULL", UpstreamFailed, "no_picture: "),
        ("EMPTY", UpstreamFailed, "no_picture: "),
    ],
)
async def test_predictions_that_end_without_a_picture(
    demo: DemoReplicate, predictions: Predictions, words: str, error: type[ProxyError], message: str
) -> None:
    with pytest.raises(error) as caught:
        await run(predictions, f"a fox {words}")
    assert message in f"{caught.value.code}: {caught.value.message}"
    assert caught.value.started, "the prediction may be paid for"
    await predictions.close(10)
    assert demo.log.creations() == demo.log.attempts() == 1
    assert not any(cancel.effective for cancel in demo.log.cancels)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        *(("CREDIT", QuotaExceeded), ("CRASH_BEFORE", UpstreamFailed), ("CRASH_AFTER", UpstreamFailed)),
        *(("CRASH_AFTER:503", UpstreamFailed), ("DROP", UpstreamFailed), ("BADJSON", UpstreamFailed)),
    ],
)
async def test_a_failed_creation_is_not_repeated(
    demo: DemoReplicate, predictions: Predictions, words: str, error: type[ProxyError]
) -> None:
    with pytest.raises(error):
        await run(predictions, f"a fox {words}")
    assert demo.log.attempts() == 1


async def test_a_creation_that_the_model_rejects_is_not_repeated(demo: DemoReplicate, predictions: Predictions) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await run(predictions, "a fox", num_inference_steps=400)
    assert caught.value.param == "X-Replicate-Num-Inference-Steps"
    assert (demo.log.attempts(), demo.log.creations()) == (1, 0)


# --- Throttling


async def test_a_429_is_waited_out(demo: DemoReplicate, predictions: Predictions) -> None:
    hows = ("header", "body", "reset", "text")
    ended = await asyncio.gather(*(run(predictions, f"{how} THROTTLE:{how}:1x2") for how in hows))
    assert [prediction.status for prediction in ended] == ["succeeded"] * 4
    for how in hows:
        assert (demo.log.attempts(f"{how} THROTTLE"), demo.log.creations(f"{how} THROTTLE")) == (3, 1)
        first, second, third = [call.at for call in demo.log.calls if how in str(call.body)]
        assert second - first > 0.95
        assert third - second > 0.95


async def test_a_long_429_is_not_waited_out(demo: DemoReplicate) -> None:
    async with predicting(demo.url, max_throttle=5) as predictions:
        with pytest.raises(RateLimited) as caught:
            await run(predictions, "THROTTLE:header:6x9")
    assert caught.value.retry_after == 6, "the client may wait longer"
    assert (demo.log.attempts(), demo.log.creations()) == (1, 0)


async def test_retries_after_a_429_have_a_minimum_pause() -> None:
    async with scripted_predictions(reply(429, {}, "Retry-After: 0"), max_throttle=1) as (server, predictions):
        with pytest.raises(RateLimited):
            await run(predictions, "a fox")
    assert len(server.requests) == 3


async def test_cancelling_while_throttled_costs_nothing(demo: DemoReplicate, predictions: Predictions) -> None:
    task = asyncio.create_task(run(predictions, "THROTTLE:header:5x1"))
    await asyncio.to_thread(demo.log.wait, lambda log: log.attempts() == 1)
    await asyncio.to_thread(demo.log.wait, lambda log: log.open_requests == 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await predictions.close(10)
    assert (demo.log.attempts(), demo.log.creations()) == (1, 0)


# --- Cancelling


@pytest.mark.parametrize("words", ["HOLD:0.5 SLOW:60", "SLOW:60", "COLD:60"])
async def test_cancelling_during_the_creation_cancels_the_prediction(
    demo: DemoReplicate, predictions: Predictions, words: str
) -> None:
    task = asyncio.create_task(run(predictions, words))
    await until(demo, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await predictions.close(10)
    assert [(cancel.prediction_id, cancel.effective) for cancel in demo.log.cancels] == [
        (demo.log.predictions[0].id, True)
    ]
    assert demo.log.creations() == 1


async def test_cancelling_a_running_prediction(demo: DemoReplicate, predictions: Predictions) -> None:
    task = asyncio.create_task(run(predictions, "SLOW:60"))
    await asyncio.to_thread(demo.log.wait, lambda log: any(call.method == "GET" for call in log.calls))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await predictions.close(10)
    assert [cancel.effective for cancel in demo.log.cancels] == [True]
    assert demo.log.predictions[0].status == "canceled"


@pytest.mark.parametrize(("words", "seconds"), [("HOLD:0.2 SLOW:60", 0.1), ("SLOW:60", 1.3)])
async def test_a_timeout_cancels_the_prediction(
    demo: DemoReplicate, predictions: Predictions, words: str, seconds: float
) -> None:
    with pytest.raises(UpstreamTimeout, match="took longer than") as caught:
        await run(predictions, words, seconds)
    assert caught.value.started
    await predictions.close(10)
    assert [cancel.effective for cancel in demo.log.cancels] == [True]
    assert demo.log.creations() == demo.log.attempts() == 1


async def test_replicate_cancels_predictions_with_unknown_ids(demo: DemoReplicate) -> None:
    """The id of a prediction is unknown if the answer to its creation is lost."""
    async with predicting(demo.url) as predictions:
        with pytest.raises(UpstreamFailed):
            await run(predictions, "DROP SLOW:60", 1)
    await asyncio.to_thread(demo.log.wait, lambda log: log.predictions[0].status == "canceled")
    assert not demo.log.cancels
    assert demo.log.predictions[0].cancel_after == "11s"


# --- Misbehaving Replicate servers

STARTED = reply(201, {"id": "p1", "status": "starting"})
CANCEL = "POST /v1/predictions/p1/cancel"


async def outcome(answers: dict[str, Answer]) -> tuple[ProxyError, RawServer]:
    async with scripted_predictions(by_path(answers)) as (server, predictions):
        with pytest.raises(ProxyError) as caught:
            await run(predictions, "a fox")
    return caught.value, server


async def test_a_prediction_that_cannot_be_polled_is_cancelled_and_not_repeated() -> None:
    lost = reply(404, {"detail": "Not found"})
    error, server = await outcome({"POST /v1/predictions": STARTED, "/v1/predictions/p1": lost, CANCEL: reply(200, {})})
    assert isinstance(error, UpstreamFailed)
    assert error.started
    assert len(server.requests_to("POST", "/v1/predictions")) == 1
    assert len(server.requests_to("POST", "/cancel")) == 1


async def test_a_lost_prediction_is_not_repeated() -> None:
    lost = reply(404, {"detail": "Not found"})
    error, server = await outcome({"POST /v1/predictions": STARTED, "/v1/predictions/p1": lost, CANCEL: reply(200, {})})
    assert isinstance(error, UpstreamFailed)
    assert error.started
    assert len(server.requests_to("POST", "/v1/predictions")) == 1
    assert len(server.requests_to("POST", "/cancel")) == 1


@pytest.mark.parametrize(
    "poll", [pytest.param(reply(500), id="500"), pytest.param(reply(200, b"<html>"), id="a web page")]
)
async def test_failing_polls_continue_until_the_timeout(poll: Answer) -> None:
    """Until then the prediction, which is paid for, may still succeed."""
    answers = {"POST /v1/predictions": STARTED, "/v1/predictions/p1": poll, CANCEL: reply(200, {})}
    async with scripted_predictions(by_path(answers)) as (server, predictions):
        with pytest.raises(UpstreamTimeout) as caught:
            await run(predictions, "a fox", 4)
    assert caught.value.started
    assert len(server.requests_to("POST", "/v1/predictions")) == 1
    assert len(server.requests_to("POST", "/cancel")) == 1


async def test_a_cancellation_is_repeated_until_it_is_accepted() -> None:
    lost, accepted = reply(404, {}), in_turn(reply(500), raw(), reply(200, {}))
    _, server = await outcome({"POST /v1/predictions": STARTED, "/v1/predictions/p1": lost, CANCEL: accepted})
    assert len(server.requests_to("POST", "/cancel")) == 3


async def test_an_answer_without_an_id_is_an_error() -> None:
    error, server = await outcome({"POST /v1/predictions": reply(201, {})})
    assert isinstance(error, UpstreamFailed)
    assert len(server.requests_to("POST", "/v1/predictions")) == 1


async def test_erased_outputs() -> None:
    erased = {"id": "p1", "status": "succeeded", "output": None, "data_removed": True}
    error, server = await outcome({"POST /v1/predictions": reply(201, erased)})
    assert "already deleted" in error.message
    assert len(server.requests) == 1


async def test_outputs_that_were_all_filtered() -> None:
    filtered = {"id": "p1", "status": "succeeded", "output": [], "logs": "NSFW content detected in 1 of the outputs"}
    error, _ = await outcome({"POST /v1/predictions": reply(201, filtered)})
    assert isinstance(error, ContentBlocked)


async def test_an_unknown_status_is_not_the_end() -> None:
    polls = in_turn(
        reply(200, {"id": "p1", "status": "queued", "output": None}),
        reply(200, {"id": "p1", "status": "succeeded", "output": "https://replicate.delivery/x.png"}),
    )
    answers = {"POST /v1/predictions": STARTED, "/v1/predictions/p1": polls}
    async with scripted_predictions(by_path(answers)) as (server, predictions):
        prediction = await run(predictions, "a fox")
    assert prediction.output == "https://replicate.delivery/x.png"
    assert len(server.requests_to("GET")) == 2


async def test_the_shutdown_does_not_wait_long_for_cancellations() -> None:
    cancelled = asyncio.Event()

    async def stuck(request: Request, writer: asyncio.StreamWriter) -> None:
        cancelled.set()
        await raw(end=False)(request, writer)

    answers = {"POST /v1/predictions": STARTED, "/v1/predictions/p1": reply(404, {}), CANCEL: stuck}
    async with asyncio.timeout(PATIENCE), scripted_predictions(by_path(answers), close=0.1) as (server, predictions):
        with pytest.raises(UpstreamFailed):
            await run(predictions, "a fox")
        await cancelled.wait()
    assert len(server.requests_to("POST", "/cancel")) == 1
