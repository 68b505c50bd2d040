"""Connection failures as sentences; ``tests/upstream/test_connection_errors.py`` causes them."""

from __future__ import annotations

from typing import get_args

import pytest

from openai_dify_proxy.translate.connection_errors import Failure, ServerAddress, describe_failure, expects_https

SERVER = ServerAddress("Dify", "dify.test", 5001, "DIFY_API_URL")


@pytest.mark.parametrize("failure", get_args(Failure))
def test_every_failure_has_two_sentences_with_the_address(failure: Failure) -> None:
    text = describe_failure(failure, SERVER, "{detail}")
    assert "dify.test" in text
    assert text.replace("dify.test", "").count(".") == 2
    assert text.endswith(".")


def test_ipv6_addresses_are_bracketed() -> None:
    assert str(ServerAddress("IPFS", "::1", 80, "IPFS_UPLOAD_URL")) == "IPFS at [::1]:80"


def test_only_a_400_says_that_https_is_expected() -> None:
    body = b"Client sent an HTTP request to an HTTPS server.\n"
    assert expects_https(400, body)
    assert not expects_https(404, body)
    assert not expects_https(400, b"")
