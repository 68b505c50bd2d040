"""``check`` for the state: whether it can be reached and written."""

from __future__ import annotations

import asyncio

import typer

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import Put, StateUnavailable, open_store

TIMEOUT = 5.0
"""Seconds to wait for the store."""


def check_state(settings: Settings) -> bool:
    """Print the result, and return whether the state can be written."""
    scheme = settings.state_url.get_secret_value().partition(":")[0]
    problem = asyncio.run(_problem(settings))
    if problem is not None:
        typer.echo(f"State ({scheme}): {problem}")
        return False
    typer.echo(f"State ({scheme}): writable.")
    return True


async def _problem(settings: Settings) -> str | None:
    store = await open_store(settings.state_url.get_secret_value(), max_entries=settings.state_max_entries)
    try:
        async with asyncio.timeout(TIMEOUT):
            await store.run(Put("check", b"1", 1.0))
    except TimeoutError:
        return f"it does not respond within {TIMEOUT:g} seconds."
    except StateUnavailable as error:
        return str(error)
    finally:
        await store.close()
    return None
