"""Owns: what a server says of its queue in the `RateLimit` headers of its answers.  Pure.

Structured fields, as the IETF draft on RateLimit header fields has them: a list of policies, each
`"name";r=<what remains>` in RateLimit and `"name";q=<the whole>` in RateLimit-Policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_ITEM = re.compile(r'"([^"\\]{1,64})"((?:\s*;\s*[a-z*][a-z0-9_.*-]{0,31}=[^;,\s]{1,64})*)')
_MAX_HEADER = 1024


def far_usage(headers: Mapping[str, str]) -> float:
    """How full the fullest named queue is, 0 to 1; 0 where the server does not say."""
    wholes = _parameters(headers.get("ratelimit-policy", ""), "q")
    remains = _parameters(headers.get("ratelimit", ""), "r")
    usages = [
        1.0 - min(remains[name] / whole, 1.0)
        for name, whole in wholes.items()
        if whole > 0 and name in remains
    ]
    return max(usages, default=0.0)


def _parameters(header: str, wanted: str) -> dict[str, int]:
    found = {}
    for name, parameters in _ITEM.findall(header[:_MAX_HEADER]):
        for parameter in parameters.split(";"):
            key, _, value = parameter.strip().partition("=")
            if key == wanted and value.isascii() and value.isdigit():
                found[name] = int(value)
    return found
