"""Connections to Valkey and Redis, single servers and clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from openai_dify_proxy.settings import SettingsError

Command = tuple[str | bytes | int | float, ...]


class Server(Protocol):
    """A single server or a cluster."""

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands at once and return a reply for each; the reply to a rejected command is an exception.

        Raises the library's errors if there are no replies.
        """
        ...

    async def close(self) -> None: ...


def open_server(url: str) -> Server:
    """Prepare the connections without connecting. Raises SettingsError for a URL that the library rejects."""
    scheme, _, rest = url.partition("://")
    kind, _, cluster = scheme.lower().partition("+")
    plain = {"valkey": "redis", "valkeys": "rediss"}.get(kind, kind) + "://" + rest
    try:
        return Cluster(plain) if cluster else SingleServer(plain)
    except ValueError:
        # The error's text may hold part of a password that contains a URL delimiter.
        raise SettingsError(["STATE_URL is not a valid URL, or one of its options has an invalid value"]) from None
    except (RedisError, TypeError) as error:
        raise SettingsError([f"STATE_URL cannot be used: {error}"]) from None


class SingleServer:
    """A single server. The library's pipelines are not used: they take 50 % longer for the same bytes."""

    def __init__(self, url: str) -> None:
        self._pool = ConnectionPool.from_url(url, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0))
        self._pool.make_connection()  # type: ignore[no-untyped-call]  # detects unknown options

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        complete = False
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            replies = [await _reply(connection) for _ in commands]
            complete = True
            return replies
        finally:
            if not complete:  # unread replies would be taken for those of the next commands
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def close(self) -> None:
        await self._pool.aclose()


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as rejection:
        return rejection


class Cluster:
    """A cluster. The library's pipelines find the server of each key."""

    def __init__(self, url: str) -> None:
        self._cluster = RedisCluster.from_url(url, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0))

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._cluster.pipeline()
        for command in commands:
            # Without this option the library treats the old value that SET returns as an error.
            pipeline.execute_command(*command, get=True)
        return await pipeline.execute(raise_on_error=False)

    async def close(self) -> None:
        await self._cluster.aclose()
