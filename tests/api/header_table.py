"""Print how the proxy maps each header for each model: ``python -m tests.api.header_table``.

Each header is sent with boundary values and values between them. The scripted Replicate validates the inputs against
the models' real schemas, and then rejects the prediction for lack of credit. So a cell shows the inputs that reached
the model, or that the proxy rejected the value.
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
"""A host name that cannot exist: a proxy that needs to read the picture answers with an error."""

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
    """Fills the cells with requests to one proxy. ``source`` is a picture for which every prediction lacks credit."""

    def __init__(self, http: httpx2.AsyncClient, proxy: ProxyServer, replicate: DemoReplicate, source: str) -> None:
        self._http = http
        self._url = f"{proxy.url}/images/generations"
        self._log = replicate.log
        self._source = source

    async def row(self, header: str) -> list[str]:
        return [await self.cell(header, model) for model in DEMO_MODELS]

    async def cell(self, header: str, model: DemoModel) -> str:
        """Return the inputs that the header's values become, as Markdown."""
        beside = self._beside(header, model)
        plain = await self.ask(model, {name: value for name, value in beside.items() if name != UPSCALE})
        assert isinstance(plain, list), plain
        usual = plain[0] if header != FORMAT else {**plain[0], "output_format": None}
        outcomes = [(value, await self.outcome(model, header, value, beside, usual)) for value in LEGAL[header]]
        return "; ".join(dict.fromkeys(_words(header, outcomes)))

    async def outcome(
        self, model: DemoModel, header: str, value: str, beside: dict[str, str], usual: Json
    ) -> list[Json] | Json:
        """Return the inputs that differ from the ``usual`` ones in each prediction, or the error."""
        text = self._source if value == PICTURE and header == INIT else value
        predictions = await self.ask(model, beside | {header: text})
        if isinstance(predictions, dict):
            return predictions
        return [{name: sent for name, sent in inputs.items() if usual.get(name) != sent} for inputs in predictions]

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
        """Return the other headers that this header requires, as far as the model supports them."""
        takes = {param.name for param in model.params if param.kind in ("picture", "pictures")} - {"mask"}
        needs = any(param.required and param.name in takes for param in model.params)
        wants = header in (STRENGTH, MASK) and takes - {"style_reference_images"}
        beside = {INIT: self._source} if (needs or wants) and header != INIT else {}
        if header == INIT and needs:
            beside = {INIT: self._source.replace(".png", ".png?")}
        return beside | ({UPSCALE: "yes"} if header == FACTOR else {})


def _words(header: str, outcomes: list[tuple[str, list[Json] | Json]]) -> Iterator[str]:
    shown: dict[str, list[str]] = {}
    for value, outcome in outcomes:
        if isinstance(outcome, dict):
            assert outcome["param"] == header or (header, outcome["param"]) == (FACTOR, UPSCALE), outcome
            inverted = "could not be read" in outcome["message"]
            shown.setdefault("`mask`, read and inverted here" if inverted else "refused", []).append(value)
        else:
            name, text = _shown(value, outcome)
            shown.setdefault("converted here" if (header, name) == (FORMAT, NOTHING) else name, []).append(text)
    for name, values in sorted(shown.items(), key=lambda item: item[0] == "refused"):
        alone = PICTURE in values or (name == "refused" and len(values) == len(outcomes))
        yield name if alone else f"{name}: {', '.join(values)}"


def _shown(value: str, predictions: list[Json]) -> tuple[str, str]:
    """Return the input's name, and the value, with an arrow to the model's value if that differs."""
    first = predictions[0]
    if len(predictions) > 1:
        return f"{len(predictions)} predictions", value
    if not first:
        return NOTHING, value
    if len(first) > 1:
        return "`" + "`, `".join(f"{name}={json.dumps(item)}" for name, item in first.items()) + "`", value
    ((name, item),) = first.items()
    if value.startswith("http"):
        return (f"`{name}`[]" if isinstance(item, list) else f"`{name}`"), PICTURE
    text = item if isinstance(item, str) else json.dumps(item).removesuffix(".0")
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
    """Return the URL of a picture for which the scripted Replicate rejects predictions for lack of credit."""
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
        print(asyncio.run(markdown(proxy, replicate)), end="")  # noqa: T201 - the output of the program


if __name__ == "__main__":
    main()
