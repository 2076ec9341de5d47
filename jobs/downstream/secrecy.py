"""Keeping a service's secrets out of what it answers: it may repeat what it was sent.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sinks.secrets import redact

# Shorter ones are looked for in errors only: in a result they are more likely to be chance.
_SHORTEST_IN_RESULTS = 8


def values_to_hide(secrets: Iterable[str]) -> tuple[str, ...]:
    """The secrets and the words in them: of “Bearer x” an answer may repeat the x alone."""
    found = set()
    for secret in secrets:
        found.add(secret)
        found.update(word for word in secret.split() if len(word) >= _SHORTEST_IN_RESULTS)
    return tuple(sorted(found, key=len, reverse=True))


def without(found: Any, hidden: Collection[str]) -> Any:
    """A JSON value with every secret in its texts replaced."""
    long = [one for one in hidden if len(one) >= _SHORTEST_IN_RESULTS]
    return _replaced(found, long) if long else found


def _replaced(found: Any, hidden: list[str]) -> Any:
    if isinstance(found, str):
        return redact(found, hidden) if any(one in found for one in hidden) else found
    if isinstance(found, list):
        return [_replaced(one, hidden) for one in found]
    if isinstance(found, dict):
        return {_replaced(key, hidden): _replaced(one, hidden) for key, one in found.items()}
    return found
