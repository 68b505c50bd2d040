"""Checks whether the directory of pictures and the file of the state can be written, without creating anything."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from pathlib import Path

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import sqlite_path


def storage_problems(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each place that the server could not write to. Pictures count if image generation is on."""
    if settings.replicate_api_token is not None and settings.picture_store is None:
        yield from filter(None, [picture_problem(settings)])
    yield from filter(None, [state_problem(settings)])


def picture_problem(settings: Settings) -> str | None:
    """Return why pictures cannot be stored in IMAGE_STORAGE_DIR, or None."""
    directory = Path(settings.image_storage_dir).expanduser()
    return _problem("IMAGE_STORAGE_DIR", directory, directory)


def state_problem(settings: Settings) -> str | None:
    """Return why the SQLite file of STATE_URL cannot be written, or None, also for other kinds of state."""
    path = sqlite_path(settings.state_url.get_secret_value())
    if path is None:
        return None
    # SQLite creates its journal in the same directory.
    writable = existing_part(path) != path or os.access(path, os.W_OK)
    return _problem("STATE_URL", path, path.parent, writable=writable)


def _problem(setting: str, path: Path, directory: Path, *, writable: bool = True) -> str | None:
    """Return why ``path`` cannot be written in ``directory``, or in its nearest existing parent, or None."""
    existing = existing_part(directory)
    if not existing.is_dir():
        return f"{setting} '{path}' cannot be created: {existing} is not a directory. Set {setting}."
    if not writable or not os.access(existing, os.W_OK | os.X_OK):
        return f"{setting} '{path}' is not writable by user {user_name()}. Set {setting}."
    return None


def existing_part(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    # Path.exists raises PermissionError below a directory that the user may not enter.
    return next(part for part in (path.absolute(), *path.absolute().parents) if os.path.exists(part))  # noqa: PTH110


def user_name() -> str:
    """Return the name of the user that runs this program, or its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())  # containers run as users without a name
