"""The `Idempotency-Key` header: what of it is the key.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from control.idempotency.models import MAX_KEY_CHARS

REPLAYED = "Idempotency-Replayed"
_VISIBLE = re.compile(r"[!-~]+")
_ESCAPED = re.compile(r'\\(["\\])')


class BadKey(ValueError):
    """What was sent is no key; the words say why."""


def key_of(meta: Mapping[str, Any]) -> str | None:
    """The request's key, None without one; raises BadKey for what is none.

    A key in quotation marks, as the header's draft standard writes it, is the one inside.
    """
    sent = meta.get("HTTP_IDEMPOTENCY_KEY")
    if sent is None:
        return None
    key: str = sent.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = _ESCAPED.sub(r"\1", key[1:-1])
    if len(key) > MAX_KEY_CHARS or not _VISIBLE.fullmatch(key):
        raise BadKey(
            f"an Idempotency-Key is 1 to {MAX_KEY_CHARS} visible ASCII characters; this one has "
            f"{len(key)}{'' if len(key) > MAX_KEY_CHARS else ', and not all are'}. "
            "A UUID does well"
        )
    return key
