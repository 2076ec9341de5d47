"""Owns: how long a client waits before it tries again.

Runs on the client's thread; the random source is given, so that tests can fix it.
"""

from __future__ import annotations

import email.utils
import time
from random import Random

# The server said "not now": nothing of the request was kept, so that a repeat cannot duplicate; or,
# with a 409, that it is still at work on an earlier attempt with the same key.
REFUSED_FOR_NOW = frozenset({409, 429, 503})
MAX_RETRY_AFTER_S = 300.0


def parse_retry_after(value: str, *, wall_time: float | None = None) -> float | None:
    """Seconds from a Retry-After header, in either of its forms; None when it has no meaning."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        # A number that is too long to convert is still only "very long".
        return min(float(value[:12]), MAX_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        seconds = moment.timestamp() - (time.time() if wall_time is None else wall_time)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def wait_before_retry(
    *,
    attempt: int,
    retry_after_s: float | None,
    rng: Random,
    base_s: float = 0.1,
    cap_s: float = 30.0,
) -> float:
    """The server's word when it gave one, never less, plus jitter; else backoff with full jitter.

    Jitter is only ever added to Retry-After: clients that come back early are refused again.
    """
    if retry_after_s is not None:
        return retry_after_s + rng.uniform(0.0, min(max(retry_after_s, base_s) * 0.25, 5.0))
    ceiling = min(cap_s, base_s * 2.0 ** min(attempt, 30))
    return rng.uniform(0.0, ceiling)
