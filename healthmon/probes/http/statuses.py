"""Expected statuses as an operator writes them: codes and ranges between commas."""

from __future__ import annotations

import re
from functools import lru_cache

_PART = re.compile(r"([1-9]\d\d)(?:\s*-\s*([1-9]\d\d))?", re.ASCII)


@lru_cache(maxsize=256)
def parse_statuses(text: str) -> frozenset[int]:
    """The codes that "200-299,301" stands for.  Raises ValueError.  Targets share them."""
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()[:40]!r} is neither a status nor a range like 200-299")
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise ValueError(f"the range {low}-{high} is empty")
        found.update(range(low, high + 1))
    return frozenset(found)
