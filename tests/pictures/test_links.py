"""Links to stored pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from openai_dify_proxy.pictures.local import LocalPictures
from openai_dify_proxy.pictures.records import PictureRecord
from openai_dify_proxy.pictures.service import Pictures, open_pictures
from openai_dify_proxy.settings import SecretStr, Settings, SettingsError
from openai_dify_proxy.settings.sources import load_settings

RECORD = PictureRecord(
    sha256="ab" * 32,
    extension="png",
    media_type="image/png",
    size=1,
    width=1,
    height=1,
    created=1,
    cid="bafkreia",
    ipfs="pending",
)


@pytest.mark.parametrize(
    ("public_url", "base_url", "expected"),
    [
        (None, "http://127.0.0.1:8223/", "http://127.0.0.1:8223/pictures/"),
        (None, "http://127.0.0.1:8223", "http://127.0.0.1:8223/pictures/"),
        ("https://ai.test/images", "http://127.0.0.1:8223/", "https://ai.test/images/pictures/"),
    ],
)
def test_links(tmp_path: Path, public_url: str | None, base_url: str, expected: str) -> None:
    pictures = Pictures(LocalPictures(tmp_path), public_url=public_url)
    assert pictures.link(RECORD, base_url) == expected + RECORD.name


def test_gateway_links_are_used_for_uploaded_pictures(tmp_path: Path) -> None:
    settings = load_settings(
        env={
            "IMAGE_STORAGE_DIR": str(tmp_path),
            "IPFS_UPLOAD_URL": "http://127.0.0.1:1",
            "IPFS_GATEWAY_URL": "https://{cid}.ipfs.test/",
            "PICTURE_LINKS": "ipfs",
        },
        dotenv=None,
    )
    pictures = open_pictures(settings)
    assert pictures.link(RECORD, "http://here/") == f"http://here/pictures/{RECORD.name}"
    assert pictures.link(replace(RECORD, ipfs="sent"), "http://here/") == "https://bafkreia.ipfs.test/"


def test_links_are_local_by_default_even_for_pictures_on_ipfs(tmp_path: Path) -> None:
    env = {
        "IMAGE_STORAGE_DIR": str(tmp_path),
        "IPFS_UPLOAD_URL": "http://127.0.0.1:1",
        "IPFS_GATEWAY_URL": "https://ipfs.test/ipfs/{cid}",
    }
    pictures = open_pictures(load_settings(env=env, dotenv=None))
    assert pictures.link(replace(RECORD, ipfs="sent"), "http://here/") == f"http://here/pictures/{RECORD.name}"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("s3://bucket?serve=both", "serve=both: it must be proxy or redirect"),
        ("s3://bucket?colour=blue", "PICTURE_STORE cannot be used"),
    ],
)
def test_invalid_options_of_an_object_store_are_rejected(url: str, complaint: str) -> None:
    pytest.importorskip("obstore")
    with pytest.raises(SettingsError, match=complaint):
        open_pictures(Settings(picture_store=SecretStr(url)))
