"""Reads the CID from the responses of IPFS nodes and services to an upload.

Kubo's RPC (``/api/v0/add``) and Cluster return lines of JSON, one for each file and directory and some for progress;
services return one document. The kind of node is not configured: the reader looks in all known places.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import json

from openai_dify_proxy.translate.pictures.ipfs_cid import normalize_cid
from openai_dify_proxy.wire.reading import UNREADABLE

CID_PLACES: Final = (
    ("Hash",),  # Kubo, Filebase, Lighthouse
    ("IpfsHash",),  # Pinata, the older API
    ("cid",),  # Cluster
    ("cid", "/"),  # Cluster, earlier
    ("Cid",),
    ("Cid", "/"),
    ("data", "cid"),  # Pinata
    ("data", "Hash"),
    ("ipfs_hash",),  # Blockfrost
    ("value", "cid"),  # storage APIs modelled on NFT.Storage
)
"""The paths to the CID. The first one with a CID is used."""


class NoCid(ValueError):
    """The response has no CID, or reports an error. The message is for the operator."""


def read_upload_answer(body: bytes, name: str) -> str:
    """Return the CID of the file ``name`` as CIDv1 in base32. Raises NoCid."""
    entries = _entries(body)
    failures = [entry["Message"] for entry in entries if entry.get("Type") == "error" and "Message" in entry]
    if failures:
        raise NoCid(f"The node returned an error: {failures[0]}")
    found = [(cid, entry) for entry in entries if (cid := _cid(entry)) is not None]
    if not found:
        raise NoCid("The response has no CID.")
    named = [cid for cid, entry in found if name in (entry.get("Name"), entry.get("name"))]
    # The last line is the outermost directory if there is one, else the file.
    return named[0] if named else found[-1][0]


def _entries(body: bytes) -> list[dict[str, Any]]:
    try:
        documents = [json.decode(body)]
    except UNREADABLE:
        documents = [_line(line) for line in body.split(b"\n") if line.strip()]
    if len(documents) == 1 and isinstance(documents[0], list):
        documents = documents[0]
    return [document for document in documents if isinstance(document, dict)]


def _line(line: bytes) -> Any:
    try:
        return json.decode(line)
    except UNREADABLE:
        raise NoCid("The response is truncated, or not JSON.") from None


def _cid(entry: dict[str, Any]) -> str | None:
    for place in CID_PLACES:
        value: Any = entry
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and (cid := normalize_cid(value)) is not None:
            return cid
    return None
