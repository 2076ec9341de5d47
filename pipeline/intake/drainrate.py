"""How fast a sink drains: what Retry-After is worked out from.

Guarded by the lock of the admission that owns it.
"""

from __future__ import annotations

from collections import deque

from pipeline.runtime.clock import Clock

RATE_WINDOW_S = 10.0


class DrainRate:
    """Records settled per second over the last ten seconds, or since the last idle moment.

    Time in which nothing was held says nothing about how fast the sink is, and is not counted.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque()
        self._since = clock.monotonic()

    def begin(self) -> None:
        """Something is held again after nothing was."""
        self._seconds.clear()
        self._since = self._clock.monotonic()

    def add(self, count: int) -> None:
        second = int(self._clock.monotonic())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + count)
        else:
            self._seconds.append((second, count))
            self._expire(second)

    def _expire(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - RATE_WINDOW_S:
            self._seconds.popleft()

    def per_second(self) -> float:
        now = self._clock.monotonic()
        self._expire(int(now))
        span = min(max(now - self._since, 1.0), RATE_WINDOW_S)
        return sum(count for _, count in self._seconds) / span

    def age_s(self) -> float:
        """For how long something has been held without a break (seconds)."""
        return self._clock.monotonic() - self._since
