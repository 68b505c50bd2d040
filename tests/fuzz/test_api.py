"""Requests that Schemathesis derives from the OpenAPI document, sent to a proxy in front of the demo.

Every answer must be one that the document describes, and none may be a failure of the server. The requests are the
same in every run, except with ``scripts/fuzz``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from openai_dify_proxy.api.openapi.document import build_document
from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import INSTANT, DemoServer
from openai_dify_proxy_demo.replicate import INSTANT as INSTANT_PICTURES
from openai_dify_proxy_demo.replicate import DemoReplicate
from tests.api.described import Described
from tests.api.image_requests import image_settings, small
from tests.api.servers import ProxyServer, counted_seconds, demo_apps
from tests.limits import PATIENCE

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
"""Requests for each route; half of them do not have the described form."""

DOCUMENT = build_document()
OPERATIONS = {
    result.ok().label: result.ok()
    for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
    if isinstance(result, Ok)
}


@cache
def requests(route: str) -> st.SearchStrategy[Any]:
    """Return requests of a route, some of which do not have the described form."""
    operation = OPERATIONS[route]
    return st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))


MODELS = ("demo-chat", "demo-chatflow", "demo-agent", "demo-completion", "demo-workflow", "demo-chat@1.13")
KEYS = ("Authorization", "api-key", "X-Dify-Api-Key")
HONEST_FAILURES = {"tool_call_invalid", "response_format_invalid"}
"""Codes of answers with a status of 5xx that are right: the demo's model does not write what random schemas require."""

Json = dict[str, Any]


class Running:
    """A running proxy, with an object of each kind that a path can name."""

    def __init__(self, proxy: ProxyServer) -> None:
        self.origin = proxy.origin
        self.described = Described(DOCUMENT)
        with httpx2.Client(base_url=proxy.url, timeout=PATIENCE) as http:
            item = {"role": "user", "content": "Hello"}
            conversation = _created(http.post("/conversations", json={"items": [item]}))["id"]
            picture = _created(http.post("/images/generations", json=small("A fox", response_format="url")))
            self.names = {
                "response_id": _created(http.post("/responses", json={"model": "demo-chat", "input": "Hello"}))["id"],
                "conversation_id": conversation,
                "item_id": _created(http.get(f"/conversations/{conversation}/items"))["first_id"],
                "file_id": _created(http.post("/files", files={"file": ("a.txt", b"Hello")}))["id"],
                "name": picture["data"][0]["url"].rpartition("/")[2],
                "model": "demo-chat",
            }


def _created(reply: httpx2.Response) -> Json:
    assert reply.status_code == 200, reply.text
    created: Json = reply.json()
    return created


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with (
        DemoServer(timing=INSTANT, clock=counted_seconds()) as demo,
        DemoReplicate(timing=INSTANT_PICTURES) as replicate,
    ):
        images = image_settings(replicate, tmp_path_factory.mktemp("pictures"))
        settings = Settings(
            dify_api_url=demo.url,
            apps=demo_apps(demo.url),
            default_app="demo-chat",
            state_url=SecretStr("memory://"),
            dify_max_concurrent="off",
            log_level="critical",
            **images,
        )
        with ProxyServer(settings) as proxy:
            yield Running(proxy)


@pytest.mark.parametrize("route", OPERATIONS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_request_has_a_described_answer(running: Running, route: str, data: st.DataObject) -> None:
    case = data.draw(requests(route), "request")
    for name in [*case.path_parameters]:
        if data.draw(st.booleans(), f"an existing {name}"):
            case.path_parameters[name] = running.names[name]
    if data.draw(st.integers(0, 9), "keys"):  # else most requests fail for a wrong key
        for header in KEYS:
            case.headers.pop(header, None)
    if isinstance(case.body, dict) and data.draw(st.booleans(), "an existing model"):
        case.body["model"] = data.draw(st.sampled_from(MODELS), "model")
    reply = case.call(base_url=running.origin, timeout=PATIENCE)
    (kind,) = reply.headers.get("content-type", [""])
    running.described.check(route, reply.status_code, kind, reply.content)
    assert reply.status_code < 500 or reply.json()["error"]["code"] in HONEST_FAILURES, reply.text
    assert reply.headers["x-request-id"]
