"""The secret part of a ping address: made once, shown once; only its digest is kept.

A version 4 UUID has 122 random bits, so that a plain digest cannot be searched for its origin.
"""

from __future__ import annotations

import hashlib
import uuid

from healthmon.targets.models import Target

HINT_CHARS = 4


def digest_of(secret: uuid.UUID | str) -> str:
    """What is stored and looked up.  Raises ValueError when it is no UUID."""
    canonical = str(secret if isinstance(secret, uuid.UUID) else uuid.UUID(secret))
    return hashlib.sha256(canonical.encode()).hexdigest()


def new_ping_secret(target: Target) -> str:
    """Give the target a new ping address, the old one ending with that; returns the secret part.

    It cannot be read again.  Only the fields of the address are saved.
    """
    secret = str(uuid.uuid4())
    target.ping_digest = digest_of(secret)
    # Tells an operator which of two addresses is the one in use.
    target.ping_hint = secret[-HINT_CHARS:]
    target.save(update_fields=["ping_digest", "ping_hint", "updated_at"])
    return secret


def ping_path(secret: str) -> str:
    """The path of the address, for showing it the one time."""
    return f"/ping/{secret}"
