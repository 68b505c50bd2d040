"""The files that a request shows to a model: checks of their references, and their descriptions in the answer."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from openai_dify_proxy_demo.apps import DemoApp
from openai_dify_proxy_demo.dialects import Dialect
from openai_dify_proxy_demo.replies import ApiError

FILE_TYPES = ("image", "document", "audio", "video", "custom")


@dataclass(frozen=True)
class Upload:
    """An uploaded file, without its content."""

    id: str
    app: str
    user: str
    name: str
    described: str = ""
    """Media type, size, hash and, for a picture, dimensions."""


def describe(media_type: str, content: bytes) -> str:
    """Return what a model sees of a file, such as `image/png, 75 bytes, sha 57cda64cead0, 8×8`."""
    words = [media_type, f"{len(content)} bytes", f"sha {hashlib.sha256(content).hexdigest()[:12]}"]
    try:
        with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(content)) as picture:
            words.append(f"{picture.width}×{picture.height}")
    except Exception:  # noqa: BLE001, S110 - Pillow raises many kinds of errors for what is no picture
        pass
    return ", ".join(words)


def check_files(
    uploads: Mapping[str, Upload], user: str, app: DemoApp, dialect: Dialect, files: object
) -> list[dict[str, Any]]:
    """Return the files of a request. Raise ApiError for files that Dify rejects.

    An app whose uploads are off ignores them.
    """
    if files is None:
        return []
    if not isinstance(files, list):
        raise ApiError(400, "invalid_param", "1 validation error\nfiles\n  Input should be a valid list")
    if not app.takes_files:
        return []
    checked = [file for file in files if isinstance(file, dict) and file.get("transfer_method")]
    for file in checked:
        _check_file(uploads, user, app, dialect, file)
    if len(checked) > app.max_files:
        raise ApiError(400, "invalid_param", f"Number of files exceeds the maximum limit {app.max_files}")
    return checked


def files_of_inputs(app: DemoApp, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files in the app's file inputs."""
    values = [inputs.get(field.variable) for field in app.form if field.takes_files]
    return [file for value in values for file in (value if isinstance(value, list) else [value]) if file]


def seen(uploads: Mapping[str, Upload], app: DemoApp, files: list[dict[str, Any]]) -> str:
    """Return what the app's model sees of the files. The model of a New Agent receives none."""
    if app.mode == "agent":
        return ""
    described = []
    for file in files:
        upload = uploads.get(str(file.get("upload_file_id")))
        what = f"{upload.name} ({upload.described})" if upload else file.get("url")
        described.append(f"{file.get('type')} {what}")
    return "; ".join(described)


def _check_file(
    uploads: Mapping[str, Upload], user: str, app: DemoApp, dialect: Dialect, file: Mapping[str, Any]
) -> None:
    if file.get("type") not in FILE_TYPES:
        raise ApiError(400, "invalid_param", f"'{file.get('type')}' is not a valid FileType")
    if file["transfer_method"] == "local_file":
        upload = uploads.get(str(file.get("upload_file_id")))
        if upload is None or (dialect.uploads_bound and (upload.app, upload.user) != (app.name, user)):
            raise ApiError(400, "invalid_param", "Invalid upload file")
    elif file["transfer_method"] != "remote_url":
        raise ApiError(400, "invalid_param", f"'{file['transfer_method']}' is not a valid FileTransferMethod")
    elif not str(file.get("url")).startswith(("http://", "https://")):
        raise ApiError(400, "invalid_param", f"Reached maximum retries (3) for URL {file.get('url')}")
