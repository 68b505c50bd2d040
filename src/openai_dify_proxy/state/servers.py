"""Connections to Valkey and Redis: to a single server, or to a cluster."""

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
        """Send all commands at once and return a reply for each; a rejection is an exception in its place.

        Raises the library's errors where there are no replies.
        """
        ...

    async def close(self) -> None: ...


def open_server(url: str) -> Server:
    """Prepare the connections; none is made yet. Raises SettingsError for a URL that the library rejects."""
    scheme, _, rest = url.partition("://")
    kind, _, cluster = scheme.lower().partition("+")
    plain = {"valkey": "redis", "valkeys": "rediss"}.get(kind, kind) + "://" + rest
    try:
        return Cluster(plain) if cluster else SingleServer(plain)
    except ValueError:
        # Its text may hold a part of the password, when that has a character that ends it.
        raise SettingsError(["STATE_URL is not a URL, or an option in it has a value that it cannot have"]) from None
    except (RedisError, TypeError) as error:
        raise SettingsError([f"STATE_URL cannot be used: {error}"]) from None


class SingleServer:
    """Does without the library's pipelines, which take half as long again for the same bytes."""

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
            if not complete:  # unread replies must not be taken for those to the next commands
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def close(self) -> None:
        await self._pool.aclose()


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal


class Cluster:
    """Uses the library's pipelines, which know the server of each key."""

    def __init__(self, url: str) -> None:
        self._cluster = RedisCluster.from_url(url, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0))

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._cluster.pipeline()
        for command in commands:
            # Without the option the library takes the old value that a SET returns for an error.
            pipeline.execute_command(*command, get=True)
        return await pipeline.execute(raise_on_error=False)

    async def close(self) -> None:
        await self._cluster.aclose()
