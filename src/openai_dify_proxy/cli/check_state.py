"""``check`` for the state: whether it can be reached and written."""

from __future__ import annotations

import asyncio

from openai_dify_proxy.cli.check_output import CheckOutput
from openai_dify_proxy.cli.key_commands import stored_keys
from openai_dify_proxy.cli.output import run_shown
from openai_dify_proxy.cli.storage import state_problem
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import Put, StateUnavailable, open_store, sqlite_path
from openai_dify_proxy.state.store import Count, Draw

TIMEOUT = 5.0
"""Seconds to wait for the store."""


def check_state(settings: Settings, out: CheckOutput) -> bool:
    """Print the result, and return whether the state can be written."""
    url = settings.state_url.get_secret_value()
    subject = f"State ({url.partition(':')[0]})"
    problem = state_problem(settings) or run_shown("Checking the state", _problem(settings))
    path = sqlite_path(url)
    works = out.part(subject, problem, f"{'' if path is None else f'{path} is '}writable.")
    return works and _check_keys(settings, out)


def _check_keys(settings: Settings, out: CheckOutput) -> bool:
    """Print how many client keys there are, and return whether the server may start with them."""
    stored = stored_keys(settings)
    active = sum(key.revoked_at is None for key in stored)
    numbers = f"{settings.number_of_keys} in the settings, {active} in the state."
    problem = None if settings.unprotected is None or stored else f"{settings.unprotected}."
    return out.part("Client keys", problem, numbers)


async def _problem(settings: Settings) -> str | None:
    store = await open_store(
        settings.state_url.get_secret_value(),
        max_entries=settings.state_max_entries,
        max_bytes=settings.state_max_bytes,
        timeout=2 * TIMEOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            # On a server, counts and buckets need other rights than values.
            await store.run(
                Put("check", b"1", 1.0), Count("check:counts", 1.0, (("check", 1),)), Draw("check:bucket", 1, 1)
            )
    except TimeoutError:
        return f"The state did not respond within {TIMEOUT:g} s. Check STATE_URL."
    except StateUnavailable as error:
        return f"{error}. Check STATE_URL."
    finally:
        await store.close()
    return None
