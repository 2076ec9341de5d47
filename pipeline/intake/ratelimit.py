"""Token buckets: how often something may happen, with a burst, by an injected clock.

A bucket holds at most `burst` tokens and gains `rate_per_s` of them a second; what happens takes
its tokens, or learns how long to wait and takes nothing.  In any time of t seconds no more than
`burst + rate_per_s * t` are given out, but for what is owed: where the size is known only after
the work is done, `charge` may take one bucket below zero once, and nothing is given out until that
is made up for.

`Bucket._lock` guards its level; `Buckets._lock` guards which buckets there are and is never held
together with a bucket's.  Any thread may call everything here; nothing waits.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)

DEFAULT_MAX_BUCKETS = 10_000


class Bucket:
    """One limit.  Full when made."""

    __slots__ = ("_at", "_level", "_lock", "_monotonic", "burst", "rate_per_s")

    def __init__(self, *, rate_per_s: float, burst: float, monotonic: Callable[[], float]) -> None:
        _check(rate_per_s, burst)
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._level = float(burst)
        self._at = monotonic()

    def take(self, n: float = 1) -> float:
        """Take `n` tokens and answer 0, or take none and answer the seconds until they are there.

        More than `burst` are never there: the answer is infinite.
        """
        if not n > 0:
            raise ValueError("take at least something")
        if n > self.burst:
            return math.inf
        with self._lock:
            self._fill()
            if self._level >= n:
                self._level -= n
                return 0.0
            return (n - self._level) / self.rate_per_s

    def charge(self, n: float) -> float:
        """Take `n` and answer 0, be it more than there is; or the seconds until there is anything.

        What goes beyond is owed, so that more than `burst` at once is late and not for ever
        refused; while anything is owed nothing is taken.
        """
        with self._lock:
            self._fill()
            if self._level <= 0:
                return self._due_s()
            self._level -= n
            return 0.0

    def give_back(self, n: float) -> None:
        """What was taken was not used."""
        with self._lock:
            self._fill()
            self._level = min(self.burst, self._level + n)

    def due_s(self) -> float:
        """Seconds until `charge` takes something; 0 when it would now."""
        with self._lock:
            self._fill()
            return self._due_s() if self._level <= 0 else 0.0

    def _due_s(self) -> float:
        # What is due at once, but for the rounding, is due in a moment.
        return max((1.0 - self._level) / self.rate_per_s, 1e-3)

    @property
    def level(self) -> float:
        """How much is in it; below zero, how much is owed."""
        with self._lock:
            self._fill()
            return self._level

    def full_in_s(self) -> float:
        """Seconds until it is as good as new; 0 when it is."""
        with self._lock:
            self._fill()
            return (self.burst - self._level) / self.rate_per_s

    def configure(self, *, rate_per_s: float, burst: float) -> None:
        """Take on another limit; what is in it stays, up to the new burst."""
        _check(rate_per_s, burst)
        with self._lock:
            self._fill()
            self.rate_per_s, self.burst = rate_per_s, burst
            self._level = min(self._level, burst)

    def _fill(self) -> None:
        now = self._monotonic()
        # A clock that seems to go back gives nothing, and what it gave is not given again.
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate_per_s)
            self._at = now


class Buckets(Generic[_K]):
    """A bucket for each key, at most `max_buckets` of them.

    The key that was silent longest makes room; so soon as its bucket was full again it loses
    nothing by that.  `forgotten_early` counts those that were not: more keys come than are kept.
    """

    def __init__(
        self,
        *,
        rate_per_s: float,
        burst: float,
        monotonic: Callable[[], float],
        max_buckets: int = DEFAULT_MAX_BUCKETS,
    ) -> None:
        _check(rate_per_s, burst)
        if max_buckets < 1:
            raise ValueError("max_buckets must be at least 1")
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._monotonic = monotonic
        self._max_buckets = max_buckets
        self._lock = threading.Lock()
        self._buckets: OrderedDict[_K, Bucket] = OrderedDict()
        self.forgotten_early = 0

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: _K, n: float = 1) -> float:
        """As `Bucket.take`, from this key's bucket."""
        return self._bucket(key).take(n)

    def of(self, key: _K, *, rate_per_s: float, burst: float) -> Bucket:
        """This key's bucket, with limits of its own; it takes on changed ones."""
        bucket = self._bucket(key, rate_per_s, burst)
        if bucket.rate_per_s != rate_per_s or bucket.burst != burst:
            bucket.configure(rate_per_s=rate_per_s, burst=burst)
        return bucket

    def _bucket(
        self, key: _K, rate_per_s: float | None = None, burst: float | None = None
    ) -> Bucket:
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is not None:
                self._buckets.move_to_end(key)
                return bucket
            oldest = None
            if len(self._buckets) >= self._max_buckets:
                _, oldest = self._buckets.popitem(last=False)
            bucket = Bucket(
                rate_per_s=rate_per_s or self._rate_per_s,
                burst=burst or self._burst,
                monotonic=self._monotonic,
            )
            self._buckets[key] = bucket
        if oldest is not None and oldest.full_in_s() > 0:
            with self._lock:
                self.forgotten_early += 1
        return bucket


def _check(rate_per_s: float, burst: float) -> None:
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise ValueError("rate_per_s must be positive")
    if not (burst >= 1 and math.isfinite(burst)):
        raise ValueError("burst must be at least 1")
