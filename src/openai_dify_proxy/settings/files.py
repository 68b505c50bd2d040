"""The settings for files in requests and in answers; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass

from openai_dify_proxy.settings.values import Bytes, IgnoredFiles, Seconds


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Files"""

    ignored_files: IgnoredFiles = "reject"
    """How to treat [files](files.md) that the app would ignore, because its uploads are off in Dify: `reject` or
    `warn`.

    `reject` answers with a 400 `files_not_enabled`. `warn` sends the text alone, which then names the files, and names
    them in the response header `X-Unsupported-Parameters`."""
    file_ttl: Seconds = 7 * 86_400
    """How long files that clients [upload](files.md#uploads) are stored, in the state."""
    link_ttl: Seconds = 7 * 86_400
    """How long links to [files of apps](files.md#files-from-apps) work. The files are then erased."""
    max_artifact_bytes: Bytes = 128 * 1024 * 1024
    """The largest file of an app that is stored."""
    artifact_storage_bytes: Bytes = 10 * 1024**3
    """The largest size of all stored files of apps; beyond it, the oldest are erased."""
