"""The statuses that are expected of a service, as they are written: `200-299,304`.  Pure."""

from __future__ import annotations

from functools import lru_cache

# What may work later, whoever says it.
LATER = frozenset({408, 425, 429})


@lru_cache(maxsize=1024)
def expected(text: str) -> frozenset[int]:
    """The statuses that `text` names.  Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            low = _status(first)
            high = _status(last) if dash else low
        except ValueError:
            raise ValueError(
                f"{part.strip()!r} is not a status or a range of them; write them like 200-299,304"
            ) from None
        if low > high:
            raise ValueError(f"{part.strip()!r} ends before it begins")
        found.update(range(low, high + 1))
    return frozenset(found)


def _status(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and 200 <= int(text) <= 599):
        raise ValueError(text)
    return int(text)


def is_later(status: int) -> bool:
    """Whether an unexpected status says that another try may do."""
    return status >= 500 or status in LATER
