"""What IPFS nodes and services answer to an upload: where the CID stands, in each of their shapes.

Kubo's RPC (``/api/v0/add``) and Cluster answer with lines of JSON, one for each file and directory and some for
progress; services answer with one document. None of that is told apart by name: whatever holds a CID is read.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import MsgspecError, json

from openai_dify_proxy.translate.pictures.ipfs_cid import normalise_cid

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
    ("value", "cid"),  # Storage APIs in the manner of NFT.Storage
)
"""The first place that holds a CID counts."""


class NoCid(ValueError):
    """The answer names no CID, or tells of a failure; the text is for the operator."""


def read_upload_answer(body: bytes, name: str) -> str:
    """The CID of the file called ``name``, as CIDv1 in base32. Raises NoCid."""
    entries = _entries(body)
    failures = [entry["Message"] for entry in entries if entry.get("Type") == "error" and "Message" in entry]
    if failures:
        raise NoCid(f"The node failed: {failures[0]}")
    found = [(cid, entry) for entry in entries if (cid := _cid(entry)) is not None]
    if not found:
        raise NoCid("There is no CID in the answer.")
    named = [cid for cid, entry in found if name in (entry.get("Name"), entry.get("name"))]
    # The last line is the outermost directory where there is one, and else the file.
    return named[0] if named else found[-1][0]


def _entries(body: bytes) -> list[dict[str, Any]]:
    try:
        documents = [json.decode(body)]
    except MsgspecError:
        documents = [_line(line) for line in body.split(b"\n") if line.strip()]
    if len(documents) == 1 and isinstance(documents[0], list):
        documents = documents[0]
    return [document for document in documents if isinstance(document, dict)]


def _line(line: bytes) -> Any:
    try:
        return json.decode(line)
    except MsgspecError:
        raise NoCid("The answer is cut off, or no JSON.") from None


def _cid(entry: dict[str, Any]) -> str | None:
    for place in CID_PLACES:
        value: Any = entry
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and (cid := normalise_cid(value)) is not None:
            return cid
    return None
