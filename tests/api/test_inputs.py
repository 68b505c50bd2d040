"""The sources of an app's inputs, and the choice of the input for the user's text."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import MODES, ask, the_turn, user
from tests.api.conftest import Serve
from tests.api.servers import app_settings

FORM = {"question": "hi", "language": "de"}


@pytest.mark.parametrize(
    "more",
    [
        {"extra_body": {"inputs": {"topic": "sea"}}},
        {"metadata": {"topic": "sea"}},
        {"metadata": {"dify_inputs": '{"topic": "sea"}'}},
        {"metadata": {"topic": "lake"}, "extra_body": {"inputs": {"topic": "sea"}}},
        {"metadata": {"topic": "sea", "chat": "42"}},
    ],
    ids=["inputs", "metadata", "packed metadata", "inputs over metadata", "unknown names left out"],
)
@pytest.mark.parametrize("model", ["demo-chat-topic", "demo-advanced-chat-topic"])
async def test_inputs_come_from_the_body_or_from_metadata(
    client: AsyncOpenAI, log: DemoLog, model: str, more: dict[str, Any]
) -> None:
    assert "topic = sea" in await ask(client, model, "hi", **more)
    inputs = the_turn(log).body["inputs"]
    assert inputs["topic"] == "sea"
    assert set(inputs) <= {"topic", "system_prompt"}


async def test_requests_override_the_inputs_in_settings(serve: Serve, demo: DemoServer, log: DemoLog) -> None:
    app = app_settings("a", "app-demo-chat-topic", demo.url, inputs={"topic": "sea"})
    async with serve(apps={"a": app}).client() as client:
        assert "topic = sea" in await ask(client, "a", "hi")
        assert "topic = lake" in await ask(client, "a", "hi", extra_body={"inputs": {"topic": "lake"}})


@pytest.mark.parametrize("version", ["0.15", "1.11", "1.13", "1.16"])
@pytest.mark.parametrize(
    ("model", "missing"),
    [
        ("demo-chat-topic", "topic"),
        ("demo-advanced-chat-topic", "topic"),
        ("demo-workflow-form", "language"),
    ],
)
async def test_a_missing_required_input_is_named_for_every_version(
    client: AsyncOpenAI, log: DemoLog, model: str, missing: str, version: str
) -> None:
    """Dify 1.13 would send nothing for minutes, and 1.16 would answer with a failed run."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model=f"{model}@{version}",
                messages=user("hi"),
                stream=stream,
                extra_body={"inputs": {missing: None, "words": 3}},
            )
        assert refused.value.param == f"inputs.{missing}"
        assert refused.value.code == "missing_required_parameter"
    assert not log.runs


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ({"language": "fr-CA"}, "inputs.language"),
        ({"language": "de", "subject": "x" * 49}, "inputs.subject"),
    ],
)
async def test_values_that_the_form_does_not_allow_are_rejected_by_name(
    client: AsyncOpenAI, log: DemoLog, inputs: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(client, "demo-workflow-form", "hi", extra_body={"inputs": inputs})
    assert refused.value.param == param
    assert not log.runs


async def test_values_are_converted_to_the_type_in_the_form(client: AsyncOpenAI, log: DemoLog) -> None:
    """Some clients can only send strings as metadata, and some send numbers where Dify expects text."""
    await ask(
        client,
        "demo-workflow-form",
        "hi",
        extra_body={"inputs": {"subject": 42, "words": "12"}},
        metadata={"language": "en"},
    )
    inputs = the_turn(log).body["inputs"]
    assert inputs["subject"] == "42"
    assert inputs["language"] == "en"
    assert inputs["words"] in (12, "12")


@pytest.mark.parametrize("packed", ["no json", "[1]", '"text"'])
async def test_packed_metadata_must_be_an_object(client: AsyncOpenAI, log: DemoLog, packed: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(client, "demo-chat", "hi", metadata={"dify_inputs": packed})
    assert refused.value.param == "metadata.dify_inputs"
    assert not log.requests


@pytest.mark.parametrize(
    ("model", "variable", "more"),
    [
        ("demo-completion", "query", {}),
        ("demo-workflow", "query", {}),
        ("demo-workflow-quiet", "text", {}),
        ("demo-workflow-form", "question", {"language": "en"}),
    ],
)
async def test_the_users_text_goes_into_the_single_required_text_input(
    client: AsyncOpenAI, log: DemoLog, model: str, variable: str, more: dict[str, str]
) -> None:
    assert "You wrote: “Where is it?”" in await ask(client, model, "Where is it?", extra_body={"inputs": more})
    assert the_turn(log).body["inputs"][variable] == "Where is it?"


async def test_settings_choose_the_input_for_the_users_text(serve: Serve, demo: DemoServer, log: DemoLog) -> None:
    app = app_settings(
        "a", "app-demo-workflow-form", demo.url, input_variable="subject", inputs={"language": "fr", "question": "Why?"}
    )
    async with serve(apps={"a": app}).client() as client:
        await ask(client, "a", "the sea")
    inputs = the_turn(log).body["inputs"]
    assert (inputs["subject"], inputs["question"], inputs["language"]) == ("the sea", "Why?", "fr")


async def test_an_explicit_input_takes_precedence_over_the_users_text(client: AsyncOpenAI, log: DemoLog) -> None:
    await ask(client, "demo-workflow", "from the message", extra_body={"inputs": {"query": "from the inputs"}})
    assert the_turn(log).body["inputs"]["query"] == "from the inputs"


async def test_the_global_variables_apply_to_keys_of_requests(serve: Serve, log: DemoLog) -> None:
    proxy = serve(apps={}, input_variable="subject", output_variable="text")
    async with proxy.client("app-demo-workflow-form") as client:
        await ask(client, "any", "the sea", extra_body={"inputs": FORM})
    assert the_turn(log).body["inputs"]["subject"] == "the sea"


@pytest.mark.parametrize(
    ("output", "answer"), [(None, "the sea"), ("answer", "the sea"), ("length", "7"), ("keywords", '["demo","echo"]')]
)
async def test_settings_choose_the_output_that_is_the_answer(
    serve: Serve, demo: DemoServer, log: DemoLog, output: str | None, answer: str
) -> None:
    app = app_settings("a", "app-demo-workflow-outputs", demo.url, output_variable=output)
    async with serve(apps={"a": app}).client() as client:
        text = await ask(client, "a", "SAY<<the sea>>")
    assert text.replace(", ", ",").startswith(answer)
    if output is not None:
        assert text.replace(", ", ",") == answer


async def test_a_workflow_that_streams_nothing_answers_with_its_output(client: AsyncOpenAI) -> None:
    assert await ask(client, "demo-workflow-quiet", "SAY<<quiet>>") == "quiet"


async def test_a_workflow_without_text_and_outputs_has_an_empty_answer(client: AsyncOpenAI) -> None:
    assert await ask(client, "demo-workflow-endless", "hi") in ("", "{}")


@pytest.mark.parametrize("model", MODES)
async def test_the_mode_can_be_configured(serve: Serve, demo: DemoServer, log: DemoLog, model: str) -> None:
    mode = model.removeprefix("demo-")
    app = app_settings("a", f"app-{model}@0.15", demo.url, mode=mode)
    async with serve(apps={"a": app}).client() as client:
        assert f"demo {mode} app" in await ask(client, "a", "hi")
    assert [request.path for request in log.requests if request.method == "POST"] == [the_turn(log).path]


async def test_a_wrong_mode_in_settings_is_a_server_error(serve: Serve, demo: DemoServer, log: DemoLog) -> None:
    app = app_settings("a", "app-demo-chat", demo.url, mode="workflow")
    async with serve(apps={"a": app}).client(max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await ask(client, "a", "hi")
    assert (refused.value.status_code, refused.value.type) == (503, "api_error")
