"""``check`` for the state: can it be reached and written?"""

from __future__ import annotations

import asyncio

import typer

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import Put, StateUnavailable, open_store

ANSWER_SECONDS = 5.0
"""Time limit of an answer."""


def check_state(settings: Settings) -> bool:
    """Print the result, and return whether the state can be written."""
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
        async with asyncio.timeout(ANSWER_SECONDS):
            await store.run(Put("check", b"1", 1.0))
    except TimeoutError:
        return "it does not answer in time."
    except StateUnavailable as error:
        return str(error)
    finally:
        await store.close()
    return None
