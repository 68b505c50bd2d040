"""The command ``models``: the effect of each image header on a Replicate model."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from textwrap import fill

import typer
from msgspec import to_builtins
from rich.markup import escape
from rich.table import Table

from openai_dify_proxy.cli.demo import demo_replicate
from openai_dify_proxy.cli.output import PLAIN_WIDTH, console, print_json, print_table, run_shown, whole
from openai_dify_proxy.errors import UpstreamFailed
from openai_dify_proxy.images.header_support import header_support
from openai_dify_proxy.images.models import ImageModel, ImageModels
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs, read_model_inputs
from openai_dify_proxy.translate.replicate.support import HeaderSupport, other_inputs
from openai_dify_proxy.upstream.network import Network
from openai_dify_proxy.upstream.replicate import ReplicateClient

PLACE_WIDTH = 23
"""Characters in a line of the cells for inputs. Longer names stay whole."""


@asynccontextmanager
async def open_replicate(settings: Settings) -> AsyncIterator[ReplicateClient]:
    """Open a client of Replicate; ``settings`` must have a token."""
    assert settings.replicate_api_token is not None
    token = settings.replicate_api_token.get_secret_value()
    replicate = ReplicateClient(
        settings.replicate_api_url, token, connect_timeout=settings.connect_timeout, network=Network(settings)
    )
    try:
        yield replicate
    finally:
        await replicate.close()


async def fetch_inputs(replicate: ReplicateClient, ref: ModelRef) -> ModelInputs:
    """Return a model's inputs from its schema, without the built-in table as a fallback. Raises ProxyError."""
    _, schema = await replicate.schema(ref)
    inputs = read_model_inputs(schema)
    if inputs.fields:
        return inputs
    if ref.name is None and ref.deployment is None:
        raise UpstreamFailed("Replicate cannot look up a version alone. Name it as owner/name:version.")
    raise UpstreamFailed("Replicate publishes no input schema for this model.")


def show_model(settings: Settings, name: str | None, *, as_json: bool) -> None:
    """Print the effect of each header on a model, or without a token on one of the demo.

    Raises ProxyError and SettingsError.
    """
    with ExitStack() as stack:
        if settings.replicate_api_token is None:
            settings = stack.enter_context(demo_replicate(settings))
            typer.echo("REPLICATE_API_TOKEN is not set, so this shows the demo.", err=True)
        model, inputs, rows = run_shown("Reading the schema", _fetch(settings, name))
    if as_json:
        print_json(_as_json(model, inputs, rows))
    else:
        _print(model, inputs, rows)


async def _fetch(settings: Settings, name: str | None) -> tuple[ImageModel, ModelInputs, list[HeaderSupport]]:
    async with open_replicate(settings) as replicate:
        model = ImageModels(settings, replicate, time.monotonic).choose(name)
        inputs = await fetch_inputs(replicate, model.ref)
        upscaler = None if model.upscaler is None else await fetch_inputs(replicate, model.upscaler)
        return model, inputs, header_support(settings, model, inputs, upscaler)


def _as_json(model: ImageModel, inputs: ModelInputs, rows: list[HeaderSupport]) -> dict[str, object]:
    return {
        "model": str(model.ref),
        "headers": to_builtins(rows),
        "inputs": [
            {"name": field.name, "takes": field.takes, "required": field.required, "default": field.default}
            for field in inputs.fields.values()
        ],
    }


def _print(model: ImageModel, inputs: ModelInputs, rows: list[HeaderSupport]) -> None:
    table = Table(
        whole("Header"),
        whole("Input of the model"),
        whole("Takes", wrap=True),
        title=escape(str(model.ref)),
        title_justify="left",
    )
    places = [row.input or (f"by {row.by}" if row.by else "") for row in rows]
    width = max(PLACE_WIDTH, *(len(word) for place in places for word in place.split()))
    facts = []
    for row, place in zip(rows, places, strict=True):
        where = fill(place, width, break_on_hyphens=False)
        takes = "[yellow]not supported[/]" if row.takes is None else escape(row.takes)
        takes = f"{takes} ({escape(row.note)})" if row.note else takes
        table.add_row(row.header, escape(where), takes)
        facts.append((row.header, "\n".join(filter(None, (f"takes: {takes}", place and f"input: {escape(place)}")))))
    print_table(table, facts, plain_width=PLAIN_WIDTH, wraps=True)
    out = console()
    others = other_inputs(inputs)
    if others:
        out.print("Other inputs, which a request sets by name in its object `input`:")
    for field in others:
        out.print(f"  {escape(field.name)}: {escape(field.takes)}", soft_wrap=True, highlight=False)
