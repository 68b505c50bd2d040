"""Reads the URLs of clients' files. aiohttp is loaded with the first URL, since few requests have any."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai_dify_proxy.upstream.network import Network

if TYPE_CHECKING:
    from openai_dify_proxy.upstream.fetch import GuardedFetcher

FETCH_SECONDS = 20.0
"""Time limit of all files of a turn: it holds a slot of its Dify meanwhile."""


class UrlFiles:
    """Reads and checks URLs of clients. ``fetcher`` replaces the guarded fetcher in tests."""

    def __init__(self, connect_timeout: float, network: Network, fetcher: GuardedFetcher | None = None) -> None:
        self._connect_timeout = connect_timeout
        self._network = network
        self._fetcher = fetcher

    async def close(self) -> None:
        if self._fetcher is not None:
            await self._fetcher.close()

    def check(self, url: str, param: str) -> str:
        """Return a URL that Dify will fetch. Raises InvalidRequest if its host is a private address."""
        from openai_dify_proxy.upstream.client_urls import ClientUrls  # noqa: PLC0415 - loads yarl

        return ClientUrls(()).check(url, param)

    async def read(self, url: str, limit: int, param: str) -> bytes:
        """Return the content of a public URL, at most ``limit`` bytes. Raises InvalidRequest."""
        if self._fetcher is None:
            from openai_dify_proxy.upstream.fetch import GuardedFetcher  # noqa: PLC0415 - loads aiohttp

            self._fetcher = GuardedFetcher(
                connect_timeout=self._connect_timeout, seconds=FETCH_SECONDS, network=self._network
            )
        return await self._fetcher.read(url, limit, param)
