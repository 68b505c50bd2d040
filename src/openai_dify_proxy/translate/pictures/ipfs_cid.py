"""Computes the CID of a file, its name on IPFS.

The same bytes have different CIDs, depending on how a node splits them into blocks. This module splits them in the
way that ``IMPORT_PARAMETERS`` request from a node: CIDv1, SHA-256, chunks of 256 KiB as raw leaves, and a balanced
tree of dag-pb nodes of up to 174 links above them, as Kubo's ``add`` and js-ipfs build it.

See https://specs.ipfs.tech/unixfs/ and https://github.com/multiformats/cid.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple

CHUNK_SIZE: Final = 256 * 1024
LINKS_PER_NODE: Final = 174

IMPORT_PARAMETERS: Final = (
    ("cid-version", "1"),
    ("raw-leaves", "true"),
    ("chunker", f"size-{CHUNK_SIZE}"),
    ("hash", "sha2-256"),
    ("pin", "true"),
    ("progress", "false"),
    ("cid-base", "base32"),
)
"""The query of Kubo's ``/api/v0/add`` with which a node computes the same CID."""

_RAW = 0x55
_DAG_PB = 0x70
_UNIXFS_FILE = 2
_SHA2_256 = b"\x12\x20"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class _Block(NamedTuple):
    """A leaf or node of the tree. ``file_size`` counts the bytes of the file, ``tree_size`` those of all blocks."""

    cid: bytes
    file_size: int
    tree_size: int


def compute_cid(data: bytes) -> str:
    """Return the CIDv1 of a file in base32: ``bafkrei…`` for one chunk, ``bafybei…`` for more."""
    level = [_leaf(data[at : at + CHUNK_SIZE]) for at in range(0, len(data) or 1, CHUNK_SIZE)]
    while len(level) > 1:
        level = [_node(level[at : at + LINKS_PER_NODE]) for at in range(0, len(level), LINKS_PER_NODE)]
    return _base32(level[0].cid)


def normalize_cid(text: str) -> str | None:
    """Convert a CID in any encoding to CIDv1 in base32, which subdomain gateways require; None for other text."""
    cid = _decode_cid(text)
    return _base32(cid) if cid is not None else None


def _leaf(chunk: bytes) -> _Block:
    return _Block(_cid(_RAW, chunk), len(chunk), len(chunk))


def _node(children: list[_Block]) -> _Block:
    """Return a dag-pb node: a PBLink {Hash, Name, Tsize} for each child, and the UnixFS record as Data."""
    file_size = sum(child.file_size for child in children)
    links = (_bytes(1, child.cid) + _bytes(2, b"") + _number(3, child.tree_size) for child in children)
    sizes = b"".join(_number(4, child.file_size) for child in children)
    unixfs = _number(1, _UNIXFS_FILE) + _number(3, file_size) + sizes
    block = b"".join(_bytes(2, link) for link in links) + _bytes(1, unixfs)
    return _Block(_cid(_DAG_PB, block), file_size, len(block) + sum(child.tree_size for child in children))


def _cid(codec: int, block: bytes) -> bytes:
    return bytes((1, codec)) + _SHA2_256 + hashlib.sha256(block).digest()


def _number(field: int, value: int) -> bytes:
    """Encode a protobuf field of wire type 0."""
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    """Encode a protobuf field of wire type 2."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _base32(cid: bytes) -> str:
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def _decode_cid(text: str) -> bytes | None:
    """Return the bytes of a CIDv1 with SHA-256. CIDv0 is base58 without a prefix, and implies dag-pb."""
    try:
        match text[:1]:
            case "Q" if len(text) == 46:
                cid = bytes((1, _DAG_PB)) + _decode_base58(text)
            case "z":
                cid = _decode_base58(text[1:])
            case "b" | "B":
                cid = base64.b32decode(text[1:].upper() + "=" * (-(len(text) - 1) % 8))
            case "f" | "F":
                cid = bytes.fromhex(text[1:])
            case _:
                return None
    except ValueError:
        return None
    known = len(cid) == 36 and cid[0] == 1 and cid[1] in (_RAW, _DAG_PB) and cid[2:4] == _SHA2_256
    return cid if known else None


def _decode_base58(text: str) -> bytes:
    value = 0
    for character in text:
        value = value * 58 + _BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8)
