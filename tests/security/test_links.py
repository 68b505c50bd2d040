"""Symbolic links where the proxy stores its files: it follows only those that the operator made on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureFacts
from openai_dify_proxy.pictures.writer import PictureWriter
from openai_dify_proxy.state import Get, Put
from openai_dify_proxy.state.sqlite import SqliteStore
from tests.pictures.samples import encode, image

DATA = encode(image(), "PNG")
SECRET = b"not a picture"


async def stored_name(directory: Path) -> str:
    store = LocalPictures(directory)
    stored = await PictureWriter(store, limit=1_000_000).store(DATA, PictureFacts(created=1))
    await store.close()
    return stored.record.name


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_the_directory_of_pictures_may_be_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "pictures"
    real.mkdir(mode=0o755)
    link.symlink_to(real)
    name = await stored_name(link)
    assert await LocalPictures(link).read(name) == DATA
    assert link.is_symlink()
    assert {mode(path) for path in real.rglob("*") if path.is_file()} == {0o600}


@pytest.mark.parametrize("suffix", [".png", ".json"])
async def test_a_planted_link_is_replaced_and_its_target_untouched(tmp_path: Path, suffix: str) -> None:
    """Writing goes to a file with a random name, which then replaces the link."""
    name = await stored_name(tmp_path / "elsewhere")
    outside = tmp_path / "outside"
    outside.write_bytes(SECRET)
    planted = (tmp_path / "pictures" / name[:2] / name[2:4] / name).with_suffix(suffix)
    planted.parent.mkdir(parents=True)
    planted.symlink_to(outside)
    assert await stored_name(tmp_path / "pictures") == name
    assert outside.read_bytes() == SECRET
    assert not planted.is_symlink()


async def test_a_link_in_place_of_a_folder_leads_to_no_other_names(tmp_path: Path) -> None:
    name = await stored_name(tmp_path / "elsewhere")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(SECRET)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / name[:2]).symlink_to(outside)
    store = LocalPictures(pictures)
    for odd in ("secret.png", f"{name[:2]}/secret.png", "../outside/secret.png", f"../../{name}"):
        assert await store.record(odd) is None
    await store.close()


async def test_deleting_a_link_keeps_its_target(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    name = await stored_name(pictures)
    picture = pictures / name[:2] / name[2:4] / name
    outside = tmp_path / "outside.png"
    picture.rename(outside)
    picture.symlink_to(outside)
    store = LocalPictures(pictures)
    assert await store.delete(name)
    await store.close()
    assert outside.read_bytes() == DATA


async def test_the_file_of_the_state_may_be_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "volume" / "real.db", tmp_path / "state.db"
    real.parent.mkdir()
    link.symlink_to(real)
    for _ in range(2):
        store = SqliteStore(link, max_entries=10)
        await store.run(Put("kind:a", b"x"))
        assert await store.run(Get("kind:a")) == [b"x"]
        await store.close()
    assert link.is_symlink()
    assert {mode(path) for path in real.parent.iterdir()} == {0o600}
