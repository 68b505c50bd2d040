"""Only the server's user can read stored files, also if an older version or a copy left them open."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.service import open_picture_store
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import Put
from openai_dify_proxy.state.sqlite import SqliteStore
from tests.pictures.contract import record

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def modes(folder: Path) -> set[tuple[bool, int]]:
    """Whether each path below is a directory, and its mode."""
    return {(path.is_dir(), mode(path)) for path in folder.rglob("*")}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def allow_everybody(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o664)


async def put(path: Path) -> None:
    store = SqliteStore(path, max_entries=1000)
    await store.run(Put("kind:a", b"one"))
    await store.close()


async def test_the_files_of_the_state_are_repaired(tmp_path: Path) -> None:
    """The directory is not touched: it may hold other files."""
    path = tmp_path / "state.db"
    await put(path)
    assert modes(tmp_path) == {(False, 0o600)}
    allow_everybody(tmp_path)
    store = SqliteStore(path, max_entries=1000)
    await store.run(Put("kind:a", b"one"))
    assert modes(tmp_path) == {(False, 0o600)}
    assert names(tmp_path) >= {"state.db", "state.db-wal", "state.db-shm", "state.db.lock"}
    await store.close()


async def test_pictures_are_for_this_user_alone(tmp_path: Path) -> None:
    store = LocalPictures(tmp_path / "pictures")
    await store.put(b"abc", record(sha256="abcd" + "0" * 60, ipfs="pending"))
    assert await store.take_lease()
    assert modes(tmp_path) == {(True, 0o700), (False, 0o600)}
    await store.close()


def test_the_directory_of_pictures_is_repaired(tmp_path: Path) -> None:
    settings = Settings(image_storage_dir=str(tmp_path / "pictures"))
    open_picture_store(settings)  # it does not exist yet
    (tmp_path / "pictures").mkdir(0o755)
    with capture_logs() as logs:
        open_picture_store(settings)
    assert (mode(tmp_path / "pictures"), logs) == (0o700, [])


async def test_permissions_of_another_user_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a file's owner may change them; the tests may run as root, who may change all."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "state.db"
    await put(path)
    allow_everybody(tmp_path)
    monkeypatch.setattr(Path, "chmod", refuse)
    with capture_logs() as logs:
        await put(path)
        tmp_path.joinpath("pictures").mkdir(0o755)
        open_picture_store(Settings(image_storage_dir=str(tmp_path / "pictures")))
    assert [(line["event"], line["path"], line["reason"]) for line in logs] == [
        ("state_readable_by_others", str(path), "Operation not permitted"),
        ("pictures_readable_by_others", str(tmp_path / "pictures"), "Operation not permitted"),
    ]
