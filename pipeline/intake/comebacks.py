"""How much those that were refused will come back with, and when: the queue that waits outside.

Without it all who are refused within a second would be told the same moment; they would come at
once, most would be refused again, and each refusal takes from those that could be served.  So each
is told when its turn is, behind those that were told before it.

Nobody has to come back, and some come without waiting.  So this adds `AHEAD_MAX_S` at most, and who
was due is forgotten.  Guarded by the lock of the admission that owns it.
"""

from __future__ import annotations

import heapq
import math

# The longest that others' turns may add to what an offer is told (seconds).
AHEAD_MAX_S = 10.0
# Turns are counted by tenths of a second, so that however many are refused little is kept.
TICKS_PER_S = 10


class Comebacks:
    def __init__(self) -> None:
        self._ticks: list[int] = []
        self._by_tick: dict[int, int] = {}
        self._records = 0

    def tell(self, records: int, *, after_s: float, rate: float, now: float) -> float:
        """When (in seconds) an offer of so many records should come back, which alone would
        after `after_s`; `rate` is how many records leave a second."""
        while self._ticks and self._ticks[0] <= now * TICKS_PER_S:
            self._records -= self._by_tick.pop(heapq.heappop(self._ticks))
        if rate <= 0:
            return after_s
        ahead_s = self._records / rate
        if ahead_s < AHEAD_MAX_S:
            self._add(math.ceil((now + after_s + ahead_s) * TICKS_PER_S), records)
        return after_s + min(ahead_s, AHEAD_MAX_S)

    def _add(self, tick: int, records: int) -> None:
        self._records += records
        if tick in self._by_tick:
            self._by_tick[tick] += records
        else:
            self._by_tick[tick] = records
            heapq.heappush(self._ticks, tick)
