"""When a client shall come back: `Retry-After` as whole seconds, spread out.  Pure."""

from __future__ import annotations

import math
import random

MAX_RETRY_AFTER_S = 60


def retry_after(seconds: float) -> int:
    """Whole seconds, 1 to 60, spread out so that clients do not all come back at once."""
    spread = max(seconds, 1.0) * (1.0 + 0.25 * random.random())  # noqa: S311 - not a secret
    whole = math.ceil(spread) if random.random() < spread % 1.0 else max(1, int(spread))  # noqa: S311
    # Who would come later than a minute comes so much earlier: else all would come at its end.
    return min(whole, 2 * MAX_RETRY_AFTER_S - whole)
