"""The response header that names the parameters of a request that have no effect."""

from __future__ import annotations

from collections.abc import Sequence

from openai_dify_proxy.api.responder import Responder

NOTICE_HEADER = "X-Unsupported-Parameters"
MAX_NOTICE_CHARACTERS = 1000


def notice(names: Sequence[str]) -> str:
    """Return the value of the header. Names come from the client: characters that headers cannot hold become "?"."""
    value = ", ".join(names)[:MAX_NOTICE_CHARACTERS]
    return "".join(letter if " " <= letter <= "~" else "?" for letter in value)


def add_notice(responder: Responder, names: Sequence[str]) -> None:
    """Add the header to the response if there are any names."""
    if names:
        header = (NOTICE_HEADER.lower().encode(), notice(names).encode())
        responder.add_headers.append(lambda: (header,))
