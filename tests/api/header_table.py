"""What becomes of each header with each model, found by asking a proxy: ``python -m tests.api.header_table``.

Every legal edge of a header and values in its middle are sent to a proxy in front of the scripted Replicate, which
judges what arrives by the models' real schemas and then refuses it, since it has no credit. So a cell tells what the
model was sent, or that the proxy refused.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.telemetry import configure_logging
from openai_dify_proxy_demo.replicate import DEMO_MODELS, INSTANT, DemoModel, DemoReplicate
from tests.api.image_requests import Json, image_settings, sent
from tests.api.servers import ProxyServer
from tests.limits import PATIENCE

NOTHING = "nothing sent"
FORMAT = "X-Output-Format"
INIT, STRENGTH, MASK = "X-Replicate-Init-Image", "X-Replicate-Prompt-Strength", "X-Replicate-Mask"
UPSCALE, FACTOR = "X-Replicate-Upscale", "X-Replicate-Upscale-Factor"

PICTURE = "http://picture.invalid/picture.png"
"""Never read: no such name can be, so that a proxy that has to read it says so."""

LEGAL: dict[str, tuple[str, ...]] = {
    FORMAT: ("jpg", "png", "webp"),
    "X-Replicate-Scheduler": ("DDIM", "DPMSolverMultistep", "K_EULER", "K_EULER_ANCESTRAL", "PNDM"),
    "X-Replicate-Num-Inference-Steps": ("1", "4", "50", "500"),
    "X-Replicate-Guidance-Scale": ("1", "5", "10", "20"),
    "X-Replicate-Seed": ("0", "2147483647", "2147483648"),
    "X-Replicate-Negative-Prompt": ("blurry",),
    STRENGTH: ("0", "1"),
    "X-Replicate-Num-Outputs": ("1", "4"),
    "X-Replicate-Safety-Checker": ("yes", "no"),
    "X-Replicate-Enhance-Prompt": ("yes", "no"),
    UPSCALE: ("yes", "no"),
    FACTOR: ("2", "4"),
    "X-Replicate-Style-Preset": ("anime", "realistic"),
    INIT: (PICTURE,),
    MASK: (PICTURE,),
}
ILLEGAL: dict[str, tuple[str, ...]] = {
    FORMAT: ("gif", "jpg2"),
    "X-Replicate-Scheduler": ("EULER", "KLMS"),
    "X-Replicate-Num-Inference-Steps": ("0", "501", "1.5"),
    "X-Replicate-Guidance-Scale": ("0.99", "20.01", "nan"),
    "X-Replicate-Seed": ("-1", "1.5"),
    "X-Replicate-Negative-Prompt": ("",),
    STRENGTH: ("-0.01", "1.01"),
    "X-Replicate-Num-Outputs": ("0", "5"),
    "X-Replicate-Safety-Checker": ("off",),
    "X-Replicate-Enhance-Prompt": ("maybe",),
    UPSCALE: ("2",),
    FACTOR: ("1", "3", "8"),
    "X-Replicate-Style-Preset": ("",),
    INIT: ("picture.png", "file:///etc/passwd"),
    MASK: ("data:image/png;base64,AA==", "ftp://example.org/m.png"),
}


def title(model: DemoModel) -> str:
    return model.name.partition("/")[2]


class Table:
    """Asks one proxy about all models. ``source`` is a picture that no model is paid for."""

    def __init__(self, http: httpx2.AsyncClient, proxy: ProxyServer, replicate: DemoReplicate, source: str) -> None:
        self._http = http
        self._url = f"{proxy.url}/images/generations"
        self._log = replicate.log
        self._source = source

    async def row(self, header: str) -> list[str]:
        return [await self.cell(header, model) for model in DEMO_MODELS]

    async def cell(self, header: str, model: DemoModel) -> str:
        """Which values are sent as what, as Markdown."""
        outcomes = [(value, await self.outcome(header, value, model)) for value in LEGAL[header]]
        return "; ".join(dict.fromkeys(_words(header, outcomes)))

    async def outcome(self, header: str, value: str, model: DemoModel) -> list[Json] | Json:
        """The inputs of the predictions, without those that the same request has without the header; or the error."""
        beside = self._beside(header, model)
        plain = await self.ask(model, {name: text for name, text in beside.items() if name != UPSCALE})
        assert isinstance(plain, list), plain
        asked = self._source if value == PICTURE and header == INIT else value
        told = await self.ask(model, beside | {header: asked})
        if isinstance(told, dict):
            return told
        usual = plain[0] if header != FORMAT else {**plain[0], "output_format": None}
        return [{name: sent for name, sent in inputs.items() if usual.get(name) != sent} for inputs in told]

    async def ask(self, model: DemoModel, headers: dict[str, str]) -> list[Json] | Json:
        before = len(sent(self._log))
        body = {"model": f"{model.name}:{model.version}", "prompt": "CREDIT"}
        answer = await self._http.post(self._url, json=body, headers=headers)
        error: Json = answer.json()["error"]
        if answer.status_code == 400:
            return error
        assert error["code"] == "insufficient_quota", error
        return sent(self._log)[before:]

    def _beside(self, header: str, model: DemoModel) -> dict[str, str]:
        """What a header needs beside it, where the model takes that."""
        takes = {param.name for param in model.params if param.kind in ("picture", "pictures")} - {"mask"}
        needs = any(param.required and param.name in takes for param in model.params)
        wants = header in (STRENGTH, MASK) and takes - {"style_reference_images"}
        beside = {INIT: self._source} if (needs or wants) and header != INIT else {}
        if header == INIT and needs:
            beside = {INIT: self._source.replace(".png", ".png?")}
        return beside | ({UPSCALE: "yes"} if header == FACTOR else {})


def _words(header: str, outcomes: list[tuple[str, list[Json] | Json]]) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for value, outcome in outcomes:
        if isinstance(outcome, dict):
            assert outcome["param"] == header or (header, outcome["param"]) == (FACTOR, UPSCALE), outcome
            inverted = "could not be read" in outcome["message"]
            told.setdefault("`mask`, read and inverted here" if inverted else "refused", []).append(value)
        else:
            name, shown = _shown(value, outcome)
            told.setdefault("converted here" if (header, name) == (FORMAT, NOTHING) else name, []).append(shown)
    for name, values in sorted(told.items(), key=lambda item: item[0] == "refused"):
        alone = PICTURE in values or (name == "refused" and len(values) == len(outcomes))
        yield name if alone else f"{name}: {', '.join(values)}"


def _shown(value: str, predictions: list[Json]) -> tuple[str, str]:
    """The name of the input, and the value as the client and as the model sees it."""
    first = predictions[0]
    if len(predictions) > 1:
        return f"{len(predictions)} predictions", value
    if not first:
        return NOTHING, value
    if len(first) > 1:
        return "`" + "`, `".join(f"{name}={json.dumps(given)}" for name, given in first.items()) + "`", value
    ((name, given),) = first.items()
    if value.startswith("http"):
        return (f"`{name}`[]" if isinstance(given, list) else f"`{name}`"), PICTURE
    text = given if isinstance(given, str) else json.dumps(given).removesuffix(".0")
    return f"`{name}`", value if text == value else f"{value} → {text}"


async def markdown(proxy: ProxyServer, replicate: DemoReplicate) -> str:
    async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as http:
        table = Table(http, proxy, replicate, await unpaid_picture(http, replicate))
        lines = ["| header | " + " | ".join(map(title, DEMO_MODELS)) + " |", "|---" * (len(DEMO_MODELS) + 1) + "|"]
        for header in LEGAL:
            cells = await table.row(header)
            lines.append(f"| {header} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


async def unpaid_picture(http: httpx2.AsyncClient, replicate: DemoReplicate) -> str:
    """The address of a picture that makes every prediction that starts from it be refused for lack of credit."""
    body: dict[str, Any] = {
        "version": DEMO_MODELS[0].version,
        "input": {"prompt": "UPSCALE<<CREDIT>> SETTLED", "width": 64, "height": 64},
    }
    headers = {"Authorization": f"Bearer {replicate.token}", "Prefer": "wait"}
    made = await http.post(f"{replicate.url}/predictions", json=body, headers=headers)
    url: str = made.json()["output"][0]
    return url


def main() -> None:
    configure_logging("critical", "console")
    with (
        tempfile.TemporaryDirectory() as storage,
        DemoReplicate(timing=INSTANT) as replicate,
        ProxyServer(Settings(**image_settings(replicate, Path(storage)))) as proxy,
    ):
        print(asyncio.run(markdown(proxy, replicate)), end="")  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
