"""Whether the state can be reached and written."""

from __future__ import annotations

import asyncio

import typer

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import Put, StateUnavailable, open_store

PATIENCE = 5.0
"""Seconds for an answer."""


def check_state(settings: Settings) -> bool:
    """Prints what was found; conversations begin anew each time where the state does not answer."""
    scheme = settings.state_url.get_secret_value().partition(":")[0]
    problem = asyncio.run(_problem(settings))
    if problem is not None:
        typer.echo(f"State ({scheme}): {problem}")
        return False
    typer.echo(f"State ({scheme}): can be written.")
    return True


async def _problem(settings: Settings) -> str | None:
    store = await open_store(settings.state_url.get_secret_value(), max_entries=settings.state_max_entries)
    try:
        async with asyncio.timeout(PATIENCE):
            await store.run(Put("check", b"1", 1.0))
    except TimeoutError:
        return "it does not answer in time."
    except StateUnavailable as error:
        return str(error)
    finally:
        await store.close()
    return None
