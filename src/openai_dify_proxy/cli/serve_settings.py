"""Loads and checks the settings of ``serve``, at its start and for each reload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, Self

from openai_dify_proxy.cli.key_commands import has_stored_keys
from openai_dify_proxy.cli.running import load
from openai_dify_proxy.cli.supervision.loaded import LoadedSettings
from openai_dify_proxy.pictures.service import open_picture_store
from openai_dify_proxy.settings import Settings, SettingsError, encode_settings


class Sources(NamedTuple):
    """The command line of ``serve``, and the address that it listens on once it serves."""

    config: str | None
    flags: dict[str, str | None]
    host: str | None = None
    port: int | None = None

    def load(self) -> Settings:
        """Read the settings. Raises SettingsError."""
        return load(None if self.config is None else Path(self.config), **self.flags)

    def served_by(self, settings: Settings) -> Self:
        """Return the sources for the reloads of a server that has started with ``settings``."""
        return self._replace(host=settings.host, port=settings.port)

    def restart_only(self, settings: Settings) -> list[str]:
        """Return the names of the settings that have changed since the start, and need a restart."""
        return [name.upper() for name in ("host", "port") if getattr(settings, name) != getattr(self, name)]

    def to_json(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(*json.loads(text))


def loaded(settings: Settings) -> LoadedSettings:
    """Return the settings for the supervisor."""
    return LoadedSettings(
        settings.workers,
        settings.shutdown_delay,
        settings.shutdown_grace,
        settings.log_level,
        settings.log_format,
        encode_settings(settings),
    )


def check_settings(settings: Settings) -> bool:
    """Return whether requests need a client key.

    Raises SettingsError if PICTURE_STORE cannot be used, or if they need none although anyone could then spend the
    server's credentials. If the state cannot be read, the server starts, and refuses all requests until it can.
    """
    if settings.picture_store is not None:
        open_picture_store(settings)
    needs_key = settings.number_of_keys > 0 or has_stored_keys(settings) is not False
    if settings.unprotected is not None and not needs_key:
        raise SettingsError([settings.unprotected])
    return needs_key
