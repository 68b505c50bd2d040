"""The command ``pictures``: list the stored pictures, or upload the pending ones to IPFS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from openai_dify_proxy.cli.output import print_json, print_table, run_shown
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.images.ipfs_uploads import CONCURRENT_UPLOADS, IpfsUploads
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.service import open_picture_store
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.telemetry import configure_logging
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import ipfs_client
from openai_dify_proxy.upstream.network import Network


def list_pictures(settings: Settings, *, pending: bool, as_json: bool) -> None:
    """Print the stored pictures, newest first. Raises ProxyError, and SettingsError for unusable storage."""
    records = run_shown("Reading the records", _records(settings, pending=pending))
    records.sort(key=lambda record: record.created, reverse=True)
    if as_json:
        print_json([_as_json(record) for record in records])
        return
    if records:
        _print(records)
    waiting = sum(record.ipfs == "pending" for record in records)
    size = decimal(sum(record.size for record in records))
    if pending:
        typer.echo(f"{_count(len(records))} pending for IPFS, {size}.")
    else:
        rest = f", {waiting} of them pending for IPFS" if waiting else ""
        typer.echo(f"{_count(len(records))}, {size}{rest}.")


def send_pictures(settings: Settings) -> bool:
    """Upload pending pictures to IPFS, and return whether none is left. Raises the same errors as ``list_pictures``."""
    if settings.ipfs_upload_url is None:
        raise SettingsError(["IPFS_UPLOAD_URL is not set. Set it to the upload URL of an IPFS node or service"])
    configure_logging("warning")
    return asyncio.run(_send(settings))


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[PictureStore]:
    store = open_picture_store(settings)
    try:
        yield store
    finally:
        await store.close()


async def _records(settings: Settings, *, pending: bool) -> list[PictureRecord]:
    async with _store(settings) as store:
        if not pending:
            return [record async for record in store.records()]
        records = [await store.record(name) for name in await store.pending()]
        return [record for record in records if record is not None and record.ipfs == "pending"]


async def _send(settings: Settings) -> bool:
    http = HttpClient(connect_timeout=settings.connect_timeout, network=Network(settings))
    try:
        async with _store(settings) as store:
            ipfs = ipfs_client(settings, http)
            assert ipfs is not None
            names = await store.pending()
            failures = await _send_all(IpfsUploads(store, ipfs), names)
            left = len(await store.pending())
    finally:
        await http.close()
    for name, error in failures.items():
        typer.echo(f"Not uploaded: {name}: {error.with_reason}", err=True)
    typer.echo(f"{_count(len(names) - len(failures))} uploaded to IPFS, {left or 'none'} pending.")
    return left == 0


async def _send_all(uploads: IpfsUploads, names: list[str]) -> dict[str, ProxyError]:
    """Upload the pictures, and return the failures. A running server may upload the same ones: the CIDs are equal."""
    slots = asyncio.Semaphore(CONCURRENT_UPLOADS)
    failures: dict[str, ProxyError] = {}
    columns = (TextColumn("Uploading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("Uploading", total=len(names))

        async def send(name: str) -> None:
            async with slots:
                try:
                    await uploads.upload(name)
                except ProxyError as error:
                    failures[name] = error
                progress.advance(bar)

        await asyncio.gather(*(send(name) for name in names))
    return failures


def _print(records: list[PictureRecord]) -> None:
    """Print the records without empty columns."""
    cells = [_cells(record) for record in records]
    used = [number for number in range(len(COLUMNS)) if any(row[number] not in {"", "off"} for row in cells)]
    table = Table(*(COLUMNS[number] for number in used))
    for row in cells:
        table.add_row(*(escape(row[number]) for number in used))
    print_table(
        table, ((escape(row[0]), escape(", ".join(row[number] for number in used[1:] if row[number]))) for row in cells)
    )


COLUMNS = ("Name", "Size", "Dimensions", "Model", "Created (UTC)", "IPFS", "CID")


def _cells(record: PictureRecord) -> tuple[str, ...]:
    return (
        record.name,
        decimal(record.size),
        f"{record.width}x{record.height}",
        record.model or "",
        datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M"),
        record.ipfs,
        (record.cid or "") if record.ipfs != "off" else "",
    )


def _count(number: int) -> str:
    return f"{number} picture{'' if number == 1 else 's'}"


def _as_json(record: PictureRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "media_type": record.media_type,
        "size": record.size,
        "width": record.width,
        "height": record.height,
        "created": record.created,
        "model": record.model,
        "prediction_id": record.prediction_id,
        "seed": record.seed,
        "cid": record.cid,
        "ipfs": record.ipfs,
    }
