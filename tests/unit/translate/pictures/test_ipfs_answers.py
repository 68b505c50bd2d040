"""Answers of nodes and services to uploads, in the forms of their documentation."""

from __future__ import annotations

import pytest

from openai_dify_proxy.translate.pictures.ipfs_answers import NoCid, read_upload_answer

CID = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
FOLDER = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
NAME = "picture.png"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(f'{{"Name":"{NAME}","Hash":"{CID}","Size":"11"}}\n', id="kubo"),
        pytest.param(f'{{"Name":"{NAME}","Hash":"{CID}","Size":11,"Mode":"0644"}}\n', id="js-ipfs"),
        pytest.param(
            f'{{"Name":"{NAME}","Bytes":11}}\n\n{{"Name":"{NAME}","Hash":"{CID}","Size":"11"}}\n', id="progress"
        ),
        pytest.param(
            f'{{"Name":"{NAME}","Hash":"{CID}","Size":"11"}}\n{{"Name":"","Hash":"{FOLDER}","Size":"64"}}\n',
            id="in a folder",
        ),
        pytest.param(f'{{"Name":"other","Hash":"{FOLDER}"}}\r\n{{"Name":"{CID}","Hash":"{CID}"}}', id="other names"),
        pytest.param(f'{{"name":"{NAME}","cid":"{CID}","size":11,"allocations":[]}}\n', id="cluster"),
        pytest.param(f'{{"name":"{NAME}","cid":{{"/":"{CID}"}},"size":11}}\n', id="older cluster"),
        pytest.param(
            f'[{{"name":"{NAME}","cid":"{CID}"}}, {{"name":"","cid":"{FOLDER}"}}]', id="cluster, not streamed"
        ),
        pytest.param(f'{{"data":{{"id":"1","name":"{NAME}","cid":"{CID}","size":11}}}}', id="pinata"),
        pytest.param(f'{{"IpfsHash":"{CID}","PinSize":11,"Timestamp":"2026-01-01T00:00:00Z"}}', id="older pinata"),
        pytest.param(f'{{"name":"{NAME}","ipfs_hash":"{CID}","size":"11"}}', id="blockfrost"),
        pytest.param(f'{{"ok":true,"value":{{"cid":"{CID}"}}}}', id="nft.storage"),
        pytest.param(f'{{\n  "Cid": {{ "/": "{CID}" }}\n}}', id="over several lines"),
        pytest.param(f'{{"Hash":"","cid":"{CID}"}}', id="an empty field"),
        pytest.param(f'"done"\n{{"Hash":"{CID}"}}', id="lines that are not objects"),
    ],
)
def test_the_cid_is_found(answer: str) -> None:
    assert read_upload_answer(answer.encode(), NAME) == CID


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "no CID"),
        ("null", "no CID"),
        ("{}", "no CID"),
        ('{"Hash":"not a CID"}', "no CID"),
        ('{"data":[]}', "no CID"),
        ('{"data":{"cid":7}}', "no CID"),
        ("<html>It works!</html>", "truncated, or not JSON"),
        (f'{{"Name":"{NAME}","Hash":"{CID}","Si', "truncated, or not JSON"),
        (f'{{"Name":"a","Hash":"{FOLDER}"}}\n{{"Name":"{NAME}","Hash":"{CID}', "truncated, or not JSON"),
        (
            '{"Message":"no space left on device","Code":0,"Type":"error"}',
            "The node returned an error: no space left on device",
        ),
        (
            f'{{"Name":"{NAME}","Hash":"{CID}"}}\n{{"Message":"pin: context canceled","Code":0,"Type":"error"}}\n',
            "The node returned an error: pin: context canceled",
        ),
    ],
)
def test_answers_without_a_cid_are_errors(answer: str, why: str) -> None:
    with pytest.raises(NoCid, match=why):
        read_upload_answer(answer.encode(), NAME)
