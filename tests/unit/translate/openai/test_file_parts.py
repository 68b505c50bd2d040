from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.file_parts import MAX_URL, FileReader, read_dify_files
from openai_dify_proxy.translate.turn_request import FileContents, SentFile
from openai_dify_proxy.wire.openai.chat import MAX_FILES, ContentPart, RequestFile

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
ENCODED = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{ENCODED}"
URL = "https://example.org/a/My%20photo.JPG?x=1#y"


def read(part: dict[str, Any], reader: FileReader | None = None) -> SentFile:
    decoded = json.decode(json.encode(part), type=ContentPart)
    return (reader or FileReader()).read(decoded, "messages[0].content[1]")


def nested(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, kind: fields}


DATA: dict[str, dict[str, Any]] = {
    "image_url": nested("image_url", url=URI, detail="low"),
    "image_url as a string": {"type": "image_url", "image_url": URI},
    "input_image": {"type": "input_image", "image_url": URI},
    "an upper-case scheme": {"type": "input_image", "image_url": URI.replace("data:image", "DATA:Image")},
    "file": nested("file", file_data=URI),
    "file in base64": nested("file", file_data=ENCODED),
    "file as a string": {"type": "file", "file": ENCODED},
    "input_file": {"type": "input_file", "file_data": URI},
    "input_audio": nested("input_audio", data=ENCODED, format="wav"),
    "video_url": nested("video_url", url=URI),
    "audio_url": {"type": "audio_url", "audio_url": URI},
    "without padding": nested("file", file_data=ENCODED.rstrip("=")),
    "URL-safe": nested("file", file_data=base64.urlsafe_b64encode(PNG).decode()),
    "with line breaks": nested("file", file_data=base64.encodebytes(PNG).decode()),
    "percent-encoded": {
        "type": "input_image",
        "image_url": "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    },
    "with parameters": {"type": "input_image", "image_url": f"data:image/png;name=a.png;base64,{ENCODED}"},
}


@pytest.mark.parametrize("case", DATA)
def test_every_form_of_data_is_decoded(case: str) -> None:
    reader = FileReader()
    file = read(DATA[case], reader)
    assert (file.kind, file.extension, file.media_type, file.size) == ("image", "png", "image/png", len(PNG))
    assert file.digest == hashlib.sha256(PNG).hexdigest()
    assert reader.contents is not None
    assert reader.contents.get(file.digest) == PNG


def test_escaped_slashes_are_decoded() -> None:
    body = b'{"type":"image_url","image_url":"' + URI.replace("/", "\\/").encode() + b'"}'
    assert FileReader().read(json.decode(body, type=ContentPart), "p").size == len(PNG)


@pytest.mark.parametrize(
    "part",
    [
        nested("image_url", url=URL),
        {"type": "image_url", "image_url": URL},
        {"type": "input_image", "image_url": URL},
        {"type": "input_file", "file_url": URL},
        nested("file", file_url=URL),
    ],
)
def test_urls_are_not_read(part: dict[str, Any]) -> None:
    file = read(part)
    assert (file.kind, file.url, file.file_name, file.digest) == ("image", URL, "My photo.jpg", "")
    assert file.identity == URL


@pytest.mark.parametrize(
    ("part", "kind", "name"),
    [
        (nested("image_url", url="http://a"), "image", "image"),
        (nested("image_url", url="http://a/b.php"), "image", "b.php"),
        (nested("video_url", url="http://a/b"), "video", "b"),
        ({"type": "input_file", "file_url": "http://a/b.php", "filename": "c.pdf"}, "document", "c.pdf"),
    ],
)
def test_the_class_of_a_url(part: dict[str, Any], kind: str, name: str) -> None:
    file = read(part)
    assert (file.kind, file.file_name) == (kind, name)


@pytest.mark.parametrize(
    "part",
    [
        nested("file", file_id="file-1"),
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_id": "file-1"},
    ],
)
def test_ids_of_files(part: dict[str, Any]) -> None:
    assert read(part).identity == "file-1"


def test_the_name_comes_from_the_client() -> None:
    assert read(nested("file", file_data=URI, filename="dir/photo.jpeg")).file_name == "photo.png"
    assert read({"type": "input_file", "file_data": URI, "filename": "photo"}).file_name == "photo.png"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"type": "image_url"}, ".image_url", "missing_required_parameter"),
    "an empty object": (nested("image_url"), ".image_url.url", "missing_required_parameter"),
    "no file": ({"type": "input_file"}, ".file", "missing_required_parameter"),
    "no data": (nested("input_audio", format="wav"), ".input_audio.data", "missing_required_parameter"),
    "no file data": (nested("file", filename="a"), ".file.file_data", "missing_required_parameter"),
    "a number": ({"type": "image_url", "image_url": 5}, ".image_url", "invalid_type"),
    "a list": ({"type": "image_url", "image_url": [URI]}, ".image_url", "invalid_type"),
    "a number as a URL": (nested("image_url", url=5), ".image_url", "invalid_type"),
    "a number as a name": (nested("file", file_data=URI, filename=5), ".file.filename", "invalid_type"),
    "a relative URL": (nested("image_url", url="/a.png"), "", "invalid_value"),
    "a local file": (nested("image_url", url="file:///etc/passwd"), "", "invalid_value"),
    "base64 alone": (nested("image_url", url=ENCODED), "", "invalid_value"),
    "a data URI without a comma": (nested("image_url", url="data:image/png;base64"), "", "invalid_value"),
    "a late comma": (nested("image_url", url=f"data:{'a' * 2000},"), "", "invalid_value"),
    "bad base64": (nested("image_url", url="data:image/png;base64,a*b="), "", "invalid_value"),
    "one character of base64": (nested("file", file_data="A"), "", "invalid_value"),
    "no content": (nested("image_url", url="data:image/png;base64,"), "", "invalid_value"),
    "a long URL": (nested("image_url", url=f"http://a/{'b' * MAX_URL}"), "", "string_above_max_length"),
    "a long id": (nested("file", file_id="f" * 300), ".file.file_id", "string_above_max_length"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_files_are_rejected_with_their_path(case: str) -> None:
    part, path, code = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        read(part)
    assert (caught.value.param, caught.value.code) == (f"messages[0].content[1]{path}", code)


@pytest.mark.parametrize("value", [b'"\xff"', b'"\\u00e9\xff"', b'{"url":"\xff"}', b'{"\xff":1,"url":"\\n\xff"}'])
def test_malformed_characters_are_rejected(value: bytes) -> None:
    part = json.decode(b'{"type":"image_url","image_url":%b}' % value, type=ContentPart)
    with pytest.raises(InvalidRequest):
        FileReader().read(part, "p")


def test_escapes_are_read_in_names() -> None:
    part = json.decode(b'{"type":"input_file","filename":"\\u00e9.md","file_url":"http://a"}', type=ContentPart)
    assert FileReader().read(part, "p").file_name == "é.md"


def test_a_request_has_a_limited_number_of_files() -> None:
    reader = FileReader()
    for _ in range(MAX_FILES):
        read(nested("image_url", url=URL), reader)
    with pytest.raises(InvalidRequest) as caught:
        read(nested("image_url", url=URL), reader)
    assert caught.value.code == "too_many_files"


def test_equal_contents_are_in_memory_once() -> None:
    reader = FileReader()
    read(nested("image_url", url=URI), reader)
    read(nested("file", file_data=ENCODED), reader)
    assert reader.contents is not None
    assert reader.contents.size == len(PNG)


def test_dropped_contents_are_gone() -> None:
    dropped: list[int] = []
    contents = FileContents()
    contents.add("a", b"x")
    contents.on_drop = lambda: dropped.append(1)
    contents.drop()
    contents.drop()
    assert (contents.get("a"), contents.size, dropped) == (None, 0, [1])


def test_files_in_difys_own_form() -> None:
    files = [
        RequestFile("image", "remote_url", url="https://a/b.png"),
        RequestFile("document", "local_file", upload_file_id="1"),
    ]
    remote, local = read_dify_files(files)
    assert (remote.kind, remote.url, remote.param) == ("image", "https://a/b.png", "files[0]")
    assert (local.kind, local.upload_id, local.identity) == ("document", "1", "1")
    assert read_dify_files(None) == ()


@pytest.mark.parametrize(
    ("file", "param"),
    [
        (RequestFile("image", "remote_url"), "files[0].url"),
        (RequestFile("image", "remote_url", url=URI), "files[0].url"),
        (RequestFile("image", "local_file"), "files[0].upload_file_id"),
    ],
)
def test_malformed_files_in_difys_form_are_rejected(file: RequestFile, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_dify_files([file])
    assert caught.value.param == param
