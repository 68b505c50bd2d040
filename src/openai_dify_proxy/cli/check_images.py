"""``check`` for images: Replicate and its models, the storage of pictures, and IPFS."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from openai_dify_proxy.cli.check_output import CheckOutput, findings_as_json
from openai_dify_proxy.cli.models import fetch_inputs, open_replicate
from openai_dify_proxy.cli.output import print_findings, print_table, run_shown, shown_result
from openai_dify_proxy.cli.storage import existing_part, picture_problem
from openai_dify_proxy.errors import InvalidRequest, ProxyError, UpstreamUnreachable
from openai_dify_proxy.images.header_support import header_support
from openai_dify_proxy.images.models import ImageModel, ImageModels
from openai_dify_proxy.pictures.service import open_picture_store
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.translate.dify.app_findings import Finding, all_work
from openai_dify_proxy.translate.replicate.candidates import PROMPT_NAMES, picture_input
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs
from openai_dify_proxy.translate.replicate.support import HeaderSupport
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import ipfs_client
from openai_dify_proxy.upstream.network import Network
from openai_dify_proxy.upstream.replicate import ReplicateClient

COLUMN_WIDTH = 57
"""Characters in a line of the cells for headers."""

CONCURRENCY = 4
"""Schemas that are fetched at the same time."""

ABSENT_PICTURE = f"{'0' * 64}.png"
"""A name that no picture has: looking it up shows whether the store responds."""


class ImageModelReport(NamedTuple):
    name: str
    rows: list[HeaderSupport]
    findings: list[Finding]

    @property
    def passed(self) -> bool:
        return all_work(self.findings)


def check_images(settings: Settings, out: CheckOutput, *, demo: bool = False) -> bool:
    """Print the findings, and return whether pictures can be generated, stored and uploaded.

    With ``demo`` Replicate is the demo's, which has no token to report on.
    """
    if settings.replicate_api_token is None:
        out.remark("Image generation is off: REPLICATE_API_TOKEN is not set.")
        return True
    parts = [_check_replicate(settings, out, demo=demo)]
    if settings.picture_store is None:
        parts.append(_check_directory(settings, out))
    else:
        parts.append(_check_store(settings, out))
    if settings.ipfs_upload_url is not None:
        parts.append(_check_ipfs(settings, out))
    return all(parts)


# Replicate


def _check_replicate(settings: Settings, out: CheckOutput, *, demo: bool) -> bool:
    problem, reports = run_shown("Checking the image models", _query_replicate(settings))
    if problem is not None or not demo:
        out.part(f"Replicate at {settings.replicate_api_url}", problem, "the token is valid.")
    if problem is not None:
        return False
    out.table("image_models", map(_as_json, reports), lambda: _print_table(reports))
    return all(report.passed for report in reports)


async def _query_replicate(settings: Settings) -> tuple[str | None, list[ImageModelReport]]:
    """Return the problem with the token or the connection, or None, and the reports."""
    async with open_replicate(settings) as replicate:
        try:
            await replicate.account()
        except ProxyError as error:
            return error.log or error.message, []
        return None, await _examine_all(settings, replicate)


async def _examine_all(settings: Settings, replicate: ReplicateClient) -> list[ImageModelReport]:
    models = ImageModels(settings, replicate, time.monotonic)
    chosen = {name: models.choose(name) for name in models.listed}
    upscalers = dict.fromkeys(model.upscaler for model in chosen.values() if model.upscaler is not None)
    refs = dict.fromkeys([*(model.ref for model in chosen.values()), *upscalers])
    slots = asyncio.Semaphore(CONCURRENCY)

    async def fetch(ref: ModelRef) -> ModelInputs | ProxyError:
        async with slots:
            try:
                return await fetch_inputs(replicate, ref)
            except ProxyError as error:
                return error

    inputs = dict(zip(refs, await asyncio.gather(*(fetch(ref) for ref in refs)), strict=True))
    reports = []
    for name, model in chosen.items():
        shown = f"{name} (default)" if name == settings.image_model else name
        upscaler = inputs.get(model.upscaler) if model.upscaler is not None else None
        reports.append(_examine(settings, shown, model, inputs[model.ref], upscaler))
    return [*reports, *(_examine_upscaler(ref, inputs[ref]) for ref in upscalers)]


def _examine(
    settings: Settings,
    name: str,
    model: ImageModel,
    inputs: ModelInputs | ProxyError,
    upscaler: ModelInputs | ProxyError | None,
) -> ImageModelReport:
    if isinstance(inputs, ProxyError):
        # A version without a name can run, with guessed inputs: Replicate has no schema for it.
        unknown = model.ref.name is None and model.ref.deployment is None
        return ImageModelReport(name, [], [Finding("note", inputs.message) if unknown else _problem(inputs)])
    rows = header_support(settings, model, inputs, upscaler if isinstance(upscaler, ModelInputs) else None)
    return ImageModelReport(name, rows, [*_defaults(model, inputs), *_needs(model, inputs)])


def _examine_upscaler(ref: ModelRef, inputs: ModelInputs | ProxyError) -> ImageModelReport:
    findings = []
    if isinstance(inputs, ProxyError):
        findings.append(_problem(inputs))
    elif picture_input(inputs, "init_image") is None:
        findings.append(
            Finding("problem", "This model has no input for a picture, so it cannot upscale one. Choose another.")
        )
    return ImageModelReport(f"{ref} (upscaler)", [], findings)


def _problem(error: ProxyError) -> Finding:
    return Finding("problem", error.log or error.message)


def _defaults(model: ImageModel, inputs: ModelInputs) -> Iterator[Finding]:
    for name, value in model.defaults.items():
        field = inputs.fields.get(name)
        if field is None:
            yield Finding("problem", f"inputs sets {name!r}, which is not an input of the model. Remove it.")
            continue
        try:
            field.accept(value, f"{name} of inputs")
        except InvalidRequest as error:
            yield Finding("problem", error.message)


def _needs(model: ImageModel, inputs: ModelInputs) -> Iterator[Finding]:
    """Yield notes about required inputs that a plain generation request does not set."""
    picture = picture_input(inputs, "init_image")
    for field in inputs.fields.values():
        if not field.required or field.default is not None or field.name in (*PROMPT_NAMES, *model.defaults):
            continue
        if picture is not None and field.name == picture.name:
            yield Finding("note", f"The model requires an input picture ({field.name}), so it supports edits only.")
        else:
            yield Finding(
                "note",
                f"The model requires the input {field.name!r} ({field.takes}). Set it in inputs of the model, "
                "or send it in the object `input` of each request.",
            )


def _print_table(reports: list[ImageModelReport]) -> None:
    table = Table("Image model", "Works", "Supported headers", "Unsupported headers", show_lines=True)
    rows = []
    for report in reports:
        name, works = escape(report.name), shown_result(report.passed)
        supported = ", ".join(_short(row) for row in report.rows if row.takes is not None)
        unsupported = ", ".join(_short(row) for row in report.rows if row.takes is None)
        table.add_row(name, works, fill(supported, COLUMN_WIDTH), fill(unsupported, COLUMN_WIDTH))
        headers = f"\nsupported headers: {supported}\nunsupported headers: {unsupported}" if report.rows else ""
        rows.append((name, f"works: {works}{headers}"))
    print_table(table, rows)
    print_findings([(report.name, finding) for report in reports for finding in report.findings])


def _as_json(report: ImageModelReport) -> dict[str, object]:
    return {
        "model": report.name,
        "works": report.passed,
        "supported_headers": [row.header for row in report.rows if row.takes is not None],
        "unsupported_headers": [row.header for row in report.rows if row.takes is None],
        "findings": findings_as_json(report.findings),
    }


def _short(row: HeaderSupport) -> str:
    return row.header.removeprefix("X-").removeprefix("Replicate-")


# Storage and IPFS


def _check_store(settings: Settings, out: CheckOutput) -> bool:
    problem = run_shown("Checking the picture store", _store_problem(settings))
    return out.part("Pictures in PICTURE_STORE", problem, "reachable. Writing is not tested.")


async def _store_problem(settings: Settings) -> str | None:
    try:
        store = open_picture_store(settings)
        try:
            await store.record(ABSENT_PICTURE)
        finally:
            await store.close()
    except SettingsError as error:
        return " ".join(error.problems)
    except ProxyError as error:
        return error.log or error.message
    return None


def _check_directory(settings: Settings, out: CheckOutput) -> bool:
    """Check the directory, or the nearest existing parent in which it would be created. Creates nothing."""
    directory = Path(settings.image_storage_dir).expanduser()
    free = decimal(shutil.disk_usage(existing_part(directory)).free)
    return out.part("Pictures", picture_problem(settings), f"{directory} is writable, {free} free.")


def _check_ipfs(settings: Settings, out: CheckOutput) -> bool:
    problem = run_shown("Checking IPFS", _ipfs_problem(settings))
    # A service's URL may hold a key in its query.
    address = (settings.ipfs_upload_url or "").partition("?")[0]
    return out.part(f"IPFS at {address}", problem, "reachable, accepts uploads.")


async def _ipfs_problem(settings: Settings) -> str | None:
    http = HttpClient(connect_timeout=settings.connect_timeout, network=Network(settings))
    ipfs = ipfs_client(settings, http)
    assert ipfs is not None
    try:
        await ipfs.probe()
    except ProxyError as error:
        outage = isinstance(error, UpstreamUnreachable) and error.log  # a sentence that needs no introduction
        return error.log if outage else error.with_reason
    finally:
        await http.close()
    return None
