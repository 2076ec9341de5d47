"""Signatures of what is posted, by a secret that both ends know.  Pure."""

from __future__ import annotations

import hashlib
import hmac


def signature(secret: str, *, timestamp: int, body: bytes) -> str:
    """Hex of HMAC-SHA256 by the secret over `timestamp.body`."""
    signed = str(timestamp).encode() + b"." + body
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
