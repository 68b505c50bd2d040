"""The messages of smaller routes: feedback, files, and the pictures of operators."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import json

from openai_dify_proxy.wire.openai.feedback import FEEDBACK_REQUEST, Feedback
from openai_dify_proxy.wire.openai.files import FileDeleted, FileList, FileObject
from openai_dify_proxy.wire.openai.pictures import PictureDeleted, PictureList


def test_feedback() -> None:
    request = FEEDBACK_REQUEST.decode(b'{"message_id": "m", "rating": null, "other": 1}')
    assert (request.message_id, request.rating, request.content, request.model) == ("m", None, None, None)
    assert json.encode(Feedback(message_id="m", rating="like")) == (
        b'{"object":"feedback","message_id":"m","rating":"like"}'
    )


@pytest.mark.parametrize("body", [b'{"message_id": "m"}', b'{"rating": "like"}', b'{"message_id":"m","rating":"good"}'])
def test_feedback_without_a_message_or_a_rating_is_invalid(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        FEEDBACK_REQUEST.decode(body)


def test_files() -> None:
    file = FileObject(id="f", bytes=3, created_at=1, expires_at=2, filename="a.txt", purpose="user_data")
    assert json.decode(json.encode(FileList(data=[file], first_id="f", last_id="f"))) == {
        "object": "list",
        "data": [
            {
                "id": "f",
                "object": "file",
                "bytes": 3,
                "created_at": 1,
                "expires_at": 2,
                "filename": "a.txt",
                "purpose": "user_data",
                "status": "processed",
            }
        ],
        "first_id": "f",
        "last_id": "f",
        "has_more": False,
    }
    assert json.encode(FileDeleted(id="f")) == b'{"id":"f","object":"file","deleted":true}'


def test_pictures() -> None:
    assert json.encode(PictureList(data=[], has_more=False)) == b'{"object":"list","data":[],"has_more":false}'
    assert json.encode(PictureDeleted(id="p")) == b'{"object":"picture","id":"p","deleted":true}'
