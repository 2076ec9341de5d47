"""A signature is over the moment and every byte, by the secret."""

from __future__ import annotations

from control.outbound.signing import signature


def test_a_known_one():
    """As computed by `printf '1.{}' | openssl dgst -sha256 -hmac key`."""
    found = signature("key", timestamp=1, body=b"{}")
    assert found == "1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
    assert found != signature("key", timestamp=2, body=b"{}")
    assert found != signature("kez", timestamp=1, body=b"{}")
    assert found != signature("key", timestamp=1, body=b"{ }")
