"""Compare computed CIDs with those of other programs.

The CIDs of more than one chunk come from js-ipfs 0.18, for the bytes of ``content``; tests/components compares others
with a running node.
"""

from __future__ import annotations

import hashlib

import pytest

from openai_dify_proxy.translate.pictures.ipfs_cid import CHUNK_SIZE, IMPORT_PARAMETERS, compute_cid, normalize_cid


def content(size: int) -> bytes:
    """Return reproducible bytes: the SHA-256 hashes of a counter."""
    blocks = (hashlib.sha256(number.to_bytes(4)).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


@pytest.mark.parametrize(
    ("data", "cid"),
    [
        # Well-known CIDs: the empty file, and "hello world" without a line end.
        (b"", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (b"hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
        (content(1), "bafkreibovfyp6y5oyxl2afgkmrd6y5b5horxiufyl264xnmcwce3agkpui"),
        (content(CHUNK_SIZE - 1), "bafkreibd3fiw3lli2rhfm7jw5zvgkj3k6cs4ti2dgmzysjxruqbzgbzwoy"),
        (content(CHUNK_SIZE), "bafkreic4gt3jdy3xkg3piti4m2za7z7d3rs7objq23cyknnklcs6pmlbhq"),
        (content(CHUNK_SIZE + 1), "bafybeich523peexfkagfpfnagh6rwbgj7w6n4srga7lqikta3rszpa4mmu"),
        (content(2 * CHUNK_SIZE), "bafybeigwt77ksn3he5z4plj4lvrjz47p5ogcxkqco7gex7vhh44vfa64a4"),
    ],
)
def test_the_cid_equals_that_of_other_programs(data: bytes, cid: str) -> None:
    assert compute_cid(data) == cid


@pytest.mark.parametrize(
    ("chunks", "more", "cid"),
    [
        (174, 0, "bafybeieqxkdb7dofank26vlt4uwht4jhkcpugzlvql7optxzl6darxh5om"),
        (174, 1, "bafybeihcamszqxn2dhhfurvocjpou3dndq37xtngdkc4ygkqg55j4wa53e"),
        (175, 5, "bafybeihphwbp5spq7lojfvz4gnnjazasfihuutfsru4b7isn6mpyvveg74"),
    ],
)
def test_a_file_of_more_chunks_than_a_node_has_links_gets_a_second_level(chunks: int, more: int, cid: str) -> None:
    size = chunks * CHUNK_SIZE + more
    data = (hashlib.sha256(b"x").digest() * (size // 32 + 1))[:size]
    assert compute_cid(data) == cid


def test_upload_parameters_select_the_same_chunks() -> None:
    assert dict(IMPORT_PARAMETERS) == {
        "cid-version": "1",
        "raw-leaves": "true",
        "chunker": "size-262144",
        "hash": "sha2-256",
        "pin": "true",
        "progress": "false",
        "cid-base": "base32",
    }


HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


@pytest.mark.parametrize(
    ("text", "cid"),
    [
        (HELLO, HELLO),
        (HELLO.upper(), HELLO),
        ("f01551220" + hashlib.sha256(b"hello world").hexdigest(), HELLO),
        ("F01551220" + hashlib.sha256(b"hello world").hexdigest().upper(), HELLO),
        # The example of https://docs.ipfs.tech/concepts/content-addressing/, in version 0 and 1.
        (
            "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        ),
        (
            "zdj7Wic6KcJAfWz1c9o4M6kq9Lwd5BfbxkVafnrojaaGiSFxM",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        ),
        ("zb2rhj7crUKTQYRGCRATFaQ6YFLTde2YzdqbbhAASkL9uRDXn", HELLO),
    ],
)
def test_every_spelling_is_normalized(text: str, cid: str) -> None:
    assert normalize_cid(text) == cid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "b",
        "bafkrei",
        "b!!!!",
        HELLO[:-1],
        HELLO + "a",
        "Qm" + "0" * 44,  # there is no 0 in base58
        "Qmshort",
        "z111",
        "f0155",
        "f01711220é",
        "f0155" + "1114" + "00" * 20,  # SHA-1
        "f01701220" + "00" * 31,
        "f02551220" + "00" * 32,  # version 2
        "f01711220" + "00" * 33,
        "m" + HELLO[1:],
    ],
)
def test_other_texts_are_not_cids(text: str) -> None:
    assert normalize_cid(text) is None
