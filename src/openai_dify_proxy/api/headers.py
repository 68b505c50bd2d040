"""Request headers that may be sent once: a second value is an error, never silently dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from starlette.requests import Request

from openai_dify_proxy.errors import InvalidRequest


def single_values(headers: Iterable[tuple[bytes, bytes]], is_wanted: Callable[[bytes], bool]) -> dict[bytes, str]:
    """Return the values of the wanted headers by name, without empty ones.

    ``headers`` are the raw headers of an ASGI scope, with names in lower case. Raises InvalidRequest for a header with
    two different values; a repeated value counts once.
    """
    values: dict[bytes, str] = {}
    for name, raw in headers:
        if raw and is_wanted(name):
            value = raw.decode("latin-1").strip()
            if values.setdefault(name, value) != value:
                param = name.decode("latin-1")
                raise InvalidRequest(
                    f"The header '{param}' is sent twice, with different values. Send it once.", param=param
                )
    return {name: value for name, value in values.items() if value}


def client_address(request: Request) -> str:
    """Return the address of the client, or an empty string if it has none."""
    return request.client.host if request.client is not None else ""
