from __future__ import annotations

import io
import zipfile

import pytest

from openai_dify_proxy.translate.file_types import MAX_NAME, detect, extension_of, kind_of, safe_name


def zipped(*members: str) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for member in members:
            archive.writestr(member, "application/epub+zip" if member == "mimetype" else "x")
    return output.getvalue()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(24)

# Bytes, the client's name, the extension, and Dify's class.
FILES: dict[str, tuple[bytes, str, str, str]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n", "a.pdf", "png", "image"),
    "JPEG": (b"\xff\xd8\xff\xe0", "", "jpg", "image"),
    "GIF": (b"GIF89a", "", "gif", "image"),
    "WebP": (b"RIFF\0\0\0\0WEBP", "", "webp", "image"),
    "BMP": (b"BM" + bytes(20), "", "bmp", "custom"),
    "PDF": (b"%PDF-1.4", "a.txt", "pdf", "document"),
    "Word": (zipped("[Content_Types].xml", "word/document.xml"), "a.zip", "docx", "document"),
    "Excel": (zipped("xl/workbook.xml"), "", "xlsx", "document"),
    "PowerPoint": (zipped("ppt/presentation.xml"), "", "pptx", "document"),
    "EPUB": (zipped("mimetype", "a.html"), "", "epub", "document"),
    "ZIP": (zipped("a.txt"), "a.docx", "zip", "custom"),
    "old Word": (OLE, "a.DOC", "doc", "document"),
    "old Office of no name": (OLE, "", "bin", "custom"),
    "WAV": (b"RIFF\0\0\0\0WAVE", "", "wav", "audio"),
    "AVI": (b"RIFF\0\0\0\0AVI ", "", "avi", "custom"),
    "other RIFF": (b"RIFF\0\0\0\0xxxx", "", "bin", "custom"),
    "MP3 with tags": (b"ID3\x03", "", "mp3", "audio"),
    "MP3 frames": (b"\xff\xfb\x90\x44", "", "mp3", "audio"),
    "AAC frames": (b"\xff\xf1\x50\x80", "", "aac", "custom"),
    "WAV above 4 GB": (b"RF64\xff\xff\xff\xffWAVEds64", "", "wav", "audio"),
    "FLAC": (b"fLaC", "", "flac", "custom"),
    "AMR": (b"#!AMR\n", "", "amr", "audio"),
    "MPEG": (b"\0\0\x01\xba\x44", "", "mpeg", "video"),
    "UTF-16 that could be a frame of sound": ("aé".encode("utf-16"), "", "txt", "document"),
    "M4A": (b"\0\0\0\x20ftypM4A ", "", "m4a", "audio"),
    "MP4": (b"\0\0\0\x20ftypisom", "a.mov", "mp4", "video"),
    "QuickTime": (b"\0\0\0\x20ftypqt  ", "", "mov", "video"),
    "WebM": (b"\x1aE\xdf\xa3\x01", "", "webm", "video"),
    "Ogg": (b"OggS\0", "", "ogg", "custom"),
    "text": (b"hello", "", "txt", "document"),
    "text of an unknown extension": (b"hello", "a.exe", "txt", "document"),
    "text of a binary name": (b"hello", "a.png", "txt", "document"),
    "Markdown": (b"# Hi", "README.md", "md", "document"),
    "SVG": (b"<svg/>", "a.svg", "svg", "image"),
    "JSON": (b"{}", "a.json", "json", "custom"),
    "UTF-16": ("hé".encode("utf-16"), "a.csv", "csv", "document"),
    "a cut character": (b"a" * 4095 + "é".encode() + b"b", "", "txt", "document"),
    "a cut text": ("é".encode()[:1], "", "bin", "custom"),
    "Latin-1": (b"caf\xe9 au lait", "", "bin", "custom"),
    "binary": (b"\0\1\2\3\4\5", "a.xyz", "bin", "custom"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_type_comes_from_the_bytes(case: str) -> None:
    data, name, extension, kind = FILES[case]
    found = detect(data, name)
    assert (found.extension, found.kind) == (extension, kind)


def test_a_media_type_replaces_a_missing_name() -> None:
    assert detect(b"a,b", media_type="text/CSV; charset=utf-8").extension == "csv"
    assert detect(b"a,b", "a.md", "text/csv").extension == "md"
    assert detect(b"a,b", media_type="image/png").extension == "txt"


@pytest.mark.parametrize(
    ("name", "extension"),
    [("a.PNG", "png"), ("a", ""), ("a.", ""), (".env", "env"), ("a.b c", ""), ("a.verylongextension", "")],
)
def test_the_extension_of_a_name(name: str, extension: str) -> None:
    assert extension_of(name) == extension


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("photo.png", "photo"),
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\me\photo.png", "photo"),
        ('a"b\r\nc.png', "a_b_c"),
        ("..", ""),
        ("", ""),
        ("Übung 1 (neu).pdf", "Übung 1 (neu)"),
        ("a" * 500 + ".png", "a" * MAX_NAME),
        ("a" * 99 + " b.png", "a" * 99),
        ("no extension", "no extension"),
    ],
)
def test_names_are_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_unknown_extensions_are_custom() -> None:
    assert (kind_of("png"), kind_of("exe")) == ("image", "custom")
