from __future__ import annotations

from msgspec import json

from openai_dify_proxy.wire import replicate as wire

PREDICTION = b"""{"id":"gm3qorzdhgbfurvjtvhg6dckhu","model":"stability-ai/sdxl","version":"7762fd07",
"input":{"prompt":"x"},"logs":"Using seed: 7","error":null,"status":"succeeded",
"created_at":"2024-10-01T12:00:00Z","data_removed":false,
"output":["https://replicate.delivery/xezq/out-0.png"],"metrics":{"predict_time":3.2,"image_count":1},
"urls":{"get":"https://api.replicate.com/v1/predictions/gm3q","cancel":"x"},"source":"api"}"""


def test_a_prediction_with_unused_keys() -> None:
    prediction = wire.PREDICTION.decode(PREDICTION)
    assert (prediction.id, prediction.status) == ("gm3qorzdhgbfurvjtvhg6dckhu", "succeeded")
    assert prediction.output == ["https://replicate.delivery/xezq/out-0.png"]
    assert prediction.status in wire.TERMINAL


def test_a_prediction_with_few_keys() -> None:
    prediction = wire.PREDICTION.decode(b'{"id":"x"}')
    assert (prediction.status, prediction.output, prediction.data_removed) == ("starting", None, False)
    assert prediction.status not in wire.TERMINAL
    assert {"succeeded", "failed", "canceled", "aborted"} == wire.TERMINAL


def test_creations_omit_unset_keys() -> None:
    assert json.encode(wire.CreatePrediction({"prompt": "x"})) == b'{"input":{"prompt":"x"}}'
    assert json.encode(wire.CreatePrediction({}, "a/b")) == b'{"input":{},"version":"a/b"}'


def test_other_documents() -> None:
    model = wire.MODEL.decode(b'{"latest_version":{"id":"7762","openapi_schema":{"info":{}}},"owner":"a"}')
    assert model.latest_version == wire.ModelVersion("7762", {"info": {}})
    assert wire.MODEL.decode(b'{"latest_version":null}').latest_version is None
    assert wire.MODEL_VERSION.decode(b'{"id":"7762"}').openapi_schema is None
    release = wire.DEPLOYMENT.decode(b'{"current_release":{"number":1,"model":"a/b","version":"7762"}}').current_release
    assert release == wire.Release("a/b", "7762")
    file = wire.UPLOADED_FILE.decode(b'{"id":"f","size":7,"urls":{"get":"https://api.replicate.com/v1/files/f"}}')
    assert file.urls["get"].endswith("/files/f")
    error = wire.API_ERROR.decode(b'{"title":"t","detail":"d","status":429,"retry_after":5,"invalid_fields":null}')
    assert (error.title, error.detail, error.retry_after, error.invalid_fields) == ("t", "d", 5, None)
