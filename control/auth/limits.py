"""How many records a second each API key may send: a token bucket a key, in this process's memory.

A key's rate is for all server processes together: each gives out its part, the whole divided by
the processes that live.  The heart counts them; while the database is away the last count stands.
Request threads ask and charge; the buckets have locks of their own, and `processes` is one number
that the heart alone writes.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from control.auth.keys import Principal
from control.processes.models import DEAD_AFTER, Process
from pipeline.intake.ratelimit import Bucket, Buckets

# A key without a burst of its own may send so many seconds' worth at once.
BURST_S = 10
COUNT_INTERVAL_S = 5.0
SERVER_ROLE = "server"


class KeyLimit:
    """One key's limit, as it stands for one request.

    What is said to the client is of this process's part, as nobody knows what the others still
    have; it may be less than the key's due, never more.
    """

    __slots__ = ("_bucket", "burst", "quota", "rate_per_s", "window_s")

    def __init__(self, bucket: Bucket, *, rate_per_s: int, burst: int) -> None:
        self._bucket = bucket
        self.rate_per_s, self.burst = rate_per_s, burst
        # What may be sent in how many seconds: a burst that is less is full again within one.
        self.quota = max(burst, rate_per_s)
        self.window_s = max(1, math.ceil(burst / rate_per_s))

    def due_s(self) -> float:
        """Seconds until the key may send anything; 0 when it may now."""
        return self._bucket.due_s()

    def charge(self, records: int) -> float:
        """Count a request's records and answer 0; or, as `due_s`, count nothing."""
        return self._bucket.charge(records)

    def give_back(self, records: int) -> None:
        """The request was not taken after all."""
        self._bucket.give_back(records)

    @property
    def remaining(self) -> int:
        return max(0, int(self._bucket.level))

    @property
    def reset_s(self) -> float:
        """Seconds until the whole burst is there again."""
        return self._bucket.full_in_s()


class KeyLimits:
    """The limits of all keys in this process."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.processes = 1
        self._buckets: Buckets[int] = Buckets(rate_per_s=1, burst=1, monotonic=monotonic)

    def of(self, principal: Principal) -> KeyLimit | None:
        """The limit of the key that a request came with; None without one."""
        rate, key_id = principal.rate_per_s, principal.key_id
        if rate is None or key_id is None:
            return None
        burst = principal.burst or rate * BURST_S
        parts = self.processes
        bucket = self._buckets.of(key_id, rate_per_s=rate / parts, burst=max(1.0, burst / parts))
        return KeyLimit(bucket, rate_per_s=rate, burst=burst)

    def count_processes(self) -> None:
        """Count the living servers. Raises, and keeps the last count, without a database."""
        alive = Process.objects.filter(
            role=SERVER_ROLE,
            stopped_at=None,
            last_seen_at__gt=datetime.now(UTC) - DEAD_AFTER,
        )
        self.processes = max(1, alive.count())


_limits: KeyLimits | None = None
_making = threading.Lock()


def key_limits() -> KeyLimits:
    """This process's limits."""
    global _limits
    if _limits is None:
        with _making:
            if _limits is None:
                _limits = KeyLimits()
    return _limits
